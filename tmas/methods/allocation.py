"""Decides how many candidates a problem gets in its next iteration, and what share explores, from earlier iterations.

All functions are pure.

:class:`AllocationPolicy` is the interface. Add another policy, such as a bandit, to :data:`POLICIES`, and its name to
``AllocationSettings.policy``. A policy must be deterministic: resume is replay.

The default policy, ``progress``:

- *Sampling in proportion.* The next iteration has one candidate more than the last one had different answers, between
  ``least_candidates`` and N. If candidates repeat each other, fewer are sampled; if all differ, N are.
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
    """What a policy sees of a candidate. Rollouts and the candidates in ``predictions.jsonl`` have it."""

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

    ``iterations_without_progress``: number of latest iterations in a row without progress.
    """

    candidates: int
    epsilon: float
    iterations_without_progress: int = 0


class AllocationPolicy(Protocol):
    """Decides about the next iteration of a problem."""

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
    """Number of latest iterations in a row that made no progress. The first one makes progress. ``by``: the setting."""
    best, known, stalled = -1.0, set[str](), 0
    for candidates in iterations:
        grade = max((c.mean_grade for c in candidates if c.mean_grade is not None), default=-1.0)
        answers = answer_classes(candidates)
        stalled = 0 if grade > best or (by == "grade_or_answer" and answers - known) else stalled + 1
        best, known = max(best, grade), known | answers
    return stalled


def progress(
    iterations: Iterations, n_candidates: int, epsilon: float, settings: AllocationSettings
) -> NextIteration | None:
    """The default policy; see the module."""
    if not iterations:
        return NextIteration(n_candidates, epsilon)
    stalled = iterations_without_progress(iterations, settings.progress)
    if settings.give_up_after is not None and stalled >= settings.give_up_after:
        return None
    steps = max(0, stalled - settings.stalled_after + 1)
    explored = max(epsilon, min(settings.most_epsilon, epsilon + steps * settings.epsilon_step))
    different = len(answer_classes(iterations[-1])) or n_candidates  # proofs have no answers
    candidates = min(n_candidates, max(settings.least_candidates, different + 1))
    return NextIteration(candidates, explored, stalled)


POLICIES: Mapping[str, AllocationPolicy] = {"progress": progress}
"""The policies by name."""
