"""What the page's browser shows: an entry in the list of problems for each, and the block behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tmas.files import read_lines
from tmas.records import Usage
from tmas.report.runs import Line, Run
from tmas.report.traces import problem_block

QUESTION = 300
"""Characters of a question in the list."""


@dataclass
class Room:
    """Characters of the page that texts may take, and for how many problems; what was taken and what left out."""

    total: int
    problems: int
    used: int = 0
    left_out: int = 0

    def share(self) -> int:
        """What the next problem may take: those before it leave what they did not need."""
        return (self.total - self.used) // self.problems

    def spend(self, used: int, left_out: int) -> None:
        self.problems -= 1
        self.used += used
        self.left_out += left_out


@dataclass
class Browser:
    """One run in the browser. ``wanted``: ids of the problems that are to be opened; None: all."""

    run: Run
    number: int
    scoring: str
    wanted: Sequence[str] | None
    entries: list[dict[str, Any]] = field(default_factory=list)

    def blocks(self, room: Room) -> Iterator[tuple[str, list[str]]]:
        """The id and the lines of each block, in the order of the predictions; fills ``entries`` on the way."""
        judge = _judged(self.run) if self.scoring == "judge" else {}
        scores = {problem["problem_id"]: problem["iterations"] for problem in self.run.evaluation["by_problem"]}
        for number, line in enumerate(self.run.predictions()):
            problem_id = line["problem_id"]
            final = _with_judge(line, judge)
            entry = _entry(final, number, scores.get(problem_id, []), self.scoring)
            self.entries.append(entry)
            if self.wanted is not None and problem_id not in self.wanted:
                continue
            facts = {**final, "failures": self.run.failures.get(problem_id, [])}
            block = problem_block(facts, self.run.trace(problem_id), room.share())
            room.spend(block.size, block.left_out)
            entry |= {"block": f"b{self.number}-{number}", "left_out": block.left_out}
            yield entry["block"], block.lines


def _entry(line: Line, number: int, steps: Sequence[Mapping[str, Any]], scoring: str) -> dict[str, Any]:
    question = line.get("question")
    return {
        "number": number,
        "problem_id": line["problem_id"],
        "question": question and question[:QUESTION],
        "gold": line["gold"],
        "answer": line["answer"],
        "correct": line["correct"],
        "strip": [step["scores"][scoring]["pass_at_1"] for step in steps],
        "iterations": len(line["iterations"]),
        "stop": line["stop"],
        "tokens": sum((Usage(**one["usage"]) for one in line["usage"]), Usage()).total_tokens,
        "failures": line["failures"],
        "block": None,
    }


Judged = Mapping[tuple[str, str], list[bool]]
"""(gold, answer) -> the verdicts of the judge's passes."""


def _judged(run: Run) -> Judged:
    """Of the judge that the evaluation names."""
    judge = run.evaluation["settings"]["judge"]
    found: dict[tuple[str, str], list[bool]] = {}
    for line in read_lines(run.path / "judgements.jsonl"):
        if line["judge"] == judge["identity"] and line["verdict"] is not None and line["pass"] < judge["passes"]:
            found.setdefault((line["gold"], line["answer"]), []).append(line["verdict"] == "equivalent")
    return found


def _with_judge(line: Line, judged: Judged) -> Line:
    """``correct`` as the judge has it where it was asked; what the rule said is kept as ``rule``."""

    def verdict(answer: str | None, rule: str | None) -> str | None:
        passes = judged.get((line["gold"], answer or ""), [])
        right = sum(passes) * 2 - len(passes)
        return rule if not passes else "equal" if right > 0 else "different" if right < 0 else "undecided"

    def candidate(one: Line) -> Line:
        return {**one, "correct": verdict(one["answer"], one["correct"]), "rule": one["correct"]}

    iterations = [{**i, "candidates": [candidate(c) for c in i["candidates"]]} for i in line["iterations"]]
    return {**line, "correct": verdict(line["answer"], line["correct"]), "iterations": iterations}
