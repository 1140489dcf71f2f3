"""Three small helpers over asyncio: run together, already done, and bounded with priorities."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


async def all_of(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in the order given. If one raises, the others are cancelled (``asyncio.gather`` lets them run)."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
    return [task.result() for task in tasks]


def settled(value: T) -> Awaitable[T]:
    """An awaitable that already has its value, and may be awaited many times."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


class PriorityLimiter:
    """At most ``limit`` holders at once; of those waiting, the smallest priority goes first, then the first come."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: list[tuple[tuple[int, ...], int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    @asynccontextmanager
    async def slot(self, priority: tuple[int, ...]) -> AsyncIterator[None]:
        if self._free > 0:
            self._free -= 1
        else:
            await self._turn(priority)
        try:
            yield
        finally:
            self._pass_on()

    async def _turn(self, priority: tuple[int, ...]) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
