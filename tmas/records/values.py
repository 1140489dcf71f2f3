"""The records that agents and methods exchange: solutions, verifications, memory items, iterations and results."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tmas.records.calls import Failure, Problem, Record, Usage

Mode = Literal["initial", "exploit", "explore"]
"""What a candidate was written from. ``initial``: the problem alone. ``exploit``: earlier work, to build on.
``explore``: the strategies already tried, to move away from."""


def _on_the_scale(grade: float) -> float:
    if grade not in (0.0, 0.5, 1.0):
        raise ValueError("a grade is 0, 0.5 or 1")
    return grade


Grade = Annotated[float, AfterValidator(_on_the_scale)]
"""The scale of DeepSeekMath-V2. 1: complete. 0.5: minor errors or omissions. 0: fatal errors."""


class Solution(Record):
    """A candidate: the text after the thinking, and the answer found in it (None if none was found).

    ``own_grade``: the grade that the candidate gave itself, if it was asked for one. ``thinking``: where the thinking
    was: in the server's own field, between tags, or nowhere.
    """

    iteration: int
    index: int
    mode: Mode
    text: str
    answer: str | None
    own_grade: Grade | None = None
    thinking: Literal["server", "tags", "none"] = "none"


class Verification(Record):
    """One independent check of a candidate, with its grade.

    ``critique`` is None after :meth:`Rollout.without_critiques`.
    """

    index: int
    grade: Grade
    critique: str | None


class Rollout(Record):
    """A candidate with its M verifications and the summary of them. Each part may be a failure instead.

    ``parents``: the (iteration, candidate) pairs that the candidate rewrites or aggregates. ``cut_summary``: the
    ``Failure`` that reports that the summary reached ``max_tokens`` and was kept up to its last whole sentence.
    ``shown``: ids of the bank items that the candidate's prompt showed.
    """

    iteration: int
    index: int
    mode: Mode
    parents: tuple[tuple[int, int], ...] = ()
    solution: Solution | Failure
    verifications: tuple[Verification | Failure, ...] = ()
    summary: str | Failure | None = None
    cut_summary: Failure | None = None
    shown: tuple[str, ...] = ()

    @property
    def grades(self) -> list[float]:
        return [v.grade for v in self.verifications if isinstance(v, Verification)]

    @property
    def mean_grade(self) -> float | None:
        """Mean over the successful verifications; None if there is none."""
        return sum(self.grades) / len(self.grades) if self.grades else None

    @property
    def passes(self) -> bool:
        """Whether every verification gives grade 1. A failed verification does not."""
        return bool(self.grades) and self.grades == [1.0] * len(self.verifications)

    @property
    def answer(self) -> str | None:
        return self.solution.answer if isinstance(self.solution, Solution) else None

    def without_critiques(self) -> Rollout:
        """Return a copy without critiques, which are most of a run's text.

        The summary replaces them in prompts, and the trace keeps them.
        """
        kept = (
            v.model_copy(update={"critique": None}) if isinstance(v, Verification) else v for v in self.verifications
        )
        return self.model_copy(update={"verifications": tuple(kept)})

    @property
    def failures(self) -> list[Failure]:
        parts = (self.solution, *self.verifications, self.summary, self.cut_summary)
        return [part for part in parts if isinstance(part, Failure)]


def _is_empty(value: object) -> bool:
    """Whether a field is empty. Fields that older versions did not have are only written if they are not empty."""
    return not value


def _is_none(value: object) -> bool:
    return value is None


class Experience(Record):
    """A low-level finding: a validated intermediate conclusion, or an error pattern with the way to avoid it.

    ``rollouts``: the (iteration, candidate) pairs that it was found in. ``support``: how often it was found.
    ``contradictions``: how often it was contradicted. ``echoes``: number of rollouts that stated it after their prompt
    had shown it. ``shortfall``: by how much the grades of its rollouts are below the mean grades of their iterations,
    in total; negative if they are above. ``refuted``: the iteration in which its contradictions used up its support; it
    stays in the bank as a warning.
    """

    item_id: str
    kind: Literal["conclusion", "pitfall"]
    statement: str
    created: int
    last_seen: int
    support: int = 1
    rollouts: tuple[tuple[int, int], ...] = ()
    contradictions: int = Field(default=0, exclude_if=_is_empty)
    echoes: int = Field(default=0, exclude_if=_is_empty)
    shortfall: float = Field(default=0.0, exclude_if=_is_empty)
    refuted: int | None = Field(default=None, exclude_if=_is_none)

    @property
    def text(self) -> str:
        return self.statement

    @property
    def is_pitfall(self) -> bool:
        """Whether the item says what to avoid. A refuted claim does."""
        return self.kind == "pitfall" or self.refuted is not None


class Guideline(Record):
    """A high-level strategy that was tried. The fields are as in :class:`Experience`."""

    item_id: str
    name: str
    description: str
    created: int
    last_seen: int
    support: int = 1
    rollouts: tuple[tuple[int, int], ...] = ()
    contradictions: int = Field(default=0, exclude_if=_is_empty)
    echoes: int = Field(default=0, exclude_if=_is_empty)
    shortfall: float = Field(default=0.0, exclude_if=_is_empty)
    refuted: int | None = Field(default=None, exclude_if=_is_none)

    @property
    def text(self) -> str:
        return f"{self.name}: {self.description}"


class BankChange(Record):
    """How one reply changed a bank, as item ids.

    ``merged``: items that the reply stated again. ``echoed``: items that were confirmed without gaining support,
    because the named rollouts had been shown the item or were already counted, or because no rollout was named.
    ``contradicted``: items that the reply dropped or corrected, but that stayed because they still had enough support.
    ``dropped``: items that were refuted or removed. ``refused``: refuted items that the reply stated again.
    ``shortened``: items whose text was too long.

    ``over_limit``: number of new items beyond the limit. ``copied``: number of new items that repeat the example of
    the prompt. ``unknown``: number of updates with an id that is not in the bank. ``unknown_rollouts``: number of named
    rollouts that do not exist. ``unreadable``: number of invalid entries that were left out. ``repaired``: whether the
    JSON had to be repaired.
    """

    added: tuple[str, ...] = ()
    merged: tuple[str, ...] = ()
    confirmed: tuple[str, ...] = ()
    corrected: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    evicted: tuple[str, ...] = ()
    echoed: tuple[str, ...] = Field(default=(), exclude_if=_is_empty)
    contradicted: tuple[str, ...] = Field(default=(), exclude_if=_is_empty)
    refused: tuple[str, ...] = Field(default=(), exclude_if=_is_empty)
    shortened: tuple[str, ...] = Field(default=(), exclude_if=_is_empty)
    over_limit: int = Field(default=0, exclude_if=_is_empty)
    copied: int = Field(default=0, exclude_if=_is_empty)
    unknown: int = 0
    unknown_rollouts: int = Field(default=0, exclude_if=_is_empty)
    unreadable: int = 0
    repaired: bool = False


class Selection(Record):
    """The selected answer so far, and the rule that selected it. ``votes``: number of equal answers."""

    iteration: int
    candidate: int
    answer: str | None
    mean_grade: float | None
    votes: int
    rule: str


class Iteration(Record):
    """One iteration: the N rollouts, both banks after it, and the answer if the method stopped after it."""

    index: int
    rollouts: tuple[Rollout, ...]
    experiences: tuple[Experience, ...] = ()
    guidelines: tuple[Guideline, ...] = ()
    experience_change: BankChange | None = None
    guideline_change: BankChange | None = None
    failures: tuple[Failure, ...] = ()
    selected: Selection | None = None

    @property
    def all_failures(self) -> list[Failure]:
        return [f for rollout in self.rollouts for f in rollout.failures] + list(self.failures)


StopReason = Literal["max_iterations", "early_stop", "budget", "worker"]
"""Why a method stopped. ``worker``: the processes that worked on the problem died, one after the other."""


class Trajectory(Record):
    """The result of a method for one problem: its iterations and the reason why it stopped."""

    iterations: tuple[Iteration, ...]
    stop: StopReason

    @property
    def selected(self) -> Selection | None:
        return self.iterations[-1].selected if self.iterations else None


class UsageEntry(Record):
    """Usage of one role in one iteration."""

    role: str
    iteration: int
    usage: Usage


class ReplyCounts(Record):
    """Number of replies of one role, and how many of them could be read. A reply is one completion of a call.

    ``replies``: completions that arrived. ``unreadable``: those that could not be parsed, including those that
    ``max_tokens`` cut off too early to be parsed. ``truncated``: those that reached ``max_tokens``. ``thinking_tags``
    and ``thinking_field``: those with thinking between tags, and in the server's own field.
    """

    role: str
    replies: int = 0
    unreadable: int = 0
    truncated: int = 0
    thinking_tags: int = 0
    thinking_field: int = 0

    def __add__(self, other: ReplyCounts) -> ReplyCounts:
        counts = ReplyCounts.model_fields.keys() - {"role"}
        return ReplyCounts(role=self.role, **{name: getattr(self, name) + getattr(other, name) for name in counts})

    @property
    def readable(self) -> int:
        return self.replies - self.unreadable


class Result(Record):
    """A finished problem: the trajectory, all failures, the usage by role and iteration, and the replies by role.

    ``packed_prompts``: number of prompts that had to be shortened to fit.
    """

    problem: Problem
    method: str
    trajectory: Trajectory
    usage: tuple[UsageEntry, ...]
    failures: tuple[Failure, ...] = ()
    packed_prompts: int = 0
    replies: tuple[ReplyCounts, ...] = ()

    @property
    def answer(self) -> str | None:
        return self.trajectory.selected.answer if self.trajectory.selected else None

    @property
    def solution(self) -> str | None:
        """The text of the selected candidate; None if no candidate was selected."""
        chosen = self.trajectory.selected
        if chosen is None:
            return None
        found = self.trajectory.iterations[chosen.iteration].rollouts[chosen.candidate].solution
        return found.text if isinstance(found, Solution) else None
