"""Cleaning the pool: benchmark problems, answers that the checker cannot read, duplicates. Every removal is on record.

A duplicate is one by the project's own test (:mod:`tmas.memory.similarity`): numbers and relations must be equal, so
that a problem with other numbers is another problem. Of duplicates the first is kept. That test lets a word differ,
such as "inscribed" for "circumscribed": where the answers are not equal, only problems of the same words are one, and
if the answers differ then, one is wrong, and none is kept.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_prep.decontaminate import Benchmarks, DecontaminationSettings, Match
from data_prep.near import NearIndex
from tmas.answers.checker import AnswerChecker
from tmas.answers.equivalence import Equivalence
from tmas.files import write_lines
from tmas.memory.similarity import jaccard, lex, near_duplicate, tokens
from tmas.records import Record
from tmas.settings import Settings
from tmas.training.contexts import TrainingProblem

Reason = Literal["unreadable", "benchmark", "duplicate", "conflict"]
_CHUNK = 256


class CleanSettings(Settings):
    """How the pool is cleaned."""

    on_unreadable: Literal["remove", "judge"] = Field(
        default="remove",
        description="What to do with a problem whose answer math-verify cannot compare. remove: remove it. judge: keep"
        " it as math_grm, which needs a judge in training.",
    )
    duplicate: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Jaccard similarity at which two problems with the same numbers count as duplicates.",
    )
    decontamination: DecontaminationSettings = Field(
        default=DecontaminationSettings(), description="When a problem counts as a copy of a benchmark problem."
    )
    workers: int = Field(default=2, ge=1, description="Processes that compare answers.")


class Removed(Record):
    """A problem that was taken out, why, and what it was found to repeat."""

    problem_id: str
    reason: Reason
    detail: str
    question: str
    answer: str | None
    match: Match | None = None


async def clean(
    pool: Iterable[TrainingProblem], benchmarks: Benchmarks, settings: CleanSettings, output_dir: Path
) -> dict[str, Any]:
    """Write ``problems.jsonl`` and ``removed.jsonl`` into ``output_dir``; returns the counts."""
    async with AnswerChecker(workers=settings.workers) as checker:
        cleaning = _Cleaning(benchmarks, settings, checker)
        for chunk in _chunks(pool):
            await cleaning.take(chunk)
    kept = write_lines(output_dir / "problems.jsonl", cleaning.kept.values())
    write_lines(output_dir / "removed.jsonl", cleaning.removed)
    return {
        "benchmarks": benchmarks.sizes,
        "benchmark_rows_skipped": benchmarks.skipped,
        "kept": kept,
        "removed": dict(Counter(removed.reason for removed in cleaning.removed)),
        "judged": sum(problem.data_source == "math_grm" for problem in cleaning.kept.values()),
    }


def _chunks(pool: Iterable[TrainingProblem]) -> Iterator[Sequence[TrainingProblem]]:
    remaining = iter(pool)
    while chunk := tuple(islice(remaining, _CHUNK)):
        yield chunk


class _Cleaning:
    """The state of one pass: ``kept`` by number, in order."""

    def __init__(self, benchmarks: Benchmarks, settings: CleanSettings, checker: AnswerChecker) -> None:
        self.benchmarks, self.settings, self.checker = benchmarks, settings, checker
        self.kept: dict[int, TrainingProblem] = {}
        self.removed: list[Removed] = []
        self._seen: list[TrainingProblem] = []
        self._index = NearIndex(settings.duplicate)

    async def take(self, chunk: Sequence[TrainingProblem]) -> None:
        """Answers are looked at side by side, duplicates one after the other."""
        readable = await asyncio.gather(*map(self._with_readable_answer, chunk))
        for problem, outcome in zip(chunk, readable, strict=True):
            if match := self.benchmarks.match(problem.question):
                self._remove(problem, "benchmark", f"{match.by} {match.similarity:.0%} of {match.found_in}", match)
            elif isinstance(outcome, str):
                self._remove(problem, "unreadable", outcome)
            else:
                await self._keep_unless_duplicate(outcome)

    async def _with_readable_answer(self, problem: TrainingProblem) -> TrainingProblem | str:
        """The problem as it goes on, or why its answer cannot be read. Accepted answers that differ leave no one gold
        answer: a judge, too, would find each of them different from all of them together."""
        first, *others = problem.metadata.get("accepted", [problem.answer])
        for other in others:
            if not (await self.checker.compare(first, other)).equal:
                return f"accepted answers differ: {first!r} and {other!r}"
        verdict = await self.checker.compare(first, "0")  # only for whether it is read at all
        if verdict.equivalence is not Equivalence.UNDECIDED:
            return problem.model_copy(update={"metadata": {}})
        if self.settings.on_unreadable == "remove":
            return verdict.reason or "undecided"
        return problem.model_copy(update={"data_source": "math_grm", "metadata": {}})

    async def _keep_unless_duplicate(self, problem: TrainingProblem) -> None:
        features = tokens(problem.question)
        number = len(self._seen)
        for twin in self._index.candidates(features):
            first = self._seen[twin]
            reason = await self._relation(first, problem)
            if reason == "duplicate":
                return self._remove(problem, "duplicate", f"of {first.problem_id}", _match(first, problem))
            if reason == "conflict":
                self._remove(problem, "conflict", f"another answer than {first.problem_id}", _match(first, problem))
                if self.kept.pop(twin, None):
                    self._remove(first, "conflict", f"another answer than {problem.problem_id}", _match(problem, first))
                return None
        self._seen.append(problem)
        self._index.add(number, features)
        self.kept[number] = problem
        return None

    async def _relation(
        self, first: TrainingProblem, problem: TrainingProblem
    ) -> Literal["duplicate", "conflict"] | None:
        if not near_duplicate(first.question, problem.question, self.settings.duplicate):
            return None
        verdict = await self.checker.compare(first.answer, problem.answer)
        if not verdict.equal and lex(first.question.lower()) != lex(problem.question.lower()):
            return None
        return "conflict" if verdict.equivalence is Equivalence.DIFFERENT else "duplicate"

    def _remove(self, problem: TrainingProblem, reason: Reason, detail: str, match: Match | None = None) -> None:
        self.removed.append(
            Removed(
                problem_id=problem.problem_id,
                reason=reason,
                detail=detail,
                question=problem.question,
                answer=problem.answer,
                match=match,
            )
        )


def _match(found: TrainingProblem, problem: TrainingProblem) -> Match:
    return Match(
        found_in="pool",
        problem_id=found.problem_id,
        question=found.question,
        answer=found.answer,
        by="text",
        similarity=round(jaccard(tokens(found.question), tokens(problem.question)), 3),
    )
