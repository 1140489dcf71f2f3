"""Measures how well a policy plays each role: compares its replies in a recorded run with the teacher's replies, or
checks them against the problem.

``python -m recipes.miniature.gates RUN OUTPUT.json`` prints two tables and writes them to OUTPUT.json. Prompts and
replies are read from the traces of the run.

A *gate* is a threshold that the policy should reach in one role. The first table is for runs of TMAS. It shows for each
gate the share of correct replies and the wanted share. A failed call counts as wrong. The second table is for runs of
any method. It shows for each role the share of the stated findings that are true, so that roles of different methods
can be compared, such as RSE's distillation and TMAS's verifier. It leaves out failed calls.
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

from recipes.miniature.language import blocks_in, findings, read_answer
from recipes.miniature.task import ORDERS, RULES, Blocks, Candidate, Task, fits, solves
from recipes.miniature.teacher import MOST_RULES, STRATEGY, Teacher, labels, ranked_rules, refuted
from tmas.answers.extract import extract_boxed
from tmas.data_prep.sft import whole_reply
from tmas.files import write_json
from tmas.run.replay import RecordedRun
from tmas.run.trace import read_calls


class Gate(NamedTuple):
    """The smallest and the largest share that is accepted."""

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
    # Without memory the policy should guess, as the teacher does. A larger share would mean that it computes the
    # solution, and a smaller one that it did not learn how often the teacher guesses each rule and order.
    "plain solving": Gate(0.04, 0.25),
}
"""Gates by name, as docs/miniature.md explains them.

An order is *verified* or *refuted* for a block if the prompt's findings say that it fits or that it does not. A rule is
*open* if no block has all its orders refuted.
"""
_EXACT = ("verification", "summary", "guideline", "experience")


class Share(NamedTuple):
    """A share: ``right`` of ``total`` cases. ``value`` is None if there is no case."""

    right: int = 0
    total: int = 0

    def __add__(self, other: Share) -> Share:  # type: ignore[override]
        return Share(self.right + other.right, self.total + other.total)

    @property
    def value(self) -> float | None:
        return self.right / self.total if self.total else None


class Call(NamedTuple):
    """A call of a run.

    ``texts``: its replies without thinking; one empty text if the call failed. ``replies``: its replies with thinking.
    """

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
    """The share of correct replies for each gate."""
    shares = dict.fromkeys(GATES, Share())
    for call in calls:
        for name, share in _gate_shares(call):
            shares[name] += share
    return shares


def true_findings(calls: Iterable[Call]) -> dict[str, Share]:
    """For each role, the share of the findings in its replies that are true of the problem."""
    shares: defaultdict[str, Share] = defaultdict(Share)
    for call in calls:
        blocks = blocks_in(call.prompt)
        for reply in call.replies:
            shares[call.role] += _true_share(blocks, reply)
    return {role: share for role, share in shares.items() if share.total}


def _true_share(blocks: Blocks, text: str) -> Share:
    found = [f for f in findings(text) if f.block < len(blocks) and f.rule in RULES and f.order in ORDERS]
    return Share(sum(fits(blocks[f.block], f.rule, f.order) == f.fits for f in found), len(found))


def met(name: str, share: Share) -> bool:
    """Whether the share is within its gate."""
    return share.value is not None and GATES[name].least <= share.value <= GATES[name].most


def _gate_shares(call: Call) -> Iterator[tuple[str, Share]]:
    """Yield the gates that apply to a call, each with the share of its replies that pass."""
    for text in call.texts:
        if call.role in _EXACT:
            yield f"{call.role} exact", Share(exact(call.prompt, text), 1)
        elif call.role == "solution":
            yield from _solution_shares(call.prompt, text)


def exact(prompt: str, reply: str) -> bool:
    """Whether ``reply`` equals the teacher's reply, for a role that has only one correct reply."""
    return reply.strip() == Teacher(Task(), random.Random(0)).reply(prompt)


def _solution_shares(prompt: str, text: str) -> Iterator[tuple[str, Share]]:
    blocks = blocks_in(prompt)
    candidate = read_answer(extract_boxed(text) or "", len(blocks))
    if tried := STRATEGY.findall(prompt):
        if len(set(tried)) < len(RULES):
            yield "explore is new", Share(candidate is not None and candidate.rule not in tried, 1)
    elif findings(prompt):
        yield from _exploit_shares(len(blocks), labels(prompt), ranked_rules(prompt)[:MOST_RULES], candidate)
    else:
        yield "plain solving", Share(candidate is not None and solves(blocks, candidate), 1)


def _exploit_shares(
    blocks: int, known: Mapping[tuple[int, str, str], bool], shown: Sequence[str], candidate: Candidate | None
) -> Iterator[tuple[str, Share]]:
    """Yield the ``exploit`` gates for a candidate: whether it uses the findings in its prompt as it should.

    It should take one of the ``shown`` rules that no block refutes. For a block with a verified order it should take
    that order. For any other block it should not take a refuted order. If all shown rules are refuted, the candidate
    can only guess, and nothing is counted.
    """
    open_rules = {rule for rule in shown if not any(refuted(known, n, rule) for n in range(blocks))}
    if not open_rules:
        return
    yield "exploit follows a rule that is open", Share(candidate is not None and candidate.rule in open_rules, 1)
    if candidate is None or candidate.rule not in open_rules:
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
    findings_table = Table("role", "true findings", "of")
    for role, share in findings_of.items():
        findings_table.add_row(role, f"{share.value:.1%}", str(share.total))
    Console().print(table, findings_table)
    gates = {name: {**share._asdict(), "share": share.value, "met": met(name, share)} for name, share in shares.items()}
    true = {role: {**share._asdict(), "share": share.value} for role, share in findings_of.items()}
    write_json(output, {"gates": gates, "true_findings": true})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
