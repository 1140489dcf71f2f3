"""``tmas gold-check``: tests whether the rule accepts the gold answers of a benchmark when a model gives them.

Each gold answer is put into a box at the end of a reply, once as written and once per rewriting (other notation). The
answer is extracted from the reply and compared with the gold answer. The verdict must be ``equal``. The answer of
another problem is checked in the same way and must be ``different``, unless both problems have the same answer in
different notation. If that verdict is ``undecided``, the rule cannot detect a wrong answer, and a judge is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from tmas.answers.checker import AnswerChecker
from tmas.answers.equivalence import Comparison, Equivalence, normalise, undecided
from tmas.answers.extract import extract_boxed
from tmas.answers.rewrites import rewrites
from tmas.concurrency import gather_all
from tmas.problems.loader import ProblemFields
from tmas.records import Problem
from tmas.records.comparison_files import AnswerCounts, GoldCheck, GoldCheckFailure

AS_WRITTEN = "as written"
OTHER = "another problem's answer"


class GoldCheckSettings(BaseModel):
    """All settings of ``tmas gold-check``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    problems: Path = Field(
        description="Problem file (JSONL, JSON, CSV or parquet). hub: the Hugging Face data set that data=NAME names."
    )
    data: ProblemFields = Field(default=ProblemFields(), description="Names of the columns in the problem file.")
    on_bad_problem: Literal["refuse", "skip"] = Field(
        default="refuse", description="refuse: stop if a row is invalid. skip: leave invalid rows out and report them."
    )
    timeout: float = Field(default=5.0, gt=0, description="Seconds of CPU time per comparison.")
    workers: int = Field(default=2, ge=1, description="Processes that compare answers.")
    output: Path | None = Field(default=None, description="JSON file for all findings. null: none is written.")


class Check(NamedTuple):
    """One answer to compare with a gold answer."""

    name: str
    problem_id: str
    gold: str
    answer: str

    def is_expected(self, verdict: Comparison) -> bool:
        wanted = Equivalence.DIFFERENT if self.name == OTHER else Equivalence.EQUAL
        return verdict.equivalence is wanted


def checks(problems: Sequence[Problem]) -> list[Check]:
    """List the checks for all problems with a gold answer."""
    golden = [(problem.problem_id, problem.answer) for problem in problems if problem.answer is not None]
    others = _others([gold for _, gold in golden])
    return [
        Check(name, problem_id, gold, answer)
        for (problem_id, gold), other in zip(golden, others, strict=True)
        for name, answer in {AS_WRITTEN: gold, **rewrites(gold), **({OTHER: other} if other else {})}.items()
    ]


def _others(golds: Sequence[str]) -> Iterator[str | None]:
    """Yield for each answer the next answer with a different text, ignoring typesetting; None if there is none."""
    for place, gold in enumerate(golds):
        following = [*golds[place + 1 :], *golds[:place]]
        yield next((other for other in following if normalise(other) != normalise(gold)), None)


async def gold_check(problems: Sequence[Problem], checker: AnswerChecker) -> GoldCheck:
    """Run all checks. Returns the verdict counts of each check, and every comparison with an unexpected verdict."""
    found = checks(problems)
    verdicts = await gather_all(_verdict(check, checker) for check in found)
    outcomes = list(zip(found, verdicts, strict=True))
    return GoldCheck(
        problems=len(problems),
        with_answer=sum(problem.answer is not None for problem in problems),
        checks={name: _counts([v for c, v in outcomes if c.name == name]) for name in _names(found)},
        failures=tuple(
            GoldCheckFailure(**check._asdict(), verdict=verdict.equivalence.value, reason=verdict.reason)
            for check, verdict in outcomes
            if not check.is_expected(verdict)
        ),
    )


def is_passed(found: GoldCheck) -> bool:
    """Whether every gold answer, as written, is equal to itself. Rewritten and other answers do not matter."""
    counts = found.checks.get(AS_WRITTEN)
    return counts is None or counts.equal == counts.answers


async def _verdict(check: Check, checker: AnswerChecker) -> Comparison:
    reply = f"It follows that the answer is\n\\[\n\\boxed{{{check.answer}}}\n\\]\nThis completes the solution."
    extracted = extract_boxed(reply)
    return undecided("nothing was extracted") if extracted is None else await checker.compare(check.gold, extracted)


def _names(found: Sequence[Check]) -> list[str]:
    """Return the names of the checks: as written, another problem's answer, then the rest, most answers first."""
    names = [check.name for check in found]
    return sorted(set(names), key=lambda name: (name != AS_WRITTEN, name != OTHER, -names.count(name), name))


def _counts(verdicts: Sequence[Comparison]) -> AnswerCounts:
    kinds = [verdict.equivalence for verdict in verdicts]
    return AnswerCounts(answers=len(kinds), **{kind.value: kinds.count(kind) for kind in Equivalence})
