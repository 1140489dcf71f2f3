"""Hard token budgets: calls in flight are counted as they stream, and cancelled when the budget is used up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from tmas.records import Usage, UsageEntry
from tmas.records.trace_lines import CallLine, DecisionLine
from tmas.run.trace import read_trace

T = TypeVar("T")

BROKEN = "broken/"
"""Decisions under this prefix and a call's key hold tokens that stand in no usage, but count against budgets: those of
attempts that came to nothing, and of replies whose server told no usage."""
CANCELLED = "cancelled/"
"""Decisions under this prefix and a call's key hold what the call had cost when a budget cancelled it."""


class BudgetReached(Exception):
    """No tokens are left: the call was not made, or was cancelled after it had cost ``usage``."""

    def __init__(self, usage: Usage | None = None) -> None:
        super().__init__(usage)
        self.usage = usage or Usage()


class TokenBudget:
    """Prompt and completion tokens of a problem, within those of the run (``parent``). ``limit`` None: no limit.

    Between two chunks of a stream the count is exact up to what the server sends in one chunk. A call that such a
    chunk finishes is kept, whatever limit it reaches.
    """

    def __init__(self, limit: int | None = None, parent: TokenBudget | None = None) -> None:
        self.limit, self.parent = limit, parent
        self.spent = 0
        self._in_flight: dict[asyncio.Task[Any], int] = {}
        self._flying = 0
        self._closed = False

    @property
    def is_limited(self) -> bool:
        return self.limit is not None or (self.parent is not None and self.parent.is_limited)

    @property
    def exhausted(self) -> bool:
        return self._closed or (self.parent is not None and self.parent.exhausted)

    def close(self) -> None:
        """Use up what is left of a limit: calls in flight are cancelled, new ones refused."""
        self._closed = True
        for task in self._in_flight:
            task.get_loop().call_soon(task.cancel)  # not at once: the call that is counting may be about to end

    def spend(self, usage: Usage, recorded: bool = False) -> None:
        """Count a call that has ended; one that is ``recorded`` was counted for the run as it began."""
        self.spent += usage.total_tokens
        if self.parent and not recorded:
            self.parent.spend(usage)
        self._check()

    async def bounded(self, call: Callable[[Callable[[int], None]], Coroutine[Any, Any, T]], prompt_tokens: int) -> T:
        """Run ``call(on_progress)`` within the budget; raises :class:`BudgetReached` if it had to be given up.

        ``on_progress`` takes the completion tokens streamed so far. What the call cost is the caller's to spend.
        """
        if not self.is_limited:
            return await call(lambda _: None)
        if self.exhausted:
            raise BudgetReached
        started, streamed = time.monotonic(), 0

        def count(tokens: int) -> None:
            nonlocal streamed
            streamed = tokens
            self._count(task, prompt_tokens + tokens)

        task = asyncio.create_task(call(count))
        self._count(task, prompt_tokens)
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
            self._forget(task)

    def _count(self, task: asyncio.Task[Any], tokens: int) -> None:
        self._flying += tokens - self._in_flight.get(task, 0)
        self._in_flight[task] = tokens
        if self.parent:
            self.parent._count(task, tokens)
        self._check()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._flying -= self._in_flight.pop(task)
        if self.parent:
            self.parent._forget(task)

    def _check(self) -> None:
        if self.limit is not None and not self._closed and self.spent + self._flying >= self.limit:
            self.close()


def recorded_tokens(directory: Path) -> int:
    """All that the traces of a run directory say the run has cost, whatever became of it; :class:`TraceError` where one
    is damaged."""
    return sum(map(_recorded_in, sorted(directory.glob("trace/*.jsonl"))))


def _recorded_in(trace: Path) -> int:
    calls, decided = 0, dict[str, int]()
    for line in read_trace(trace):
        if isinstance(line, CallLine) and line.reply:
            calls += line.reply.usage.total_tokens
        elif isinstance(line, DecisionLine) and line.name.startswith(BROKEN):
            decided[line.name] = line.value
        elif isinstance(line, DecisionLine) and line.name.startswith(CANCELLED):
            decided[line.name] = UsageEntry.model_validate(line.value).usage.total_tokens
    return calls + sum(decided.values())
