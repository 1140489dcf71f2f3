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
    """Run coroutines concurrently and return their results in the order given.

    If one raises, the others are cancelled. ``asyncio.gather`` would let them run.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
    return [task.result() for task in tasks]


def first_cause(
    raised: BaseExceptionGroup[BaseException], foremost: type[BaseException] | None = None
) -> BaseException:
    """Return the first error in nested exception groups; an error of the type ``foremost`` takes precedence."""
    causes = list(_leaves(raised))
    return next((c for c in causes if foremost and isinstance(c, foremost)), causes[0])


def _leaves(raised: BaseException) -> list[BaseException]:
    if isinstance(raised, BaseExceptionGroup):
        return [leaf for inner in raised.exceptions for leaf in _leaves(inner)]
    return [raised]


def resolved(value: T) -> Awaitable[T]:
    """Return an awaitable that already has its value. It can be awaited any number of times."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


class Slots:
    """The slots of a :class:`PriorityLimiter` that one caller (the holder) occupies."""

    def __init__(self, limiter: PriorityLimiter, held: int) -> None:
        self._limiter, self.held = limiter, held

    def keep(self, count: int) -> None:
        """Hold ``count`` slots from now on and return the others. A retried call may raise its count again."""
        self._limiter._give_back(self.held - count)
        self.held = count


class PriorityLimiter:
    """Limits concurrency to ``limit`` slots. Waiters are served by priority (smallest first), then in order of arrival.

    A holder of several slots starts as soon as one slot is free, so that no slot stays empty while it waits for the
    others. The slots in use can therefore exceed ``limit``, by less than the number of slots that the last holder took.
    """

    def __init__(self, limit: int) -> None:
        self._limit = self._free = limit
        self._is_paused = False
        self._waiting: list[tuple[tuple[int, ...], int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    @property
    def in_use(self) -> int:
        return self._limit - self._free

    @property
    def wanted(self) -> int:
        """Number of slots in use or waited for."""
        return self.in_use + sum(count for _, _, count, turn in self._waiting if not turn.done())

    def resize(self, limit: int) -> None:
        """Change the limit. Slots in use beyond the new limit are returned when their holders finish."""
        more, self._limit = limit - self._limit, limit
        self._give_back(more)

    def pause(self, paused: bool) -> None:
        """While paused, no waiter gets a slot. Holders keep theirs until they finish."""
        self._is_paused = paused
        self._give_back(0)

    @asynccontextmanager
    async def slots(self, priority: tuple[int, ...], count: int = 1) -> AsyncIterator[Slots]:
        if self._free > 0 and not self._is_paused:
            self._free -= count
        else:
            await self._wait_for_turn(priority, count)
        held = Slots(self, count)
        try:
            yield held
        finally:
            held.keep(0)

    async def _wait_for_turn(self, priority: tuple[int, ...], count: int) -> None:
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
        while self._free > 0 and self._waiting and not self._is_paused:
            _, _, wanted, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._free -= wanted
                turn.set_result(None)


def divide_slots(loads: Sequence[tuple[int, int]], slots: int) -> list[int]:
    """Divide ``slots`` among workers. ``loads`` holds (slots in use, slots wanted) for each worker.

    A worker keeps every slot that it uses. Each remaining slot goes to the worker with the fewest slots among those
    that want more. If no worker wants more, it goes to the worker with the fewest slots.
    """
    given = [in_use for in_use, _ in loads]
    for _ in range(slots - sum(given)):
        hungry = [i for i, (_, wanted) in enumerate(loads) if given[i] < wanted]
        given[min(hungry or range(len(loads)), key=given.__getitem__)] += 1
    return given
