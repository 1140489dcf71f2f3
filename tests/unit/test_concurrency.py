"""concurrency.py: concurrent coroutines, resolved awaitables, slots by priority, and their division."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.waiting import LIMIT
from tmas.concurrency import PriorityLimiter, divide_slots, gather_all, resolved


async def test_all_of_gives_results_in_the_order_given():
    async def value(i: int) -> int:
        for _ in range(5 - i):
            await asyncio.sleep(0)
        return i

    assert await gather_all(value(i) for i in range(5)) == [0, 1, 2, 3, 4]
    assert await gather_all([]) == []


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
        await gather_all([wait(), fail()])
    assert [type(e) for e in raised.value.exceptions] == [KeyError]
    assert ended == ["cancelled"]


async def test_a_settled_value_can_be_awaited_again():
    value = resolved("v")
    assert [await value, await value] == ["v", "v"]


# --- the limiter


async def test_a_paused_limiter_serves_nobody_until_it_continues():
    limiter = PriorityLimiter(2)
    entered: list[int] = []

    async def hold(priority: int, end: asyncio.Event) -> None:
        async with limiter.slots((priority,)):
            entered.append(priority)
            await end.wait()

    first, later = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(hold(0, first))
        await asyncio.sleep(0)
        limiter.pause(True)
        for priority in (3, 2, 1):
            group.create_task(hold(priority, later))
        first.set()  # a slot that is given back does not end the pause, and neither do new slots
        limiter.resize(3)
        for _ in range(10):
            await asyncio.sleep(0)
        assert (entered, limiter.in_use, limiter.wanted) == ([0], 0, 3)
        limiter.pause(False)
        await asyncio.sleep(0)
        assert entered == [0, 1, 2, 3]
        later.set()


class Team:
    """Workers on one limiter: who holds a slot, in which order they got it, and how many did at once."""

    def __init__(self, limit: int) -> None:
        self.limiter = PriorityLimiter(limit)
        self.limit, self.holding, self.most = limit, 0, 0
        self.got: list[int] = []

    async def work(self, name: int, priority: tuple[int, ...], ticks: int = 1) -> None:
        async with self.limiter.slots(priority):
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
        async with asyncio.timeout(LIMIT):
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
        async with asyncio.timeout(LIMIT):
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
    async with team.limiter.slots((0,)):
        first, second = (asyncio.create_task(team.work(name, (name,))) for name in (1, 2))
        await asyncio.sleep(0)
    first.cancel()  # its turn has come, but it has not run since
    await asyncio.wait([first, second], timeout=LIMIT)
    assert first.cancelled()
    assert team.got == [2]
    assert await team.has_all_slots()


async def test_an_error_inside_gives_the_slot_back():
    team = Team(1)
    with pytest.raises(KeyError):
        async with team.limiter.slots((0,)):
            raise KeyError
    assert await team.has_all_slots()


# --- holders of several slots


async def settled() -> None:
    """Let every task do what it can do without waiting."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_holder_of_several_begins_when_one_is_free_and_nobody_passes_it():
    limiter, begun = PriorityLimiter(4), []

    async def hold(name: str, count: int, until: asyncio.Event) -> None:
        async with limiter.slots((0,), count):
            begun.append(name)
            await until.wait()

    first, later = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for name, count, until in (("a", 1, first), ("b", 2, later), ("c", 8, later), ("d", 1, later)):
            group.create_task(hold(name, count, until))
        await settled()
        assert begun == ["a", "b", "c"]  # 11 slots of 4: the last one to begin may go beyond
        first.set()
        await settled()
        assert begun == ["a", "b", "c"]
        later.set()
    assert begun == ["a", "b", "c", "d"]


async def test_places_that_are_given_back_early_go_to_others_and_may_be_taken_again():
    limiter, begun = PriorityLimiter(3), []

    async def pass_by(name: str) -> None:
        async with limiter.slots((0,)):
            begun.append(name)

    async with asyncio.TaskGroup() as group, limiter.slots((0,), 3) as slots:
        group.create_task(pass_by("first"))
        await settled()
        assert begun == []
        slots.keep(2)
        await settled()
        assert begun == ["first"]
        slots.keep(3)  # as a call does that is tried again from its start
        group.create_task(pass_by("second"))
        await settled()
        assert begun == ["first"]
    assert begun == ["first", "second"]
    async with limiter.slots((0,), 3):
        assert limiter._free == 0


async def test_a_limit_is_raised_for_those_who_wait_and_lowered_as_places_come_back():
    limiter, begun = PriorityLimiter(1), list[int]()
    end = asyncio.Event()

    async def hold(i: int) -> None:
        async with limiter.slots((i,)):
            begun.append(i)
            await end.wait()

    async with asyncio.TaskGroup() as group:
        for i in range(4):
            group.create_task(hold(i))
        await asyncio.sleep(0)
        assert (begun, limiter.in_use, limiter.wanted) == ([0], 1, 4)
        limiter.resize(3)
        await asyncio.sleep(0)
        assert (begun, limiter.in_use, limiter.wanted) == ([0, 1, 2], 3, 4)
        limiter.resize(1)
        await asyncio.sleep(0)
        assert (limiter.in_use, limiter.wanted) == (3, 4)  # nobody is sent away
        end.set()
    assert begun == [0, 1, 2, 3]
    assert limiter.in_use == 0


@pytest.mark.parametrize(
    ("loads", "slots", "expected"),
    [
        ([(0, 0), (0, 0)], 10, [5, 5]),
        ([(0, 100), (0, 100)], 10, [5, 5]),
        ([(0, 100), (0, 2)], 10, [8, 2]),
        ([(6, 100), (0, 100)], 10, [6, 4]),
        ([(9, 9), (0, 3)], 10, [9, 1]),
        ([(3, 3), (0, 1)], 10, [5, 5]),
        ([(8, 9), (5, 9)], 10, [8, 5]),  # more in flight than there are slots: what is begun ends
    ],
)
def test_places_are_shared_by_what_each_can_use(loads: list[tuple[int, int]], slots: int, expected: list[int]):
    assert divide_slots(loads, slots) == expected


loads = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda t: (t[0], sum(t))), min_size=1)


@given(loads, st.integers(1, 200))
def test_every_place_is_given_and_none_idles_while_another_could_use_it(loads: list[tuple[int, int]], slots: int):
    given_ = divide_slots(loads, slots)
    used = sum(in_use for in_use, _ in loads)
    assert sum(given_) == max(slots, used)
    idle = sum(max(0, have - wanted) for have, (_, wanted) in zip(given_, loads, strict=True))
    short = sum(max(0, wanted - have) for have, (_, wanted) in zip(given_, loads, strict=True))
    assert not (idle and short)
