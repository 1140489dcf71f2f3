"""concurrency.py: run together, already done, bounded with priorities."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmas.concurrency import PriorityLimiter, all_of, settled


async def test_all_of_gives_results_in_the_order_given():
    async def value(i: int) -> int:
        for _ in range(5 - i):
            await asyncio.sleep(0)
        return i

    assert await all_of(value(i) for i in range(5)) == [0, 1, 2, 3, 4]
    assert await all_of([]) == []


async def test_one_failure_cancels_the_others():
    ended = []

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("x")

    with pytest.raises(ExceptionGroup) as raised:
        await all_of([wait(), fail()])
    assert [type(e) for e in raised.value.exceptions] == [KeyError]
    assert ended == ["cancelled"]


async def test_a_settled_value_can_be_awaited_again():
    value = settled("v")
    assert [await value, await value] == ["v", "v"]


# --- the limiter


class Team:
    """Workers on one limiter: who holds a slot, in which order they got it, and how many did at once."""

    def __init__(self, limit: int) -> None:
        self.limiter = PriorityLimiter(limit)
        self.limit, self.holding, self.most = limit, 0, 0
        self.got: list[int] = []

    async def work(self, name: int, priority: tuple[int, ...], ticks: int = 1) -> None:
        async with self.limiter.slot(priority):
            self.got.append(name)
            self.holding += 1
            self.most = max(self.most, self.holding)
            try:
                for _ in range(ticks):
                    await asyncio.sleep(0)
            finally:
                self.holding -= 1

    async def has_all_slots(self) -> bool:
        """Whether exactly ``limit`` slots can be held at once."""
        self.most = 0
        async with asyncio.timeout(5):
            await asyncio.gather(*(self.work(-1, (0,), ticks=20) for _ in range(self.limit + 1)))
        return self.most == self.limit


JOBS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 6), st.none() | st.integers(0, 8)), max_size=15
)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), JOBS)
def test_never_more_than_the_limit_and_no_slot_is_lost(limit: int, jobs: list[tuple[int, int, int, int | None]]):
    """Jobs with a priority, a start, a length and perhaps a cancellation, in ticks of the loop."""

    async def simulate() -> None:
        team, tasks = Team(limit), {}
        for now in range(20):
            for name, (priority, start, ticks, cancelled) in enumerate(jobs):
                if start == now:
                    tasks[name] = asyncio.create_task(team.work(name, (priority,), ticks))
                if cancelled is not None and start + cancelled == now:
                    tasks[name].cancel()
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert team.most <= limit
        assert {name for name, job in enumerate(jobs) if job[3] is None} <= set(team.got)
        assert await team.has_all_slots()

    asyncio.run(simulate())


async def test_the_smallest_priority_goes_first_then_the_first_come():
    team = Team(1)
    priorities = [(t, order) for t in range(3) for order in range(3)] * 2
    random.Random(0).shuffle(priorities)
    holder = asyncio.create_task(team.work(-1, (9,), ticks=5))
    await asyncio.sleep(0)
    await asyncio.gather(*(team.work(name, p) for name, p in enumerate(priorities)), holder)
    assert team.got == [-1, *sorted(range(len(priorities)), key=lambda name: (priorities[name], name))]


async def test_a_slot_given_to_a_waiter_that_is_cancelled_at_that_moment_goes_to_the_next():
    team = Team(1)
    async with team.limiter.slot((0,)):
        first, second = (asyncio.create_task(team.work(name, (name,))) for name in (1, 2))
        await asyncio.sleep(0)
    first.cancel()  # its turn has come, but it has not run since
    await asyncio.wait([first, second], timeout=5)
    assert first.cancelled()
    assert team.got == [2]
    assert await team.has_all_slots()


async def test_an_error_inside_gives_the_slot_back():
    team = Team(1)
    with pytest.raises(KeyError):
        async with team.limiter.slot((0,)):
            raise KeyError
    assert await team.has_all_slots()
