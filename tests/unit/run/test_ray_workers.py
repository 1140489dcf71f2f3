"""How the run's process shares problems among workers; with actors that are no processes (real ones: test_ray.py)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the cpu or gpu extra")

from ray.exceptions import RayActorError, RayTaskError

from tmas.engines.ray_cluster import ClusterFailed
from tmas.records import Problem
from tmas.run import ray_workers as workers
from tmas.testing import team


class Method:
    """An actor's method, as it is called from outside."""

    def __init__(self, function: Any) -> None:
        self.remote = function


class Actor:
    """Solves after a moment. ``deaf``: it has died, but no heartbeat has shown it. ``new``: it has restarted,
    likewise. ``troubles``: what happens to problems, one after the other."""

    def __init__(self, deaf: bool = False, new: bool = False, troubles: Sequence[Exception] = ()) -> None:
        self.solved: Counter[str] = Counter()
        self.deaf, self.new, self.troubles = deaf, new, iter(troubles)
        self.hear, self.solve = Method(self._hear), Method(self._solve)

    async def _hear(self) -> bool:
        await asyncio.sleep(0)
        if self.deaf:
            raise RayActorError
        return not self.new

    async def _solve(self, order: int, problem: Problem) -> Any:
        await asyncio.sleep(0.01)
        for trouble in self.troubles:
            raise trouble
        self.solved[problem.problem_id] += 1
        return SimpleNamespace(usage=[])


def fleet(monkeypatch: pytest.MonkeyPatch, actors: list[Actor], well: bool = True) -> workers.Workers:
    monkeypatch.setattr(workers, "_actors", lambda *_: actors)
    here = SimpleNamespace(settings=SimpleNamespace(concurrency=10), base_urls=())
    made = workers.Workers(here, SimpleNamespace(directory=Path("nowhere")))  # type: ignore[arg-type]
    for member in made._members:
        member.is_well = well
    return made


async def test_problems_that_come_at_once_are_shared_evenly(monkeypatch: pytest.MonkeyPatch):
    actors = [Actor() for _ in range(3)]
    made = fleet(monkeypatch, actors)
    await asyncio.gather(*(made.solve(order, problem) for order, problem in enumerate(team.problems(6))))
    assert [actor.solved.total() for actor in actors] == [2, 2, 2]


@pytest.mark.parametrize("lost", [{"deaf": True}, {"new": True}])
async def test_one_that_is_not_ready_gets_none_and_its_share_goes_to_the_others(
    monkeypatch: pytest.MonkeyPatch, lost: dict[str, bool]
):
    actors = [Actor(), Actor(**lost), Actor()]
    made = fleet(monkeypatch, actors)
    await asyncio.gather(*(made.solve(order, problem) for order, problem in enumerate(team.problems(6))))
    assert [actor.solved.total() for actor in actors] == [3, 0, 3]


async def test_a_worker_out_of_reach_that_keeps_a_trace_to_itself_is_killed(monkeypatch: pytest.MonkeyPatch):
    killed: list[Actor] = []
    monkeypatch.setattr(workers.ray, "kill", lambda actor, no_restart: killed.append(actor))
    held = RayTaskError("solve", "", BlockingIOError("another process still writes"))
    actors = [Actor(troubles=[RayActorError()]), Actor(troubles=[held])]
    made = fleet(monkeypatch, actors)
    await made.solve(0, team.problems(1)[0])
    assert killed == [actors[0]]
    assert actors[1].solved == {"p0": 1}


async def test_a_trace_that_another_run_has_ends_this_one(monkeypatch: pytest.MonkeyPatch):
    held = RayTaskError("solve", "", BlockingIOError("another process still writes"))
    made = fleet(monkeypatch, [Actor(troubles=[held])])
    with pytest.raises(BlockingIOError):
        await made.solve(0, team.problems(1)[0])


async def test_places_that_one_was_told_of_are_given_to_another_only_when_it_has_been_told_of_less(
    monkeypatch: pytest.MonkeyPatch,
):
    made = fleet(monkeypatch, [Actor(), Actor()])
    one, other = made._members
    one.report = workers.Report("a", in_use=10, wanted=10)
    assert made._order(one).slots == 10
    one.report = workers.Report("a", in_use=0, wanted=0)  # and by now it may have begun ten more
    other.report = workers.Report("b", in_use=0, wanted=10)
    assert made._order(other).slots == 0
    assert made._order(one).slots == 0
    assert made._order(other).slots == 10


async def test_a_run_without_any_worker_stops_after_a_while(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "NONE_LEFT", 0.05)
    monkeypatch.setattr(workers, "BEAT", 0.02)
    made = fleet(monkeypatch, [Actor()], well=False)
    with pytest.raises(ClusterFailed, match="no worker has answered"):
        await made.solve(0, team.problems(1)[0])
