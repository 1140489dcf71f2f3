"""Selection of the final answer: by best mean grade or majority vote (the other breaks ties), or at random.

The paper reports Pass@1 over all candidates and does not select an answer; ``method.selection`` is our choice.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tmas.agents.base import Session
from tmas.answers.checker import AnswerChecker, group_equivalent
from tmas.records import NOT_SAMPLED, Record, Rollout, Selection, Solution


class SelectionSettings(BaseModel):
    """How the final answer is selected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["grade", "vote", "random"] = Field(
        default="grade",
        description="grade: best mean grade, ties by votes; vote: most votes, ties by grade; random: drawn uniformly",
    )
    scope: Literal["all", "last"] = Field(
        default="all",
        description="all: candidates of all iterations so far; last: those of the last iteration that sampled any",
    )


class Selected(Record):
    """The outcome of a selection. ``selection``: None if there is no candidate."""

    selection: Selection | None


def fingerprint(rounds: Sequence[Sequence[Rollout]]) -> str:
    """Hash of the candidates and grades that a selection depends on."""
    facts = [
        (r.iteration, r.index, isinstance(r.solution, Solution), r.answer, r.mean_grade)
        for rollouts in rounds
        for r in rollouts
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


async def select_and_record(
    session: Session, rounds: Sequence[Sequence[Rollout]], settings: SelectionSettings, checker: AnswerChecker
) -> Selection | None:
    """Call :func:`select` and record its outcome: comparing answers may time out, and a replay must not differ."""
    name = f"selection/{len(rounds) - 1}/{fingerprint(rounds)}"
    draw = session.draw(f"selection/{len(rounds) - 1}")
    return (await session.decide(name, lambda: select(rounds, settings, checker, draw), Selected)).selection


async def select(
    rounds: Sequence[Sequence[Rollout]], settings: SelectionSettings, checker: AnswerChecker, draw: float = 0.0
) -> Selected:
    """Select a candidate after the last of ``rounds`` (rollouts by iteration).

    Candidates with an answer come before those without one. Among candidates with equal grade
    and votes, the earliest is selected. ``draw``: the number in [0, 1) that decides the rule ``random``.
    """
    scope = rounds if settings.scope == "all" else _last(rounds)
    solved = [r for rollouts in scope for r in rollouts if isinstance(r.solution, Solution)]
    candidates = [r for r in solved if r.answer is not None] or solved
    if not candidates:
        return Selected(selection=None)
    votes = await _votes(candidates, checker)
    if settings.rule == "random":
        best = int(draw * len(candidates))
    else:
        sort_key = _by_grade if settings.rule == "grade" else _by_vote
        best = max(range(len(candidates)), key=lambda i: (*sort_key(candidates[i], votes[i]), -i))
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
    """The last round in which a candidate was sampled, as a list; a budget may end a later round before any sample."""
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


def _grade(rollout: Rollout) -> float:
    return -1.0 if rollout.mean_grade is None else rollout.mean_grade


def _by_grade(rollout: Rollout, votes: int) -> tuple[float, float]:
    return _grade(rollout), votes


def _by_vote(rollout: Rollout, votes: int) -> tuple[float, float]:
    return votes, _grade(rollout)
