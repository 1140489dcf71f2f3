"""Hard token budgets. Tokens of calls in flight are counted as they stream; the calls are cancelled at the limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from tmas.records import Usage, UsageEntry
from tmas.records.token_counts import plausible_tokens
from tmas.records.trace_lines import CallLine, DecisionLine
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
    """The token budget is used up. The call was not made, or it was cancelled after it had used ``usage``."""

    def __init__(self, usage: Usage | None = None) -> None:
        super().__init__(usage)
        self.usage = usage or Usage()


class TokenBudget:
    """The token budget of a problem or a run: prompt and completion tokens together.

    ``limit``: maximum number of tokens; None means no limit. ``parent``: the budget of the run, in which the tokens of
    a problem count as well. The count can exceed the limit by the tokens that a server sends in one chunk. A call that
    this chunk finishes is kept.
    """

    def __init__(self, limit: int | None = None, parent: TokenBudget | None = None) -> None:
        self.limit, self.parent = limit, parent
        self.spent = 0
        self._in_flight: dict[asyncio.Task[Any], int] = {}
        self._tokens_in_flight = 0
        self._closed = False

    @property
    def is_limited(self) -> bool:
        return self.limit is not None or (self.parent is not None and self.parent.is_limited)

    @property
    def exhausted(self) -> bool:
        return self._closed or (self.parent is not None and self.parent.exhausted)

    def close(self) -> None:
        """Cancel the calls in flight and refuse new ones, as if the limit was reached."""
        self._closed = True
        for task in self._in_flight:
            task.get_loop().call_soon(task.cancel)  # not now: the chunk that is being counted may finish its call

    def set_limit(self, limit: int | None) -> None:
        """Change the limit. A budget that is used up stays used up."""
        self.limit = limit
        self._close_at_limit()

    def charge(self, usage: Usage, recorded: bool = False) -> None:
        """Count a finished call. ``recorded``: the call is from the trace, so the run's budget contains it already."""
        self.spent += usage.total_tokens
        if self.parent and not recorded:
            self.parent.charge(usage)
        self._close_at_limit()

    async def run_limited(
        self, call: Callable[[Callable[[int], None]], Coroutine[Any, Any, T]], prompt_tokens: int
    ) -> T:
        """Run ``call(on_progress)`` within the budget. Raises :class:`BudgetReached` if the budget ends first.

        ``on_progress`` takes the number of completion tokens streamed so far. ``prompt_tokens``: length of the prompt.
        The caller must pass the call's usage to :meth:`charge`, also when the call is cancelled.
        """
        if not self.is_limited:
            return await call(lambda _: None)
        if self.exhausted:
            raise BudgetReached
        started, streamed = time.monotonic(), 0

        def count(tokens: int) -> None:
            nonlocal streamed
            streamed = tokens
            self._set_tokens(task, prompt_tokens + tokens)

        task = asyncio.create_task(call(count))
        self._set_tokens(task, prompt_tokens)
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

    def _set_tokens(self, task: asyncio.Task[Any], tokens: int) -> None:
        self._tokens_in_flight += tokens - self._in_flight.get(task, 0)
        self._in_flight[task] = tokens
        if self.parent:
            self.parent._set_tokens(task, tokens)
        self._close_at_limit()

    def _remove(self, task: asyncio.Task[Any]) -> None:
        self._tokens_in_flight -= self._in_flight.pop(task)
        if self.parent:
            self.parent._remove(task)

    def _close_at_limit(self) -> None:
        if self.limit is not None and not self._closed and self.spent + self._tokens_in_flight >= self.limit:
            self.close()


def recorded_tokens(directory: Path) -> int:
    """The tokens that a run has used according to the traces in its directory, including failed and cancelled calls.

    Damaged lines are skipped: what they cost is not known.
    """
    return sum(map(_tokens_in_trace, sorted(directory.glob("trace/*.jsonl"))))


def _tokens_in_trace(trace: Path) -> int:
    calls, latest_decisions = 0, dict[str, int]()
    for line in read_trace(trace, skip_damaged=True):
        if isinstance(line, CallLine) and line.reply:
            calls += line.reply.usage.total_tokens
        elif isinstance(line, DecisionLine) and line.name.startswith(UNREPORTED_PREFIX):
            latest_decisions[line.name] = plausible_tokens(line.value)
        elif isinstance(line, DecisionLine) and line.name.startswith(CANCELLED_PREFIX):
            latest_decisions[line.name] = recorded_usage(line.value).usage.total_tokens
    return calls + sum(latest_decisions.values())


def recorded_usage(value: Any) -> UsageEntry:
    """The usage of a cancelled call from a trace. Older versions recorded counts that cannot be true as well."""
    entry = UsageEntry.model_validate(value)
    counts = {name: plausible_tokens(getattr(entry.usage, name)) for name in ("prompt_tokens", "completion_tokens")}
    return entry.model_copy(update={"usage": entry.usage.model_copy(update=counts)})
