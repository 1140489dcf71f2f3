"""Records of a run directory: ``manifest.json``, ``predictions.jsonl``, ``failures.jsonl`` and ``metrics.json``.

docs/run-directory.md shows an example of each.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from pydantic import Field, JsonValue

from tmas.records.calls import NOT_SAMPLED, SCHEMA_VERSION, FailureReason, Record, Usage
from tmas.records.prices import Cost, Price
from tmas.records.reading import Version
from tmas.records.values import BankChange, Experience, Guideline, Mode, ReplyCounts, Selection, StopReason, UsageEntry

Correctness = Literal["equal", "different", "undecided"]
"""Verdict of the rule, which compares an answer with the gold answer."""
REMEDY = "Resume the run with its own command. It sets the damaged line aside and writes it again from the trace."


class Manifest(Record):
    """``manifest.json``: everything that identifies a run.

    ``settings`` is flat, with dotted keys. ``told``: values that servers reported for settings that are null.
    ``chat_template``: the run counts the tokens of its models' chat templates; runs of older versions do not.
    ``prices``: the price of each role's model, where it was known when the run was last started.
    """

    schema_version: Version = SCHEMA_VERSION
    settings: dict[str, JsonValue]
    prompts: dict[str, str]
    packages: dict[str, str]
    python: str | None = None
    chat_template: Literal["counted"] | None = None
    problems: dict[str, str]
    told: dict[str, JsonValue] | None = None
    prices: dict[str, Price] | None = None

    @property
    def seed(self) -> int:
        return self._setting("seed")

    @property
    def method(self) -> str:
        return self._setting("method.name")

    @property
    def models(self) -> dict[str, str]:
        """The model of each role."""
        named = {key: value for key, value in self.settings.items() if re.fullmatch(r"model\.[^.]+\.name", key)}
        return {key.split(".")[1]: str(value) for key, value in named.items()}

    def _setting(self, key: str) -> Any:
        return self.settings[key]


class PredictedCandidate(Record):
    """A candidate of a finished problem. ``failure``: why it is missing.

    ``shown``: ids of the bank items that its prompt showed. Runs of older versions did not record them.
    """

    candidate: int
    mode: Mode
    parents: tuple[tuple[int, int], ...] = ()
    shown: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)
    answer: str | None
    correct: Correctness | None
    grades: tuple[float, ...]
    mean_grade: float | None
    own_grade: float | None = None
    failure: FailureReason | None

    @property
    def is_sampled(self) -> bool:
        """Whether the candidate counts in rates. Candidates that failed for a reason in :data:`NOT_SAMPLED` do not."""
        return self.failure not in NOT_SAMPLED


class PredictedIteration(Record):
    """One iteration of a finished problem: its candidates, both banks after it, and the answer selected so far."""

    iteration: int
    candidates: tuple[PredictedCandidate, ...]
    experience_bank: tuple[Experience, ...]
    experience_change: BankChange | None
    guideline_change: BankChange | None
    guideline_bank: tuple[Guideline, ...]
    selected: Selection | None
    selected_correct: Correctness | None

    @property
    def samples(self) -> list[PredictedCandidate]:
        """The candidates that count in rates. See :attr:`PredictedCandidate.is_sampled`."""
        return [candidate for candidate in self.candidates if candidate.is_sampled]


class Terms(Record):
    """Settings that a problem was finished with. A resumed run keeps the problem if they still hold."""

    method: dict[str, JsonValue]
    limits: dict[str, int | float | None] = Field(default_factory=dict)

    @property
    def tokens_per_problem(self) -> int | None:
        limit = self.limits.get("tokens_per_problem")
        return None if limit is None else int(limit)

    @property
    def money_per_problem(self) -> float | None:
        return self.limits.get("money_per_problem")


class Prediction(Record):
    """A line of ``predictions.jsonl``: one finished problem. ``replies``: by role; empty in runs of older versions."""

    remedy: ClassVar[str] = REMEDY

    v: Version = SCHEMA_VERSION
    problem_id: str
    question: str | None = None
    gold: str | None
    method: str
    answer: str | None
    correct: Correctness | None
    solution: str | None
    selected: Selection | None
    stop: StopReason
    iterations: tuple[PredictedIteration, ...]
    usage: tuple[UsageEntry, ...]
    failures: int
    packed_prompts: int
    replies: tuple[ReplyCounts, ...] = Field(default=(), exclude_if=lambda replies: not replies)
    terms: Terms

    @property
    def rounds(self) -> tuple[PredictedIteration, ...]:
        """The iterations, without those at the end that have no sampled candidate."""
        found = self.iterations
        while found and not found[-1].samples:
            found = found[:-1]
        return found

    @property
    def total_usage(self) -> Usage:
        """The usage of the problem, summed over roles and iterations."""
        return sum((entry.usage for entry in self.usage), Usage())


class DamagedLine(Record):
    """A line of ``FILE.damaged``: a line of ``FILE`` that was set aside when the run was resumed.

    ``line``: its number, counted from 1, at that time. ``content``: its text; bytes that are not UTF-8 are escaped.
    """

    v: Version = SCHEMA_VERSION
    file: str
    line: int
    reason: str
    content: str


class FailedCall(Record):
    """The key of the call that a failure comes from, without the problem."""

    iteration: int
    role: str
    index: int
    offset: int = Field(default=0, exclude_if=lambda offset: offset == 0)
    attempt: int = 0


class FailureLine(Record):
    """A line of ``failures.jsonl``."""

    remedy: ClassVar[str] = REMEDY

    v: Version = SCHEMA_VERSION
    problem_id: str
    reason: FailureReason
    call: FailedCall | None
    message: str


class IterationMetrics(Record):
    """Totals of one iteration over all problems. Rates are None if they cannot be computed.

    ``undecided``: number of candidates whose answer is undecided. They count as wrong in ``pass_at_1`` and as right in
    ``pass_at_1_upper``.
    """

    iteration: int
    problems: int
    candidates: int
    failed: int
    explore: int
    pass_at_1: float | None
    pass_at_1_upper: float | None = None
    undecided: int
    selected_accuracy: float | None
    mean_grade: float | None
    experience_items: float | None
    guideline_items: float | None
    usage: Usage


class Metrics(Record):
    """``metrics.json``: the totals of a run. ``cost``: None if no price is known."""

    v: Version = SCHEMA_VERSION
    problems: int
    stops: dict[str, int]
    answered: int
    selected_accuracy: float | None
    selected_undecided: int
    iterations: tuple[IterationMetrics, ...]
    usage: dict[str, Usage] = Field(description="by role")
    cost: Cost | None = None
    failures: dict[str, int] = Field(description="by reason")
    packed_prompts: int
    replies: dict[str, ReplyCounts] = Field(default={}, description="by role")
