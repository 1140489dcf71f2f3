"""Which candidate's answer is given: the best mean grade, or the majority; the other one breaks ties.

The paper reports Pass@1 over all candidates and leaves the choice open; ``method.selection`` decides here.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tmas.agents.base import Session
from tmas.answers.checker import AnswerChecker, group_equivalent
from tmas.records import NOT_SAMPLED, Record, Rollout, Selection, Solution


class SelectionSettings(BaseModel):
    """How the answer of a run is chosen from its candidates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["grade", "vote"] = Field(
        default="grade",
        description="grade: the best mean grade gives the answer, ties go to more votes. vote: the most votes give the"
        " answer, ties go to the better grade.",
    )
    scope: Literal["all", "last"] = Field(
        default="all",
        description="all: candidates of all iterations. last: of the last iteration that sampled any candidate.",
    )


class Selected(Record):
    """The outcome of a selection: None where no candidate stands."""

    selection: Selection | None


def fingerprint(rounds: Sequence[Sequence[Rollout]]) -> str:
    """Hash of what a selection depends on: the same candidates and grades give the same one."""
    facts = [
        (r.iteration, r.index, isinstance(r.solution, Solution), r.answer, r.mean_grade)
        for rollouts in rounds
        for r in rollouts
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


async def selected(
    session: Session, rounds: Sequence[Sequence[Rollout]], settings: SelectionSettings, checker: AnswerChecker
) -> Selection | None:
    """:func:`select`, noted in the session: a comparison of answers may time out, and a replay has to repeat it."""
    name = f"selection/{len(rounds) - 1}/{fingerprint(rounds)}"
    return (await session.decide(name, lambda: select(rounds, settings, checker), Selected)).selection


async def select(rounds: Sequence[Sequence[Rollout]], settings: SelectionSettings, checker: AnswerChecker) -> Selected:
    """The selected candidate after the last of ``rounds`` (rollouts by iteration); None where no candidate stands.

    Candidates with an answer go before those without. What grade and votes leave tied goes to the earliest.
    """
    scope = rounds if settings.scope == "all" else _last(rounds)
    solved = [r for rollouts in scope for r in rollouts if isinstance(r.solution, Solution)]
    candidates = [r for r in solved if r.answer is not None] or solved
    if not candidates:
        return Selected(selection=None)
    votes = await _votes(candidates, checker)
    order = _by_grade if settings.rule == "grade" else _by_vote
    best = max(range(len(candidates)), key=lambda i: (*order(candidates[i], votes[i]), -i))
    chosen = candidates[best]
    selection = Selection(
        iteration=chosen.iteration,
        candidate=chosen.index,
        answer=chosen.answer,
        mean_grade=chosen.mean_grade,
        votes=votes[best],
        rule=settings.rule,
    )
    return Selected(selection=selection)


def _last(rounds: Sequence[Sequence[Rollout]]) -> Sequence[Sequence[Rollout]]:
    """The last round that had the chance of a candidate: a budget may have ended before it had."""
    return [rollouts for rollouts in rounds if any(_was_sampled(rollout) for rollout in rollouts)][-1:]


def _was_sampled(rollout: Rollout) -> bool:
    return isinstance(rollout.solution, Solution) or rollout.solution.reason not in NOT_SAMPLED


async def _votes(candidates: Sequence[Rollout], checker: AnswerChecker) -> list[int]:
    answers = [r.answer for r in candidates if r.answer is not None]
    if len(answers) < len(candidates):
        return [1] * len(candidates)
    classes = await group_equivalent(answers, checker)
    sizes = Counter(classes)
    return [sizes[c] for c in classes]


Order = Callable[[Rollout, int], tuple[float, float]]


def _grade(rollout: Rollout) -> float:
    return -1.0 if rollout.mean_grade is None else rollout.mean_grade


def _by_grade(rollout: Rollout, votes: int) -> tuple[float, float]:
    return _grade(rollout), votes


def _by_vote(rollout: Rollout, votes: int) -> tuple[float, float]:
    return votes, _grade(rollout)
