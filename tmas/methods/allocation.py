"""Decides how many candidates the next iteration of a problem has, and what share of them explores.

The decision depends on the problem's earlier iterations.

All functions are pure.

:class:`AllocationPolicy` is the interface. Add another policy, such as a bandit, to :data:`POLICIES`, and its name to
``AllocationSettings.policy``. A policy must be deterministic: resume is replay.

The default policy, ``progress``:

- *Sampling in proportion.* The next iteration has as many candidates as the last one had different answers, plus one,
  but at least ``least_candidates`` and at most N. So fewer are sampled if they repeat each other, and N if all differ.
- *Exploration in proportion.* An iteration makes progress if its best mean grade is higher than that of all earlier
  iterations (with ``progress="grade_or_answer"`` also if it has a new answer). After ``stalled_after`` iterations in a
  row without progress, epsilon rises by ``epsilon_step`` in each iteration, up to ``most_epsilon``.
- *Giving up last.* After ``give_up_after`` iterations in a row without progress, the problem ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from tmas.answers.normalize import normalise


class GradedCandidate(Protocol):
    """The fields of a candidate that a policy sees. Rollouts and the candidates in ``predictions.jsonl`` have them."""

    @property
    def answer(self) -> str | None: ...

    @property
    def mean_grade(self) -> float | None: ...


Iterations = Sequence[Sequence[GradedCandidate]]


class AllocationSettings(BaseModel):
    """How candidates and exploration of an iteration depend on the progress of its problem."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Literal["progress"] = Field(default="progress", description="The policy; see docs/adaptive.md.")
    least_candidates: int = Field(
        default=4, ge=1, description="Minimum number of candidates in an iteration; n_candidates is the maximum."
    )
    progress: Literal["grade_or_answer", "grade"] = Field(
        default="grade",
        description="What counts as progress. grade: a best mean grade that is higher than in all earlier iterations."
        " grade_or_answer: also an answer that no earlier iteration had.",
    )
    stalled_after: int = Field(
        default=2, ge=1, description="k: a problem has stalled after this many iterations in a row without progress."
    )
    epsilon_step: float = Field(
        default=0.2, ge=0, le=1, description="How much epsilon rises in each iteration of a problem that has stalled."
    )
    most_epsilon: float = Field(default=0.6, ge=0, le=1, description="Highest epsilon of a problem that has stalled.")
    give_up_after: int | None = Field(
        default=None,
        ge=1,
        description="End a problem after this many iterations in a row without progress. null: never.",
    )


class NextIteration(NamedTuple):
    """The next iteration: its number of candidates and its epsilon.

    ``iterations_without_progress``: number of consecutive iterations without progress, up to the latest one.
    """

    candidates: int
    epsilon: float
    iterations_without_progress: int = 0


class AllocationPolicy(Protocol):
    """Plans the next iteration of a problem."""

    def __call__(
        self, iterations: Iterations, n_candidates: int, epsilon: float, settings: AllocationSettings
    ) -> NextIteration | None:
        """The plan of the next iteration; None: the problem is given up.

        ``iterations``: the candidates so far, by iteration. ``n_candidates`` and ``epsilon``: those of the method.
        """
        ...


def answer_classes(candidates: Sequence[GradedCandidate]) -> set[str]:
    """The different answers, up to typesetting."""
    return {normalise(c.answer) for c in candidates if c.answer is not None}


def iterations_without_progress(iterations: Iterations, by: str = "grade") -> int:
    """Number of consecutive iterations without progress, up to the latest one.

    The first iteration always makes progress. ``by``: the setting ``progress``.
    """
    best, known, count = -1.0, set[str](), 0
    for candidates in iterations:
        grade = max((c.mean_grade for c in candidates if c.mean_grade is not None), default=-1.0)
        answers = answer_classes(candidates)
        count = 0 if grade > best or (by == "grade_or_answer" and answers - known) else count + 1
        best, known = max(best, grade), known | answers
    return count


def progress(
    iterations: Iterations, n_candidates: int, epsilon: float, settings: AllocationSettings
) -> NextIteration | None:
    """The default policy; see the module."""
    if not iterations:
        return NextIteration(n_candidates, epsilon)
    without_progress = iterations_without_progress(iterations, settings.progress)
    if settings.give_up_after is not None and without_progress >= settings.give_up_after:
        return None
    steps = max(0, without_progress - settings.stalled_after + 1)
    next_epsilon = max(epsilon, min(settings.most_epsilon, epsilon + steps * settings.epsilon_step))
    different = len(answer_classes(iterations[-1])) or n_candidates  # proofs have no answers
    candidates = min(n_candidates, max(settings.least_candidates, different + 1))
    return NextIteration(candidates, next_epsilon, without_progress)


POLICIES: Mapping[str, AllocationPolicy] = {"progress": progress}
"""The policies by name."""
