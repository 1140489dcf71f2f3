"""Hard token budgets: calls in flight are counted as they stream, and cancelled when the budget is used up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tmas.records import Usage

T = TypeVar("T")


class BudgetReached(Exception):
    """No tokens are left; the call was not made, or was cancelled."""


class TokenBudget:
    """Prompt and completion tokens of a problem, within those of the run (``parent``). ``limit`` None: no limit.

    Between two chunks of a stream the count is exact up to what the server sends in one chunk.
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
        """Use up what is left: calls in flight are cancelled, new ones refused."""
        self._closed = True
        for task in list(self._in_flight):
            task.cancel()

    def spend(self, usage: Usage) -> None:
        """Count a finished call."""
        self.spent += usage.total_tokens
        if self.parent:
            self.parent.spend(usage)
        self._check()

    async def bounded(self, call: Callable[[Callable[[int], None]], Coroutine[Any, Any, T]], prompt_tokens: int) -> T:
        """Run ``call(on_progress)`` within the budget; raises :class:`BudgetReached` if it had to be given up.

        ``on_progress`` takes the completion tokens streamed so far.
        """
        if self.exhausted:
            raise BudgetReached
        task = asyncio.create_task(call(lambda streamed: self._count(task, prompt_tokens + streamed)))
        self._count(task, prompt_tokens)
        try:
            return await task
        except asyncio.CancelledError:
            if self.exhausted and task.cancelled() and not asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise BudgetReached from None
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
