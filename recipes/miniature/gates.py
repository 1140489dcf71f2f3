"""How well a policy plays each role: its replies in a recorded run, held against the task's rules.

``python -m recipes.miniature.gates RUN OUTPUT.json`` prints two tables and writes them. Each prompt of the run is given
to the rules again, so the policy is judged on the prompts that it met itself. A call that failed counts as wrong.

The gates are for a run of TMAS. The second table is for every method: how many of the findings that a role writes are
true. A role that computes, such as RSE's distillation, may be compared with TMAS's verifier by it.
"""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from data_prep.sft import whole_reply
from recipes.miniature.language import blocks_in, findings, read_answer
from recipes.miniature.task import ORDERS, RULES, Blocks, Candidate, Task, fits, solves
from recipes.miniature.teacher import MOST_RULES, STRATEGY, Teacher, followed, labels, refuted
from tmas.answers.extract import extract_boxed
from tmas.files import write_json
from tmas.run.replay import RecordedRun
from tmas.run.trace import read_calls


class Gate(NamedTuple):
    """The least and the most that a share may be."""

    least: float
    most: float = 1.0


GATES = {
    "verification exact": Gate(0.99),
    "summary exact": Gate(0.98),
    "guideline exact": Gate(0.98),
    "experience exact": Gate(0.95),
    "exploit follows a rule that is open": Gate(0.97),
    "exploit avoids refuted": Gate(0.97),
    "exploit reuses verified": Gate(0.97),
    "explore is new": Gate(0.95),
    "plain solving": Gate(0.04, 0.25),
}
_EXACT = ("verification", "summary", "guideline", "experience")


class Share(NamedTuple):
    """``right`` of ``total``."""

    right: int = 0
    total: int = 0

    def __add__(self, other: Share) -> Share:  # type: ignore[override]
        return Share(self.right + other.right, self.total + other.total)

    @property
    def value(self) -> float | None:
        return self.right / self.total if self.total else None


class Call(NamedTuple):
    """A call of a run. ``texts``: its replies without thinking; one empty text if the call failed."""

    role: str
    prompt: str
    texts: list[str]
    replies: list[str]


def calls_of(run: RecordedRun) -> Iterator[Call]:
    """All calls of the run's finished problems."""
    for problem_id in run.problem_ids:
        for call in read_calls(run.trace(problem_id)):
            completions = call.reply.completions if call.reply else ()
            yield Call(
                call.key.role,
                call.messages[-1].content,
                [completion.text for completion in completions] or [""],
                [whole_reply(completion) for completion in completions],
            )


def measured(calls: Iterable[Call]) -> dict[str, Share]:
    """The share for each gate."""
    shares = dict.fromkeys(GATES, Share())
    for call in calls:
        for name, share in _of_call(call):
            shares[name] += share
    return shares


def true_findings(calls: Iterable[Call]) -> dict[str, Share]:
    """For each role, the share of the findings in its replies that are true of the problem."""
    shares: defaultdict[str, Share] = defaultdict(Share)
    for call in calls:
        blocks = blocks_in(call.prompt)
        for reply in call.replies:
            shares[call.role] += _true(blocks, reply)
    return {role: share for role, share in shares.items() if share.total}


def _true(blocks: Blocks, text: str) -> Share:
    found = [f for f in findings(text) if f.block < len(blocks) and f.rule in RULES and f.order in ORDERS]
    return Share(sum(fits(blocks[f.block], f.rule, f.order) == f.fits for f in found), len(found))


def met(name: str, share: Share) -> bool:
    """Whether the share is within its gate."""
    return share.value is not None and GATES[name].least <= share.value <= GATES[name].most


def _of_call(call: Call) -> Iterator[tuple[str, Share]]:
    for text in call.texts:
        if call.role in _EXACT:
            yield f"{call.role} exact", Share(exact(call.prompt, text), 1)
        elif call.role == "solution":
            yield from _of_solution(call.prompt, text)


def exact(prompt: str, reply: str) -> bool:
    """Whether ``reply`` is word for word what the rules write, for a role with one right reply."""
    return reply.strip() == Teacher(Task(), random.Random(0)).reply(prompt)


def _of_solution(prompt: str, text: str) -> Iterator[tuple[str, Share]]:
    blocks = blocks_in(prompt)
    candidate = read_answer(extract_boxed(text) or "", len(blocks))
    if tried := STRATEGY.findall(prompt):
        if len(set(tried)) < len(RULES):
            yield "explore is new", Share(candidate is not None and candidate.rule not in tried, 1)
    elif findings(prompt):
        yield from _by_memory(len(blocks), labels(prompt), followed(prompt)[:MOST_RULES], candidate)
    else:
        yield "plain solving", Share(candidate is not None and solves(blocks, candidate), 1)


def _by_memory(
    blocks: int, known: Mapping[tuple[int, str, str], bool], shown: Sequence[str], candidate: Candidate | None
) -> Iterator[tuple[str, Share]]:
    """Whether the candidate takes one of the ``shown`` rules that no block refutes, and how it chooses the orders.

    For each block with a verified order: is it taken? With refuted ones, but not only these: are they avoided? Nothing
    is counted where all shown rules are refuted: then the candidate is a guess.
    """
    opened = {rule for rule in shown if not any(refuted(known, n, rule) for n in range(blocks))}
    if not opened:
        return
    yield "exploit follows a rule that is open", Share(candidate is not None and candidate.rule in opened, 1)
    if candidate is None or candidate.rule not in opened:
        return
    for n, order in enumerate(candidate.orders):
        found = {o: known.get((n, candidate.rule, o)) for o in ORDERS}
        if True in found.values():
            yield "exploit reuses verified", Share(found[order] is True, 1)
        elif False in found.values():
            yield "exploit avoids refuted", Share(found[order] is None, 1)


def main(run: Path, output: Path) -> None:
    calls = [*calls_of(RecordedRun(run))]
    shares, findings_of = measured(calls), true_findings(calls)
    table = Table("gate", "share", "of", "wanted", "")
    for name, share in shares.items():
        gate = GATES[name]
        wanted = f"{gate.least:.0%} to {gate.most:.0%}" if gate.most < 1 else f"at least {gate.least:.0%}"
        if share.value is None:
            table.add_row(name, "-", "0", wanted, "not in this run")
        else:
            table.add_row(name, f"{share.value:.1%}", str(share.total), wanted, "met" if met(name, share) else "MISSED")
    second = Table("role", "true findings", "of")
    for role, share in findings_of.items():
        second.add_row(role, f"{share.value:.1%}", str(share.total))
    Console().print(table, second)
    gates = {name: {**share._asdict(), "share": share.value, "met": met(name, share)} for name, share in shares.items()}
    true = {role: {**share._asdict(), "share": share.value} for role, share in findings_of.items()}
    write_json(output, {"gates": gates, "true_findings": true})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
