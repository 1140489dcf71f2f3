"""How the run's process shares problems among workers; with actors that are no processes (real ones: test_ray.py)."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the cpu or gpu extra")

from ray.exceptions import RayActorError

from tests.support import team
from tmas.inference import workers
from tmas.inference.cluster import ClusterFailed
from tmas.records import Problem, Usage


class Method:
    """An actor's method, as it is called from outside."""

    def __init__(self, function: Any) -> None:
        self.remote = function


class Actor:
    """Solves after a moment. ``deaf``: it has died, which no beat has told yet."""

    def __init__(self, deaf: bool = False) -> None:
        self.solved: Counter[str] = Counter()
        self.deaf = deaf
        self.hear, self.solve = Method(self._hear), Method(self._solve)

    async def _hear(self) -> None:
        await asyncio.sleep(0)
        if self.deaf:
            raise RayActorError

    async def _solve(self, order: int, problem: Problem) -> Any:
        self.solved[problem.problem_id] += 1
        await asyncio.sleep(0.01)
        return SimpleNamespace(usage=[])


def fleet(monkeypatch: pytest.MonkeyPatch, actors: list[Actor], well: bool = True) -> workers.Workers:
    monkeypatch.setattr(workers, "_actors", lambda _: actors)
    made = workers.Workers(SimpleNamespace(directory=Path("nowhere")), Usage())  # type: ignore[arg-type]
    for member in made._members:
        member.is_well = well
    return made


async def test_problems_that_come_at_once_are_shared_evenly(monkeypatch: pytest.MonkeyPatch):
    actors = [Actor() for _ in range(3)]
    made = fleet(monkeypatch, actors)
    await asyncio.gather(*(made.solve(order, problem) for order, problem in enumerate(team.problems(6))))
    assert [actor.solved.total() for actor in actors] == [2, 2, 2]


async def test_one_that_does_not_hear_gets_none_and_its_share_goes_to_the_others(monkeypatch: pytest.MonkeyPatch):
    actors = [Actor(), Actor(deaf=True), Actor()]
    made = fleet(monkeypatch, actors)
    await asyncio.gather(*(made.solve(order, problem) for order, problem in enumerate(team.problems(6))))
    assert [actor.solved.total() for actor in actors] == [3, 0, 3]


async def test_a_run_without_any_worker_stops_after_a_while(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "NONE_LEFT", 0.05)
    monkeypatch.setattr(workers, "BEAT", 0.02)
    made = fleet(monkeypatch, [Actor()], well=False)
    with pytest.raises(ClusterFailed, match="no worker has answered"):
        await made.solve(0, team.problems(1)[0])
