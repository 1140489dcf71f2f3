"""Records of a live run: its status, what ``tmas control`` changes, and the lines of ``control.jsonl``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from tmas.records.calls import SCHEMA_VERSION, Record
from tmas.records.reading import Version
from tmas.records.values import BankChange

Positive = Annotated[int, Field(ge=1, lt=2**63)]
"""A positive count below 2**63.

orjson cannot write integers of more than 64 bits, so ``tmas status`` would fail for as long as a larger limit is in
force.
"""


class LimitChanges(Record):
    """Changes to a live run. Only the fields that were set change something; the defaults have no meaning.

    ``tokens_per_run`` and ``money_per_run``: None removes the limit.
    """

    concurrency: Positive = 1
    active_problems: Positive = 1
    tokens_per_run: Positive | None = None
    money_per_run: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    pause: bool = False


class ControlLine(Record):
    """A line of ``control.jsonl``: a changed limit.

    Either ``tmas control`` changed it, or the command of a resumed run has another value than ``tmas control`` set
    last. ``time``: Unix time in seconds. ``setting``: a field of :class:`LimitChanges`.
    """

    v: Version = SCHEMA_VERSION
    time: float
    setting: str
    before: JsonValue
    after: JsonValue


class RecentBankChange(Record):
    """A change of a memory bank. ``size``: items in the bank after the change.

    ``time``: Unix time in seconds; None if the change was read from the files of the run.
    """

    time: float | None
    problem_id: str
    iteration: int
    bank: Literal["experience", "guideline"]
    size: int
    change: BankChange

    @property
    def summary(self) -> str:
        """The change in words, such as: 2 added, 1 confirmed; 12 items."""
        names = ("added", "merged", "confirmed", "corrected", "contradicted", "dropped", "refused", "evicted")
        counts = {name: len(getattr(self.change, name)) for name in names}
        parts = [f"{count} {name}" for name, count in counts.items() if count]
        return f"{', '.join(parts) or 'no change'}; {self.size} item{'s' * (self.size != 1)}"


class RoleStatus(Record):
    """Counters of one role: calls, completion tokens, and tokens per second of the last minute.

    ``failed`` and ``tokens_per_second`` are None for a run that is not live.
    """

    in_flight: int = 0
    calls: int = 0
    failed: int | None = None
    tokens: int = 0
    tokens_per_second: float | None = None


class RunStatus(Record):
    """The status of a run, as ``tmas status`` shows it.

    ``state``: ``unfinished`` is a run without a process. ``waits_for``: what a starting run waits for. ``process``: the
    last process that worked on the run, and its host. ``seconds``: time since that process started. ``by_iteration``:
    number of problems in each iteration. For a live run it counts the active problems by their current iteration,
    otherwise the finished problems by their last iteration.

    If the run is live, counts are those since its process started. Otherwise they cover its finished problems.
    ``calls``: calls that have ended, without replayed ones. ``replayed``: calls that were answered from the trace.
    ``failed``: calls that failed. ``replayed`` and ``failed`` are None for a run that is not live. ``failures``: number
    of failures by reason, as in ``failures.jsonl``, over all starts of the run. ``tokens_spent``: prompt and completion
    tokens that count against ``tokens_per_run``. ``money_spent``: cost of all starts in ``currency``, as it counts
    against ``money_per_run``; for a run that is not live, the cost of its finished problems. None if the price of some
    model is not known.

    ``seconds_left``, ``completion_tokens_left`` and ``money_left`` are estimates of what the rest of the work takes,
    from the work done so far, as if there were no budgets; None if there is no basis for one. ``changes``: the lines of
    ``control.jsonl``.
    """

    v: Version = SCHEMA_VERSION
    state: Literal["starting", "running", "paused", "finished", "unfinished"]
    waits_for: str | None = None
    process: str | None = None
    seconds: float | None = None
    problems: int
    finished: int
    by_iteration: dict[int, int] = Field(default_factory=dict)
    in_flight: int = 0
    calls: int = 0
    replayed: int | None = None
    failed: int | None = None
    roles: dict[str, RoleStatus] = Field(default_factory=dict)
    failures: dict[str, int] = Field(default_factory=dict)
    concurrency: int | None = None
    active_problems: int | None = None
    tokens_per_run: int | None = None
    tokens_spent: int | None = None
    currency: str | None = None
    money_per_run: float | None = None
    money_spent: float | None = None
    seconds_left: float | None = None
    completion_tokens_left: int | None = None
    money_left: float | None = None
    bank_changes: tuple[RecentBankChange, ...] = ()
    changes: tuple[ControlLine, ...] = ()

    @property
    def is_live(self) -> bool:
        return self.state in ("starting", "running", "paused")

    @property
    def exceeds_budget(self) -> bool:
        """Whether the rest of the work is expected to cost more than what is left of the budget in money."""
        known = self.money_per_run is not None and self.money_spent is not None and self.money_left is not None
        return known and self.money_spent + self.money_left > self.money_per_run  # type: ignore[operator]
