"""Small helpers over asyncio: gather coroutines, find the first error, and limit concurrency by priority."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


async def gather_all(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in the order given. If one raises, the others are cancelled (``asyncio.gather`` lets them run)."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
    return [task.result() for task in tasks]


def first_cause(
    raised: BaseExceptionGroup[BaseException], foremost: type[BaseException] | None = None
) -> BaseException:
    """The first error in a group of groups; one of the kind ``foremost`` goes before others."""
    causes = list(_leaves(raised))
    return next((c for c in causes if foremost and isinstance(c, foremost)), causes[0])


def _leaves(raised: BaseException) -> list[BaseException]:
    if isinstance(raised, BaseExceptionGroup):
        return [leaf for inner in raised.exceptions for leaf in _leaves(inner)]
    return [raised]


def resolved(value: T) -> Awaitable[T]:
    """An awaitable that already has its value, and may be awaited many times."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


class Slots:
    """What one holder has of a :class:`PriorityLimiter`."""

    def __init__(self, limiter: PriorityLimiter, held: int) -> None:
        self._limiter, self.held = limiter, held

    def keep(self, count: int) -> None:
        """Give back all but ``count``; what was given back may be taken again, should the work start anew."""
        self._limiter._give_back(self.held - count)
        self.held = count


class PriorityLimiter:
    """``limit`` slots; of those waiting for some, the smallest priority goes first, then the first come.

    A holder of several begins as soon as one is free, so that none stays empty until all of them are: in use are at
    most ``limit``, and those that the last one to begin took beyond it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = self._free = limit
        self._waiting: list[tuple[tuple[int, ...], int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    @property
    def in_use(self) -> int:
        return self._limit - self._free

    @property
    def wanted(self) -> int:
        """Slots in use, and those that are waited for."""
        return self.in_use + sum(count for _, _, count, turn in self._waiting if not turn.done())

    def resize(self, limit: int) -> None:
        """Another limit from now on; what is in use beyond it is given back as it ends."""
        more, self._limit = limit - self._limit, limit
        self._give_back(more)

    @asynccontextmanager
    async def slots(self, priority: tuple[int, ...], count: int = 1) -> AsyncIterator[Slots]:
        if self._free > 0:
            self._free -= count
        else:
            await self._turn(priority, count)
        held = Slots(self, count)
        try:
            yield held
        finally:
            held.keep(0)

    async def _turn(self, priority: tuple[int, ...], count: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), count, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(count)
            raise

    def _give_back(self, count: int) -> None:
        self._free += count
        while self._free > 0 and self._waiting:
            _, _, wanted, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._free -= wanted
                turn.set_result(None)


def divide_slots(loads: Sequence[tuple[int, int]], slots: int) -> list[int]:
    """How many of ``slots`` each of the workers may have in flight, by (what it has, what it could have).

    Nobody is asked to give up what is in flight. Of the rest each next place goes to the one with the fewest that
    could use it, and what nobody can use yet to the one with the fewest.
    """
    given = [in_use for in_use, _ in loads]
    for _ in range(slots - sum(given)):
        hungry = [i for i, (_, wanted) in enumerate(loads) if given[i] < wanted]
        given[min(hungry or range(len(loads)), key=given.__getitem__)] += 1
    return given
