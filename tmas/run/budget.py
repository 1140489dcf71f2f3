"""Hard budgets of tokens and money. Calls in flight are counted as they stream, and are cancelled at the limit."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tmas.records import Usage, UsageEntry
from tmas.records.prices import UNKNOWN_PRICE, Price
from tmas.records.token_counts import plausible_tokens
from tmas.records.trace_lines import CallLine, DecisionLine, PromptLine
from tmas.run.trace import read_trace

T = TypeVar("T")

UNREPORTED_PREFIX = "broken/"
"""Prefix of trace decisions, followed by a call's key. The value is the number of tokens that no server reported.

They count against budgets: tokens of failed attempts, and of replies without usage.
"""
CANCELLED_PREFIX = "cancelled/"
"""Prefix of trace decisions, followed by a call's key. The value is a :class:`~tmas.records.UsageEntry`: the usage of
the call until a budget cancelled it."""


class BudgetReached(Exception):
    """The budget is used up. The call was not made, or it was cancelled after it had used ``usage``."""

    def __init__(self, usage: Usage | None = None) -> None:
        super().__init__(usage)
        self.usage = usage or Usage()


class TokenBudget:
    """The budget of a problem or a run, in tokens (prompt and completion together), in money, or in both.

    ``limit``: maximum number of tokens; None means no limit. ``parent``: the budget of the run, in which the usage of
    a problem counts as well. ``money_limit``: maximum cost, in the currency of the prices; None means no limit. The
    count can exceed a limit by the tokens that a server sends in one chunk. A call that this chunk finishes is kept.

    ``spent`` and ``spent_money``: tokens and cost of the finished calls. Usage without a known price costs nothing
    here; in a run with a limit in money, all prices are known. ``includes_earlier``: whether ``spent`` and
    ``spent_money`` contain the usage of earlier starts, see :func:`count_earlier_starts`.
    """

    def __init__(
        self, limit: int | None = None, parent: TokenBudget | None = None, money_limit: float | None = None
    ) -> None:
        self.limit, self.parent, self.money_limit = limit, parent, money_limit
        self.spent, self.spent_money = 0, 0.0
        self.includes_earlier = False
        self._in_flight: dict[asyncio.Task[Any], tuple[int, float]] = {}
        self._tokens_in_flight, self._money_in_flight = 0, 0.0
        self._closed = False

    @property
    def is_limited(self) -> bool:
        own = self.limit is not None or self.money_limit is not None
        return own or (self.parent is not None and self.parent.is_limited)

    @property
    def exhausted(self) -> bool:
        return self._closed or (self.parent is not None and self.parent.exhausted)

    def close(self) -> None:
        """Cancel the calls in flight and refuse new ones, as if the limit was reached."""
        self._closed = True
        for task in self._in_flight:
            task.get_loop().call_soon(task.cancel)  # not now: the chunk that is being counted may finish its call

    def set_limits(self, limit: int | None, money_limit: float | None) -> None:
        """Change the limits. A budget that is used up stays used up."""
        self.limit, self.money_limit = limit, money_limit
        self._close_at_limit()

    def charge(self, usage: Usage, recorded: bool = False, price: Price = UNKNOWN_PRICE) -> None:
        """Count a finished call. ``recorded``: the call is from the trace, so the run's budget contains it already."""
        self.spent += usage.total_tokens
        self.spent_money += price.cost(usage) or 0.0
        if self.parent and not recorded:
            self.parent.charge(usage, price=price)
        self._close_at_limit()

    def add_earlier(self, tokens: int, money: float) -> None:
        """Count what earlier starts of the run have used."""
        self.spent, self.spent_money, self.includes_earlier = self.spent + tokens, self.spent_money + money, True
        self._close_at_limit()

    def count_recorded(self, charges: Mapping[str, Usage], prices: Mapping[str, Price]) -> None:
        """Raise ``spent`` and ``spent_money`` to the usage in a trace, if they are lower.

        ``charges``: this usage by role, from :func:`line_charges`. It contains what this process has charged already.
        ``prices``: the price of each role's model.
        """
        self.spent = max(self.spent, sum(usage.total_tokens for usage in charges.values()))
        self.spent_money = max(self.spent_money, known_cost(charges, prices))
        self._close_at_limit()

    async def run_limited(
        self,
        call: Callable[[Callable[[int], None]], Coroutine[Any, Any, T]],
        prompt_tokens: int,
        price: Price = UNKNOWN_PRICE,
    ) -> T:
        """Run ``call(report_tokens)`` within the budget. Raises :class:`BudgetReached` if the budget ends first.

        ``report_tokens`` takes the number of completion tokens streamed so far. ``prompt_tokens``: length of the
        prompt. Until the server reports the call's usage, no token of the prompt counts as cached. The caller must pass
        the call's usage to :meth:`charge`, also when the call is cancelled.
        """
        if not self.is_limited:
            return await call(lambda _: None)
        if self.exhausted:
            raise BudgetReached
        started, streamed = time.monotonic(), 0
        prompt_cost = price.cost(Usage(prompt_tokens=prompt_tokens)) or 0.0
        cost_per_token = price.cost(Usage(completion_tokens=1)) or 0.0

        def report_tokens(tokens: int) -> None:
            nonlocal streamed
            streamed = tokens
            self._set_in_flight(task, prompt_tokens + tokens, prompt_cost + tokens * cost_per_token)

        task = asyncio.create_task(call(report_tokens))
        report_tokens(0)
        try:
            if self.exhausted:
                task.cancel()  # before its first step: the prompt is never sent
                raise BudgetReached
            return await task
        except asyncio.CancelledError:
            if self.exhausted and task.cancelled() and not asyncio.current_task().cancelling():  # type: ignore[union-attr]
                seconds = time.monotonic() - started
                raise BudgetReached(
                    Usage(calls=1, prompt_tokens=prompt_tokens, completion_tokens=streamed, seconds=seconds)
                ) from None
            raise
        finally:
            self._remove(task)

    def _set_in_flight(self, task: asyncio.Task[Any], tokens: int, cost: float) -> None:
        old_tokens, old_cost = self._in_flight.get(task, (0, 0.0))
        self._tokens_in_flight += tokens - old_tokens
        self._money_in_flight += cost - old_cost
        self._in_flight[task] = tokens, cost
        if self.parent:
            self.parent._set_in_flight(task, tokens, cost)
        self._close_at_limit()

    def _remove(self, task: asyncio.Task[Any]) -> None:
        tokens, cost = self._in_flight.pop(task)
        self._tokens_in_flight -= tokens
        self._money_in_flight -= cost
        if self.parent:
            self.parent._remove(task)

    def _close_at_limit(self) -> None:
        if self._closed:
            return
        tokens_reached = self.limit is not None and self.spent + self._tokens_in_flight >= self.limit
        money = self.spent_money + self._money_in_flight
        if tokens_reached or (self.money_limit is not None and money >= self.money_limit):
            self.close()


class TraceReplaced(Exception):
    """A trace file was replaced while it was being read, because it was repaired."""


async def count_earlier_starts(budget: TokenBudget, directory: Path, prices: Mapping[str, Price]) -> None:
    """Add to the budget of a run what its earlier starts have used, from the traces. A second call does nothing.

    ``prices``: the price of each role's model. The count is exact, although calls of this start may end meanwhile: a
    session charges a call and writes it to the trace without an await in between. So the traces at their present length
    contain exactly the charges of earlier starts and those that ``budget`` has counted until now.
    """
    while not budget.includes_earlier:
        spent, spent_money = budget.spent, budget.spent_money
        traces = _trace_files(directory)
        try:
            charges = await asyncio.to_thread(recorded_charges, directory, traces)
        except TraceReplaced:
            continue
        tokens = sum(usage.total_tokens for usage in charges.values())
        budget.add_earlier(max(0, tokens - spent), max(0.0, known_cost(charges, prices) - spent_money))


def _trace_files(directory: Path) -> dict[Path, os.stat_result]:
    return {trace: trace.stat() for trace in directory.glob("trace/*.jsonl")}


def recorded_charges(directory: Path, traces: Mapping[Path, os.stat_result] | None = None) -> dict[str, Usage]:
    """What the traces of a run have charged to its budget, by role, including failed and cancelled calls.

    ``traces``: the traces to read, each up to the size in its ``stat_result``; None: all traces of the run. Damaged
    lines are skipped: what they cost is not known. Raises :class:`TraceReplaced` if one of ``traces`` was replaced.
    """
    totals: dict[str, Usage] = {}
    for trace in sorted(directory.glob("trace/*.jsonl") if traces is None else traces):
        expected = None if traces is None else traces[trace]
        lines = read_trace(trace, skip_damaged=True, end=expected and expected.st_size)
        for role, usage in line_charges(lines).items():
            totals[role] = totals.get(role, Usage()) + usage
        if expected and trace.stat().st_ino != expected.st_ino:
            raise TraceReplaced
    return totals


def line_charges(lines: Iterable[PromptLine | CallLine | DecisionLine]) -> dict[str, Usage]:
    """What one problem has charged, by role, from the lines of its trace."""
    totals: dict[str, Usage] = {}
    decisions: dict[str, UsageEntry] = {}  # the latest of each name
    for line in lines:
        if isinstance(line, CallLine) and line.reply:
            totals[line.key.role] = totals.get(line.key.role, Usage()) + line.reply.usage
        elif isinstance(line, DecisionLine) and line.name.startswith(UNREPORTED_PREFIX):
            decisions[line.name] = unreported_usage(line.name, line.value)
        elif isinstance(line, DecisionLine) and line.name.startswith(CANCELLED_PREFIX):
            decisions[line.name] = recorded_usage(line.value)
    for entry in decisions.values():
        totals[entry.role] = totals.get(entry.role, Usage()) + entry.usage
    return totals


def known_cost(charges: Mapping[str, Usage], prices: Mapping[str, Price]) -> float:
    """The cost of usage by role. ``prices``: the price of each role's model; usage without one costs nothing here."""
    return sum(prices.get(role, UNKNOWN_PRICE).cost(usage) or 0.0 for role, usage in charges.items())


def unreported_usage(name: str, value: Any) -> UsageEntry:
    """The tokens of a decision with the prefix :data:`UNREPORTED_PREFIX`, as completion tokens of the call's role.

    They therefore have the price of completion tokens, which is rarely lower than that of prompt tokens.
    """
    call = re.search(r"/it(\d+)/([^/\[\]]+)\[\d+(?:\+\d+)?\]#\d+$", name)
    iteration, role = (int(call[1]), call[2]) if call else (0, "")
    usage = Usage(completion_tokens=plausible_tokens(value))
    return UsageEntry(role=role, iteration=iteration, usage=usage)


def recorded_usage(value: Any) -> UsageEntry:
    """The usage of a cancelled call from a trace. Counts that cannot be true become 0: older versions recorded them."""
    entry = UsageEntry.model_validate(value)
    counts = {name: plausible_tokens(getattr(entry.usage, name)) for name in ("prompt_tokens", "completion_tokens")}
    return entry.model_copy(update={"usage": entry.usage.model_copy(update=counts)})
