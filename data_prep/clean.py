"""Cleans the pool of collected problems. Every removed problem is recorded with the reason.

It removes copies of benchmark problems, problems whose answer the checker cannot read, and duplicates. Duplicates
are found with :func:`tmas.memory.similarity.near_duplicate`. Two problems with different numbers or symbols are never
duplicates. The test does not notice every changed word, such as "inscribed" for "circumscribed". Therefore the answers
decide, too:

- Equal answers: the problems are duplicates, and the first one is kept.
- Different answers, different words: the problems are different, and both are kept.
- Different answers, the same words: the problems are in conflict. One answer is wrong, so none of them is kept.
- Answers that cannot be compared: with the same words the problems are duplicates, otherwise they are different.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from pydantic import Field

from tmas.answers.checker import AnswerChecker
from tmas.answers.equivalence import Equivalence
from tmas.data_prep.decontaminate import Benchmarks, DecontaminationSettings, Match
from tmas.data_prep.near import NearIndex
from tmas.data_prep.reports import CleanReport
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
    """A removed problem with the reason.

    ``match``: the benchmark problem, the duplicate or the problem in conflict; None for ``unreadable``.
    """

    problem_id: str
    reason: Reason
    detail: str
    question: str
    answer: str | None
    match: Match | None = None


async def clean(
    pool: Iterable[TrainingProblem], benchmarks: Benchmarks, settings: CleanSettings, output_dir: Path
) -> CleanReport:
    """Clean the pool. Writes ``problems.jsonl`` and ``removed.jsonl`` to ``output_dir``, and returns the counts."""
    async with AnswerChecker(workers=settings.workers) as checker:
        cleaner = _Cleaner(benchmarks, settings, checker)
        for chunk in _chunks(pool):
            await cleaner.add(chunk)
    kept = write_lines(output_dir / "problems.jsonl", cleaner.kept.values())
    write_lines(output_dir / "removed.jsonl", cleaner.removed)
    return CleanReport(
        benchmarks=benchmarks.sizes,
        benchmark_rows_skipped=benchmarks.skipped,
        kept=kept,
        removed=dict(Counter(removed.reason for removed in cleaner.removed)),
        judged=sum(problem.data_source == "math_grm" for problem in cleaner.kept.values()),
    )


def _chunks(pool: Iterable[TrainingProblem]) -> Iterator[Sequence[TrainingProblem]]:
    remaining = iter(pool)
    while chunk := tuple(islice(remaining, _CHUNK)):
        yield chunk


class _Cleaner:
    """Decides for each problem of a pool whether it is kept.

    ``kept``: the problems that are kept so far, by their index in ``_seen``, in the order of the pool. ``removed``:
    the removed problems.
    """

    def __init__(self, benchmarks: Benchmarks, settings: CleanSettings, checker: AnswerChecker) -> None:
        self.benchmarks, self.settings, self.checker = benchmarks, settings, checker
        self.kept: dict[int, TrainingProblem] = {}
        self.removed: list[Removed] = []
        self._seen: list[TrainingProblem] = []
        self._duplicate_of: dict[int, int] = {}  # removed duplicates and what they repeat, as indices in _seen
        self._index = NearIndex(settings.duplicate)

    async def add(self, chunk: Sequence[TrainingProblem]) -> None:
        """Add problems. Their answers are checked concurrently, then duplicates are searched one by one, in order."""
        readable = await asyncio.gather(*map(self._with_readable_answer, chunk))
        for problem, outcome in zip(chunk, readable, strict=True):
            if match := self.benchmarks.match(problem.question):
                self._remove(
                    problem,
                    "benchmark",
                    f"copy of {match.problem_id} in {match.found_in} ({match.by}: {match.similarity:.0%})",
                    match,
                )
            elif isinstance(outcome, str):
                self._remove(problem, "unreadable", outcome)
            else:
                await self._keep_unless_duplicate(outcome)

    async def _with_readable_answer(self, problem: TrainingProblem) -> TrainingProblem | str:
        """Return the problem with its ``data_source``, or the reason why its answer cannot be read.

        A problem whose accepted answers differ has no single gold answer. A judge cannot help: if the gold answer
        listed all accepted answers, the judge would reject a response that gives only one of them.
        """
        first_answer, *other_answers = problem.metadata.get("accepted", [problem.answer])
        for other in other_answers:
            if not (await self.checker.compare(first_answer, other)).equal:
                return f"accepted answers differ: {first_answer!r} and {other!r}"
        verdict = await self.checker.compare(first_answer, "0")  # to find out whether the answer can be read
        if verdict.equivalence is not Equivalence.UNDECIDED:
            return problem.model_copy(update={"metadata": {}})  # the accepted answers are needed only here
        if self.settings.on_unreadable == "remove":
            return verdict.reason or "undecided"
        return problem.model_copy(update={"data_source": "math_grm", "metadata": {}})

    async def _keep_unless_duplicate(self, problem: TrainingProblem) -> None:
        """Compare the problem with all similar earlier ones. A conflict counts more than a duplicate."""
        features, number = tokens(problem.question), len(self._seen)
        found = {n: await self._relation(self._seen[n], problem) for n in self._index.candidates(features)}
        conflicts = [n for n, relation in found.items() if relation == "conflict"]
        duplicates = [n for n, relation in found.items() if relation == "duplicate" and n not in self._duplicate_of]
        self._seen.append(problem)
        self._index.add(number, features)
        if conflicts:
            for earlier_number in conflicts:
                if earlier := self.kept.pop(self._duplicate_of.get(earlier_number, earlier_number), None):
                    detail = f"a different answer than {problem.problem_id}"
                    self._remove(earlier, "conflict", detail, _match(problem, earlier))
            earlier = self._seen[conflicts[0]]
            detail = f"a different answer than {earlier.problem_id}"
            self._remove(problem, "conflict", detail, _match(earlier, problem))
        elif duplicates:
            self._duplicate_of[number] = duplicates[0]
            earlier = self._seen[duplicates[0]]
            self._remove(problem, "duplicate", f"of {earlier.problem_id}", _match(earlier, problem))
        else:
            self.kept[number] = problem

    async def _relation(
        self, earlier: TrainingProblem, problem: TrainingProblem
    ) -> Literal["duplicate", "conflict"] | None:
        """How two problems are related, by the rules in the module's docstring. None: they are different."""
        if not near_duplicate(earlier.question, problem.question, self.settings.duplicate):
            return None
        verdict = await self.checker.compare(earlier.answer, problem.answer)
        if not verdict.equal and lex(earlier.question.lower()) != lex(problem.question.lower()):
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
