"""llm/router.py: a problem's calls stay together, spill where that pays, and go by the engines' speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmas.llm.router import SPILL, Engine, Router

PROBLEMS = [f"problem {i}" for i in range(2000)]


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def calls() -> ExitStack:
    """Calls in flight that the test need not end."""
    return ExitStack()


def router(count: int, slots: int = 10**6, now: Callable[[], float] = lambda: 0.0) -> Router:
    return Router([f"http://engine-{i}/v1" for i in range(count)], slots, now)


def homes(routes: Router) -> dict[str, Engine]:
    return {problem: routed(routes, problem) for problem in PROBLEMS}


def routed(routes: Router, problem: str) -> Engine:
    engine = routes.choose(problem)
    assert engine is not None
    return engine


# --- homes


def test_calls_of_one_problem_go_to_one_engine_and_problems_to_all_engines():
    routes = router(4)
    assert homes(routes) == homes(routes)
    counts = Counter(engine.base_url for engine in homes(routes).values())
    assert len(counts) == 4
    assert min(counts.values()) > len(PROBLEMS) / 4 * 0.8


def test_only_the_problems_of_an_engine_that_goes_move():
    routes = router(4)
    before = homes(routes)
    gone = before["problem 0"]
    routes.update(base_url for base_url in routes.engines if base_url != gone.base_url)
    moved = {problem for problem, engine in homes(routes).items() if engine != before[problem]}
    assert moved == {problem for problem, engine in before.items() if engine is gone}
    assert set(routes.engines.values()) < set(before.values())  # what is known of the others is kept


def test_an_engine_that_comes_takes_its_share_from_all():
    routes = router(4)
    before = homes(routes)
    routes.update([*routes.engines, "http://new/v1"])
    moved = {p: engine for p, engine in homes(routes).items() if engine != before[p]}
    assert {engine.base_url for engine in moved.values()} == {"http://new/v1"}
    assert len(PROBLEMS) / 5 * 0.8 < len(moved) < len(PROBLEMS) / 5 * 1.2


# --- spilling


def test_a_call_spills_to_the_emptiest_once_home_has_so_many_more(calls: ExitStack):
    routes = router(3)
    home = routed(routes, "p")
    first, second = (engine for engine in routes.engines.values() if engine is not home)
    calls.enter_context(first.call(2))
    for _ in range(SPILL):
        assert routes.choose("p") is home
        calls.enter_context(home.call(1))
    calls.enter_context(home.call(1))
    assert routes.choose("p") is second


@given(st.integers(1, 6), st.integers(1, 60), st.lists(st.integers(1, 8), max_size=80))
def test_no_engine_gets_more_while_another_has_less_than_its_share(engines: int, slots: int, sizes: list[int]):
    routes = router(engines, slots)
    share = slots / engines
    with ExitStack() as calls:
        for i, size in enumerate(sizes):
            full = [engine for engine in routes.engines.values() if engine.in_flight >= share]
            engine = routed(routes, f"p{i % 3}")
            assert engine not in full or len(full) == engines
            calls.enter_context(engine.call(size))
    assert all(engine.in_flight == 0 for engine in routes.engines.values())


def test_completions_that_have_ended_make_room(calls: ExitStack):
    routes = router(2, slots=16)
    home = routed(routes, "p")
    progress = calls.enter_context(home.call(8))
    assert routes.choose("p") is not home
    progress(100, 3)
    assert home.in_flight == 5
    assert routes.choose("p") is home
    progress(0, 0)  # the call is tried again from its start
    assert home.in_flight == 8


# --- failures


def test_what_was_tried_or_ails_is_avoided_while_there_is_another():
    routes = router(3)
    first = routed(routes, "p")
    second = routes.choose("p", {first})
    assert second not in (None, first)
    first.is_healthy = False
    assert routes.choose("p") is second
    assert routes.choose("p", set(routes.engines.values()) - {first}) is first
    assert routes.choose("p", set(routes.engines.values())) is None
    assert Router([]).choose("p") is None


def test_a_call_for_several_goes_where_all_have_room(calls: ExitStack):
    routes = router(2, slots=20)
    home = routes.choose("p")
    assert home
    other = next(engine for engine in routes.engines.values() if engine is not home)
    calls.enter_context(home.call(7))
    assert routes.choose("p", count=3) is home
    assert routes.choose("p", count=4) is other
    calls.enter_context(other.call(8))
    assert routes.choose("p", count=4) is home  # none has room for all


# --- speed


def decode(engines: list[Engine], clock: Clock, speeds: list[float], seconds: int = 120, at_once: int = 10) -> None:
    """Let each engine decode ``at_once`` completions for so long, at so many tokens a second each."""
    with ExitStack() as calls:
        progress = [calls.enter_context(engine.call(at_once)) for engine in engines]
        for second in range(1, seconds + 1):
            clock.time += 1
            for told, speed in zip(progress, speeds, strict=True):
                told(int(second * speed * at_once), 0)


def test_a_slow_engine_gets_problems_and_places_in_proportion(calls: ExitStack):
    clock = Clock()
    routes = router(4, slots=310, now=clock)
    engines = list(routes.engines.values())
    decode(engines, clock, [50, 50, 5, 50])
    assert engines[2].speed == pytest.approx(5, rel=0.05)
    counts = Counter(engine.base_url for engine in homes(routes).values())
    assert counts[engines[2].base_url] == pytest.approx(len(PROBLEMS) / 31, rel=0.5)
    for i in range(310):
        calls.enter_context(routed(routes, PROBLEMS[i]).call(1))
    assert [engine.in_flight for engine in engines] == [100, 100, 10, 100]


def test_an_engine_that_stands_still_is_the_last_resort():
    clock = Clock()
    routes = router(2, slots=100, now=clock)
    still, other = routes.engines.values()
    decode([still, other], clock, [0, 50])
    assert set(homes(routes).values()) == {other}
    assert routes.choose("p", {other}) is still


def test_differences_that_the_batch_explains_do_not_count():
    clock = Clock()
    routes = router(2, slots=100, now=clock)
    before = homes(routes)
    decode(list(routes.engines.values()), clock, [30, 50])
    assert homes(routes) == before


def test_what_was_long_ago_is_forgotten():
    clock = Clock()
    routes = router(2, now=clock)
    slow, fast = routes.engines.values()
    decode([slow, fast], clock, [1, 50])
    clock.time += 1000
    assert slow.speed is None
    decode([slow, fast], clock, [50, 50])
    assert slow.speed == pytest.approx(50, rel=0.1)
