"""How well a policy plays each role: its replies in a recorded run, held against the task's rules.

``python -m recipes.miniature.gates RUN OUTPUT.json`` prints a table and writes it. Each prompt of the run is given to
the rules again, so the policy is judged on the prompts that it met itself. A call that failed counts as wrong.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from rich.console import Console
from rich.table import Table

from recipes.miniature.language import blocks_in, findings, read_answer
from recipes.miniature.task import ORDERS, RULES, Candidate, Task, solves
from recipes.miniature.teacher import STRATEGY, Teacher
from tmas.answers.extract import extract_boxed
from tmas.run.replay import RecordedRun
from tmas.run.trace import read_trace


class Gate(NamedTuple):
    """The least and the most that a share may be."""

    least: float
    most: float = 1.0


GATES = {
    "verification exact": Gate(0.99),
    "summary exact": Gate(0.98),
    "guideline exact": Gate(0.98),
    "experience exact": Gate(0.95),
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


def measured(run: RecordedRun) -> dict[str, Share]:
    """The share for each gate, over all calls of the run."""
    shares = dict.fromkeys(GATES, Share())
    for problem_id in run.problem_ids:
        for entry in read_trace(run.trace(problem_id)):
            if entry["type"] == "call":
                for name, share in _of_call(entry):
                    shares[name] += share
    return shares


def met(name: str, share: Share) -> bool:
    """Whether the share is within its gate."""
    return share.value is not None and GATES[name].least <= share.value <= GATES[name].most


def _of_call(entry: Mapping[str, Any]) -> Iterator[tuple[str, Share]]:
    role, prompt = entry["key"]["role"], entry["messages"][-1]["content"]
    replies = [completion["text"] for completion in entry.get("reply", {}).get("completions", [])] or [""]
    for text in replies:
        if role in _EXACT:
            yield f"{role} exact", Share(exact(prompt, text), 1)
        elif role == "solution":
            yield from _of_solution(prompt, text)


def exact(prompt: str, reply: str) -> bool:
    """Whether ``reply`` is word for word what the rules write, for a role with one right reply."""
    return reply.strip() == Teacher(Task(), random.Random(0)).reply(prompt)


def _of_solution(prompt: str, text: str) -> Iterator[tuple[str, Share]]:
    blocks = blocks_in(prompt)
    candidate = read_answer(extract_boxed(text) or "", len(blocks))
    if tried := STRATEGY.findall(prompt):
        if len(set(tried)) < len(RULES):
            yield "explore is new", Share(candidate is not None and candidate.rule not in tried, 1)
    elif known := findings(prompt):
        yield from _by_memory({found[:3]: found.fits for found in known}, candidate)
    else:
        yield "plain solving", Share(candidate is not None and solves(blocks, candidate), 1)


def _by_memory(known: Mapping[tuple[int, str, str], bool], candidate: Candidate | None) -> Iterator[tuple[str, Share]]:
    """For each block with a verified order: is it taken? With refuted ones, but not only these: are they avoided?

    A rule that some block refutes is only taken where all rules in the prompt are refuted: that is a guess.
    """
    if candidate is None:
        yield from (("exploit reuses verified", Share(0, 1)), ("exploit avoids refuted", Share(0, 1)))
        return
    facts = [{o: known.get((n, candidate.rule, o)) for o in ORDERS} for n in range(len(candidate.orders))]
    if any(set(labels.values()) == {False} for labels in facts):
        return
    for order, labels in zip(candidate.orders, facts, strict=True):
        if True in labels.values():
            yield "exploit reuses verified", Share(labels[order] is True, 1)
        elif False in labels.values() and None in labels.values():
            yield "exploit avoids refuted", Share(labels[order] is None, 1)


def main(run: Path, output: Path) -> None:
    shares = measured(RecordedRun(run))
    table = Table("gate", "share", "of", "wanted", "")
    for name, share in shares.items():
        gate = GATES[name]
        wanted = f"{gate.least:.0%} to {gate.most:.0%}" if gate.most < 1 else f"at least {gate.least:.0%}"
        value = "-" if share.value is None else f"{share.value:.1%}"
        table.add_row(name, value, str(share.total), wanted, "met" if met(name, share) else "MISSED")
    Console().print(table)
    plain = {name: {**share._asdict(), "share": share.value, "met": met(name, share)} for name, share in shares.items()}
    output.write_bytes(orjson.dumps(plain, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
