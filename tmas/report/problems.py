"""Data for the page's problem browser: for each problem an entry in the list and a block with its details."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tmas.records.evaluation_files import EvaluatedStep
from tmas.records.judgements import JudgementLine
from tmas.records.reading import read_records
from tmas.records.run_files import Correctness, PredictedCandidate, Prediction
from tmas.report.runs import ReportedRun
from tmas.report.traces import Block, problem_block

QUESTION = 300
"""Maximum number of characters of a question in the list."""


@dataclass
class TextBudget:
    """The page's budget for texts, in characters.

    ``problems``: number of problems that share what is not ``used`` yet. ``left_out``: characters that are not in the
    page.
    """

    total: int
    problems: int
    used: int = 0
    left_out: int = 0

    def share(self) -> int:
        """Return the budget of the next problem. It includes what earlier problems did not use."""
        return (self.total - self.used) // self.problems

    def spend(self, used: int, left_out: int) -> None:
        self.problems -= 1
        self.used += used
        self.left_out += left_out


@dataclass
class Browser:
    """One run in the problem browser. ``wanted``: ids of the problems that can be opened (None: all)."""

    run: ReportedRun
    number: int
    scoring: str
    wanted: Sequence[str] | None
    entries: list[dict[str, Any]] = field(default_factory=list)

    def blocks(self, budget: TextBudget) -> Iterator[tuple[str, list[str]]]:
        """Yield the id and lines of each block in the order of the predictions. Also fills ``entries``."""
        for line in self.run.predictions():
            entry = self.add_entry(line)
            if self.wanted is not None and line.problem_id not in self.wanted:
                continue
            block = self.block(line, budget.share())
            budget.spend(block.size, block.left_out)
            entry |= {"block": f"b{self.number}-{entry['number']}", "left_out": block.left_out}
            yield entry["block"], block.lines

    def add_entry(self, line: Prediction) -> dict[str, Any]:
        """Add a problem to ``entries``, without a block, and return its entry."""
        steps = self._scores.get(line.problem_id, ())
        entry = _entry(with_judge(line, self._judged), len(self.entries), steps, self.scoring)
        self.entries.append(entry)
        return entry

    def block(self, line: Prediction, share: int) -> Block:
        """Create the block of a problem, with texts up to ``share``; see :func:`~tmas.report.traces.problem_block`."""
        failures = [failure.model_dump(mode="json") for failure in self.run.failures.get(line.problem_id, ())]
        facts = {**_facts(line, with_judge(line, self._judged)), "failures": failures}
        return problem_block(facts, self.run.calls(line.problem_id), share)

    @cached_property
    def _judged(self) -> Judged:
        return judge_verdicts(self.run) if self.scoring == "judge" else {}

    @cached_property
    def _scores(self) -> Mapping[str, Sequence[EvaluatedStep]]:
        return {problem.problem_id: problem.iterations for problem in self.run.evaluation.by_problem}


def _entry(line: Prediction, number: int, steps: Sequence[EvaluatedStep], scoring: str) -> dict[str, Any]:
    shares = [step.scores[scoring]["pass_at_1"] for step in steps]
    bounds = [step.upper.get(scoring, {}).get("pass_at_1", share) for step, share in zip(steps, shares, strict=True)]
    return {
        "number": number,
        "problem_id": line.problem_id,
        "question": line.question and line.question[:QUESTION],
        "gold": line.gold,
        "answer": line.answer,
        "correct": line.correct,
        "strip": shares,
        **({"strip_upper": bounds} if bounds != shares else {}),
        "iterations": len(line.iterations),
        "stop": line.stop,
        "tokens": line.total_usage.total_tokens,
        "failures": line.failures,
        "block": None,
    }


Judged = Mapping[tuple[str, str], list[bool]]
"""Maps (gold, answer) to the verdicts of the judge's passes."""


def judge_verdicts(run: ReportedRun) -> Judged:
    """Return the verdicts of the judge that the evaluation names."""
    judge = run.evaluation.settings.judge
    assert judge is not None
    found: dict[tuple[str, str], list[bool]] = {}
    for line in read_records(run.path / "judgements.jsonl", JudgementLine):
        if line.judge == judge.identity and line.verdict is not None and line.number < judge.passes:
            found.setdefault((line.gold, line.answer), []).append(line.verdict == "equivalent")
    return found


def with_judge(line: Prediction, judged: Judged) -> Prediction:
    """Return the prediction with the judge's verdicts in ``correct`` wherever the judge was asked."""

    def verdict(one: Prediction | PredictedCandidate) -> dict[str, Correctness | None]:
        passes = judged.get((line.gold or "", one.answer or ""), [])
        right = sum(passes) * 2 - len(passes)
        correct = one.correct if not passes else "equal" if right > 0 else "different" if right < 0 else "undecided"
        return {"correct": correct}

    iterations = tuple(
        i.model_copy(update={"candidates": tuple(c.model_copy(update=verdict(c)) for c in i.candidates)})
        for i in line.iterations
    )
    return line.model_copy(update={**verdict(line), "iterations": iterations})


def _facts(line: Prediction, final: Prediction) -> dict[str, Any]:
    """Return ``final`` as JSON for the page. Each candidate also has the rule's verdict, taken from ``line``."""
    iterations = [
        {
            **shown.model_dump(mode="json"),
            "candidates": [
                {**c.model_dump(mode="json"), "rule": by_rule.correct}
                for c, by_rule in zip(shown.candidates, recorded.candidates, strict=True)
            ],
        }
        for shown, recorded in zip(final.iterations, line.iterations, strict=True)
    ]
    return {**final.model_dump(mode="json"), "iterations": iterations}
