"""Control of a live run: reports its status and changes its limits.

Requests arrive through :mod:`tmas.run.live_socket`. A change holds until the run's process ends, and is recorded in
``control.jsonl``. A resumed run has the limits of its command again. A pause only delays the run: no new call starts,
and calls in flight finish and are recorded.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import ValidationError

from tmas.concurrency import PriorityLimiter
from tmas.errors import UserError
from tmas.files import append_lines, complete_lines, cut_torn_line
from tmas.records import Result
from tmas.records.checksums import checked_line
from tmas.records.live import ControlLine, LimitChanges, RoleStatus, RunStatus
from tmas.records.reading import defect, read_records
from tmas.records.run_files import FailureLine
from tmas.redaction import clean_logger
from tmas.run.activity import Activity
from tmas.run.directory import last_lock_holder
from tmas.run.live_socket import answer_requests
from tmas.run.runtime import Runtime
from tmas.run.solver import ProblemSolver
from tmas.settings import Limits, RunSettings

log = clean_logger(__name__)

CONTROL_FILE = "control.jsonl"
"""File in the run directory with the changes of live limits."""
SAMPLE_INTERVAL = 2.0
"""Seconds between two looks at the token counters."""
RATE_WINDOW = 60.0
"""Seconds over which tokens/s are averaged."""


class BudgetUse(NamedTuple):
    """Tokens that count against ``tokens_per_run``, and whether a budget of the run is used up."""

    spent: int = 0
    exhausted: bool = False


class _Remaining(NamedTuple):
    """Estimates of what the rest of a run takes."""

    seconds: float
    completion_tokens: int
    money: float


class _EstimateStart(NamedTuple):
    """The state at the first new call. The rest of the run is estimated from the work since then."""

    time: float
    fraction: float
    tokens: int
    cost: float


class CallMaker(Protocol):
    """The part of a run that makes the calls: this process, or the Ray workers. ``tmas control`` changes its limits."""

    def resize(self, slots: int) -> None:
        """Allow this number of completions in flight from now on."""

    async def pause(self, paused: bool) -> None:
        """Start no new call while paused. Returns when this is in force."""

    async def limit(self, limits: Limits) -> None:
        """Change the budgets of the run. Returns when the new ones are in force."""

    @property
    def budget_use(self) -> BudgetUse: ...


@dataclass(frozen=True)
class LocalCallMaker:
    """Makes the calls in this process. ``solver``: None for a server, whose requests have no common budget."""

    runtime: Runtime
    solver: ProblemSolver | None = None

    def resize(self, slots: int) -> None:
        self.runtime.resize(slots)

    async def pause(self, paused: bool) -> None:
        self.runtime.limiter.pause(paused)

    async def limit(self, limits: Limits) -> None:
        assert self.solver
        await self.solver.limit(limits)

    @property
    def budget_use(self) -> BudgetUse:
        budget = self.solver and self.solver.state.budget
        return BudgetUse(budget.spent, budget.exhausted) if budget else BudgetUse()


class RunControl:
    """Answers ``tmas status`` and ``tmas control`` for a run, or for a server.

    ``settings``: the settings in force; :meth:`change` replaces them. ``problems``: number of problems, of which
    ``finished`` are finished. ``changeable``: the fields of :class:`LimitChanges` that can be changed. ``currency``:
    currency of the prices; None if some price is not known. ``failures``: those of the finished problems.
    """

    def __init__(
        self,
        directory: Path,
        settings: RunSettings,
        activity: Activity,
        problems: int = 0,
        finished: int = 0,
        changeable: tuple[str, ...] = tuple(LimitChanges.model_fields),
        currency: str | None = None,
        failures: Iterable[FailureLine] = (),
    ) -> None:
        self.directory, self.settings, self.activity = directory, settings, activity
        self.problems, self.finished = problems, finished
        self.problem_limiter = PriorityLimiter(settings.active_problems)
        self._max_active_problems = settings.active_problems
        self._lock = asyncio.Lock()
        self._changeable = changeable
        self._maker: CallMaker | None = None
        self._currency, self._earlier_cost = currency, 0.0
        self._failures_of_finished = Counter(line.reason.value for line in failures)
        self._started = time.monotonic()
        self._samples: deque[tuple[float, Counter[str]]] = deque([(self._started, Counter())])
        self._estimate_start: _EstimateStart | None = None
        file = directory / CONTROL_FILE
        if file.exists():  # a full disk or a kill may have left half a line, and the next one must not be joined to it
            cut_torn_line(file, max((line.end for line in complete_lines(file)), default=0))
        self._changes = list(read_records(file, ControlLine))

    @property
    def terms(self) -> dict[str, Any]:
        """The method and limits in force, which are recorded with each problem when it finishes."""
        return self.settings.terms()

    def use(self, maker: CallMaker, earlier_cost: float = 0.0) -> None:
        """Let ``maker`` make the calls from now on. Until then the run is starting, and cannot be changed.

        ``earlier_cost``: the cost of the run's earlier starts, if the currency is known.
        """
        self._maker, self._earlier_cost = maker, earlier_cost

    def mark_finished(self, problem_id: str, result: Result | None = None) -> None:
        """Count a finished problem. ``result``: None if a server's request ended without a result."""
        self.finished += 1
        self.activity.iterations.pop(problem_id, None)
        self.activity.failures.pop(problem_id, None)
        if result:
            self._failures_of_finished.update(failure.reason.value for failure in result.failures)

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[None]:
        """Answer requests at the socket of the directory while the block runs."""
        self._record_resumed_limits()
        sampling = asyncio.create_task(self._sample())
        try:
            async with answer_requests(self.directory, self._answer):
                yield
        finally:
            sampling.cancel()
            with suppress(asyncio.CancelledError):
                await sampling

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make the changes in ``request``, if there are any, and return the status after them."""
        try:
            changes = LimitChanges.model_validate(request.get("changes", {}))
            if changes.model_fields_set:
                async with self._lock:
                    await self.change(changes)
        except ValidationError as error:
            raise UserError(defect(error)) from None
        return {"status": self.status().model_dump(mode="json")}

    # --- changes

    async def change(self, changes: LimitChanges) -> None:
        """Make all changes that are set in ``changes``, or none. Each is logged and recorded.

        Raises ``UserError`` for a change that this run cannot make now, and pydantic's ``ValidationError`` for settings
        that do not go together.
        """
        wanted = changes.model_dump(include=changes.model_fields_set)
        before = self._limits
        differing = {name: value for name, value in wanted.items() if value != before[name]}
        settings = self._checked(differing)
        maker = self._maker
        if maker is None:
            raise UserError("the run is still starting", remedy="Try again when it makes calls.")
        if settings.limits != self.settings.limits:
            await maker.limit(settings.limits)
        if "concurrency" in differing:
            maker.resize(settings.concurrency)
        if "active_problems" in differing:
            self.problem_limiter.resize(settings.active_problems)
        if "pause" in differing:
            await maker.pause(differing["pause"])
            self.activity.is_paused = differing["pause"]
        self.settings = settings
        self._record(before, differing)

    def _checked(self, changes: Mapping[str, Any]) -> RunSettings:
        """The settings after ``changes``, checked like those of a command."""
        for name in changes:
            if name not in self._changeable:
                raise UserError(f"{name} cannot be changed here", remedy=f"Give {' or '.join(self._changeable)}.")
        if self.settings.on_ray and changes.get("active_problems", 0) > self._max_active_problems:
            remedy = "Give a larger one when you resume the run."
            raise UserError(f"on Ray, active_problems can be at most {self._max_active_problems}", remedy=remedy)
        budgets = {name: changes[name] for name in ("tokens_per_run", "money_per_run") if name in changes}
        for name in budgets if self.settings.method.allocates else ():
            remedy = f"Stop the run, and run its command again with the new limits.{name}."
            raise UserError(f"{name} is divided between the problems and cannot be changed now", remedy=remedy)
        if budgets and self._maker and self._maker.budget_use.exhausted:
            remedy = "Run the same command again with larger limits.tokens_per_run or limits.money_per_run."
            raise UserError("the budget of the run is used up, and the run is ending", remedy=remedy)
        given = {name: getattr(self.settings, name) for name in RunSettings.model_fields}
        if budgets:
            given["limits"] = Limits.model_validate({**self.settings.limits.model_dump(), **budgets})
        top_level = {name: value for name, value in changes.items() if name in ("concurrency", "active_problems")}
        return RunSettings(**{**given, **top_level})

    @property
    def _limits(self) -> dict[str, Any]:
        """The values in force of the fields of :class:`LimitChanges`."""
        settings = self.settings
        return {
            "concurrency": settings.concurrency,
            "active_problems": settings.active_problems,
            "tokens_per_run": settings.limits.tokens_per_run,
            "money_per_run": settings.limits.money_per_run,
            "pause": self.activity.is_paused,
        }

    def _record_resumed_limits(self) -> None:
        """Record and log each limit of this start that differs from what ``tmas control`` set last."""
        last_recorded = {line.setting: line.after for line in self._changes}
        now = self._limits
        differing = {name: now[name] for name in last_recorded if name in now and now[name] != last_recorded[name]}
        self._record(last_recorded, differing)
        if differing.keys() - {"pause"}:
            log.warning("tmas control changed these limits in an earlier start; this start uses those of its command")

    def _record(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        lines = [
            ControlLine(time=time.time(), setting=name, before=before[name], after=value)
            for name, value in after.items()
        ]
        if lines:
            append_lines(self.directory / CONTROL_FILE, lines, checked_line)
            self._changes += lines
        for line in lines:
            log.warning("%s: %s is now %s (before: %s)", self.directory, line.setting, line.after, line.before)

    # --- status

    def status(self) -> RunStatus:
        """The status now."""
        activity, maker = self.activity, self._maker
        rates = self._tokens_per_second()
        remaining = self._estimate_remaining(self._finished_fraction())
        failures = sum(activity.failures.values(), self._failures_of_finished)
        limits = self._limits
        del limits["pause"]
        state = "paused" if activity.is_paused else "running"
        return RunStatus(
            state="starting" if maker is None else state,
            waits_for=activity.status or None,
            process=last_lock_holder(self.directory),
            seconds=time.monotonic() - self._started,
            problems=self.problems,
            finished=self.finished,
            by_iteration=dict(sorted(Counter(activity.iterations.values()).items())),
            in_flight=activity.in_flight,
            calls=activity.calls,
            replayed=activity.replayed,
            failed=activity.failed,
            roles={
                name: RoleStatus(**vars(counters), tokens_per_second=rates[name])
                for name, counters in activity.roles.items()
            },
            failures=dict(failures),
            **limits,
            tokens_spent=maker.budget_use.spent if maker and self.settings.limits.tokens_per_run else None,
            currency=self._currency,
            money_spent=self._earlier_cost + activity.cost if maker and self._currency else None,
            seconds_left=remaining and remaining.seconds,
            completion_tokens_left=remaining and remaining.completion_tokens,
            money_left=remaining.money if remaining and self._currency else None,
            bank_changes=activity.bank_changes,
            changes=tuple(self._changes),
        )

    def _finished_fraction(self) -> float:
        """The finished part of the work, from 0 to 1, counted in iterations."""
        iterations = self.settings.method.max_iterations
        done = self.finished * iterations + sum(self.activity.iterations.values())
        return done / max(1, self.problems * iterations)

    def _estimate_remaining(self, fraction: float) -> _Remaining | None:
        """Estimate what the rest of the work takes, from the work since the first new call."""
        activity = self.activity
        if not activity.calls:
            return None
        now = time.monotonic()
        if self._estimate_start is None:
            self._estimate_start = _EstimateStart(now, fraction, activity.tokens, activity.cost)
        start = self._estimate_start
        done = fraction - start.fraction
        if done <= 0:
            return None
        factor = (1 - fraction) / done
        tokens = round((activity.tokens - start.tokens) * factor)
        return _Remaining((now - start.time) * factor, tokens, (activity.cost - start.cost) * factor)

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_INTERVAL)
            now = time.monotonic()
            self._samples.append((now, self._tokens()))
            while now - self._samples[0][0] > RATE_WINDOW:
                self._samples.popleft()
            # so that the estimate begins at the first call, not at the first status request
            self._estimate_remaining(self._finished_fraction())

    def _tokens(self) -> Counter[str]:
        return Counter({name: counters.tokens for name, counters in self.activity.roles.items()})

    def _tokens_per_second(self) -> dict[str, float]:
        """Tokens per second by role, over the last :data:`RATE_WINDOW` seconds."""
        since, before = self._samples[0]
        seconds = max(time.monotonic() - since, 1e-9)
        return {name: max(0, tokens - before[name]) / seconds for name, tokens in self._tokens().items()}
