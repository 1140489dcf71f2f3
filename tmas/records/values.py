"""The vocabulary: every value that travels between agents, methods, the store and the reports.

Records are frozen and refuse unknown fields, so a run directory written by one version is either
read exactly or refused. A failure is a record with a reason, never an empty string or a zero.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

SCHEMA_VERSION = 1
"""Version of everything below as it lies on disk; raised with every change a reader could trip over."""


class Record(BaseModel):
    """Base of all records: immutable, and strict about its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Record):
    """One task: ``question`` in, optionally the gold ``answer`` (never shown to any agent)."""

    problem_id: str = Field(min_length=1)
    question: str = Field(min_length=1)
    answer: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class FailureReason(StrEnum):
    """Why a call, or what was to be read from it, is missing."""

    TRUNCATED = "truncated"  # the model ran into max_tokens
    UNPARSABLE = "unparsable"  # the reply does not hold what the role must give
    ENDPOINT = "endpoint"  # the server refused, or kept failing while it served others
    TIMEOUT = "timeout"  # the server stopped making progress
    CONTEXT = "context"  # the prompt cannot be made to fit the model's context
    BUDGET = "budget"  # the token budget was used up
    WORKER = "worker"  # the processes that worked on the problem died, one after the other
    JUDGE = "judge"  # a judge gave no verdict


NOT_SAMPLED = frozenset({FailureReason.ENDPOINT, FailureReason.TIMEOUT, FailureReason.BUDGET, FailureReason.WORKER})
"""A candidate that is missing for one of these says nothing about the model: it is counted, and in no rate."""


class CallKey(Record):
    """Names one call of one problem: the same key means the same call, in this run and in any replay of it."""

    problem_id: str
    iteration: int
    role: str
    index: int
    attempt: int = 0

    def __str__(self) -> str:
        return f"{self.problem_id}/it{self.iteration}/{self.role}[{self.index}]#{self.attempt}"


class Failure(Record):
    """Something that did not come about, and why."""

    reason: FailureReason
    message: str
    key: CallKey | None = None


class Message(Record):
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


class Sampling(Record):
    """Decoding settings of one role. ``extra`` goes to the server as it is (``top_k``, ``min_p``, ...)."""

    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: int = Field(default=130_000, ge=1)
    extra: dict[str, JsonValue] = Field(default_factory=dict)


class Request(Record):
    """What is asked of a chat server: ``n`` completions of one prompt, optionally bound to a JSON schema."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    n: int = Field(default=1, ge=1)
    seed: int | None = None
    output_schema: dict[str, Any] | None = None


class Usage(Record):
    """Counts as the server reported them; ``seconds`` is the wall-clock time summed over calls."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in Usage.model_fields})

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Completion(Record):
    """One completion, its thinking split off: only ``text`` may travel on into other prompts.

    ``thinking`` tells how the model's reasoning came: in the server's own field, between tags, or not at all.
    ``finish_reason`` is the server's word (``stop``, ``length``, ...).
    """

    text: str
    reasoning: str | None = None
    thinking: Literal["server", "tags", "none"] = "none"
    finish_reason: str = "stop"


class Reply(Record):
    """A server's answer to a :class:`Request`: its ``n`` completions by index, and what they cost."""

    completions: tuple[Completion, ...]
    usage: Usage
    notes: tuple[str, ...] = ()


class PackingNote(Record):
    """One step taken to fit a prompt into the context: which piece went from how many tokens to how many."""

    piece: str
    tokens_before: int
    tokens_after: int


Mode = Literal["initial", "exploit", "explore"]
"""What a candidate was written from. ``initial``: the problem alone; ``exploit``: earlier work, to be built on;
``explore``: the strategies already tried, to be moved away from."""


def _on_the_scale(grade: float) -> float:
    if grade not in (0.0, 0.5, 1.0):
        raise ValueError("a grade is 0, 0.5 or 1")
    return grade


Grade = Annotated[float, AfterValidator(_on_the_scale)]
"""DeepSeekMath-V2's scale. 1: complete; 0.5: minor errors or omissions; 0: fatal errors."""


class Solution(Record):
    """A candidate: what the solution agent wrote after thinking, and the answer found in it (None: none was found).

    ``own_grade``: the grade that it gave itself, where it was asked for one.
    """

    iteration: int
    index: int
    mode: Mode
    text: str
    answer: str | None
    own_grade: Grade | None = None
    thinking: Literal["server", "tags", "none"] = "none"


class Verification(Record):
    """One independent check of a candidate, and its grade. ``critique`` None: let go, see :meth:`Rollout.folded`."""

    index: int
    grade: Grade
    critique: str | None


class Rollout(Record):
    """A candidate with its M verifications and the summary folded from them; any part may be a failure instead.

    ``parents``: the (iteration, candidate) pairs that it rewrites.
    """

    iteration: int
    index: int
    mode: Mode
    parents: tuple[tuple[int, int], ...] = ()
    solution: Solution | Failure
    verifications: tuple[Verification | Failure, ...] = ()
    summary: str | Failure | None = None

    @property
    def grades(self) -> list[float]:
        return [v.grade for v in self.verifications if isinstance(v, Verification)]

    @property
    def mean_grade(self) -> float | None:
        """Mean over the verifications that succeeded; None where none did."""
        return sum(self.grades) / len(self.grades) if self.grades else None

    @property
    def passes(self) -> bool:
        """Whether every one of its verifications grades it 1; one that failed does not."""
        return bool(self.grades) and self.grades == [1.0] * len(self.verifications)

    @property
    def answer(self) -> str | None:
        return self.solution.answer if isinstance(self.solution, Solution) else None

    def folded(self) -> Rollout:
        """Without the critiques, which are most of a run and which the summary has folded; the trace keeps them."""
        kept = (
            v.model_copy(update={"critique": None}) if isinstance(v, Verification) else v for v in self.verifications
        )
        return self.model_copy(update={"verifications": tuple(kept)})

    @property
    def failures(self) -> list[Failure]:
        return [part for part in (self.solution, *self.verifications, self.summary) if isinstance(part, Failure)]


class Experience(Record):
    """A low-level finding: a validated intermediate conclusion, or an error pattern and how to avoid it.

    ``rollouts`` are the (iteration, candidate) pairs it was drawn from; ``support`` counts how often it was found.
    """

    item_id: str
    kind: Literal["conclusion", "pitfall"]
    statement: str
    created: int
    last_seen: int
    support: int = 1
    rollouts: tuple[tuple[int, int], ...] = ()

    @property
    def text(self) -> str:
        return self.statement


class Guideline(Record):
    """A high-level strategy that was tried. Fields as in :class:`Experience`."""

    item_id: str
    name: str
    description: str
    created: int
    last_seen: int
    support: int = 1
    rollouts: tuple[tuple[int, int], ...] = ()

    @property
    def text(self) -> str:
        return f"{self.name}: {self.description}"


class BankChange(Record):
    """What one reply did to a bank, as item ids. ``merged``: items that took in a near-duplicate of themselves.

    ``unknown``: updates of ids that the bank does not hold; ``unreadable``: entries of the reply that were left out;
    ``repaired``: its JSON had to be repaired.
    """

    added: tuple[str, ...] = ()
    merged: tuple[str, ...] = ()
    confirmed: tuple[str, ...] = ()
    corrected: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    evicted: tuple[str, ...] = ()
    unknown: int = 0
    unreadable: int = 0
    repaired: bool = False


class Selection(Record):
    """The answer chosen so far, and the rule that chose it. ``votes``: candidates in its class of equal answers."""

    iteration: int
    candidate: int
    answer: str | None
    mean_grade: float | None
    votes: int
    rule: str


class Iteration(Record):
    """One round: the N rollouts, both banks after it, and the answer that would be given if the run ended here."""

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


class Trajectory(Record):
    """What a method hands back for one problem: its iterations and why it stopped."""

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


class Result(Record):
    """A finished problem: the trajectory, the selected solution's text, and the cost by role and iteration."""

    problem: Problem
    method: str
    trajectory: Trajectory
    usage: tuple[UsageEntry, ...]
    failures: tuple[Failure, ...] = ()
    packed_prompts: int = 0

    @property
    def answer(self) -> str | None:
        return self.trajectory.selected.answer if self.trajectory.selected else None

    @property
    def solution(self) -> str | None:
        """The selected candidate's text; None where no candidate was selected."""
        chosen = self.trajectory.selected
        if chosen is None:
            return None
        found = self.trajectory.iterations[chosen.iteration].rollouts[chosen.candidate].solution
        return found.text if isinstance(found, Solution) else None
