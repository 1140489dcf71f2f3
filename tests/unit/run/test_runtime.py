"""run/runtime.py: what a process opens to solve problems, and that it closes all of it in the reverse order."""

from __future__ import annotations

import gc
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tmas.llm.descriptors import SPARE
from tmas.run import runtime
from tmas.run.activity import Activity
from tmas.run.garbage import RARE
from tmas.run.runtime import Runtime, open_runtime
from tmas.settings import RunSettings
from tmas.testing import team
from tmas.testing.chat_server import ScriptedServer

ALL = ["clients", "checker", "garbage", "ray", "servers"]


class Steps:
    """Records what is opened and closed. ``failing``: the part whose opening fails."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.failing: str | None = None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if name == self.failing:
            raise OSError(name)
        self.seen.append(f"open {name}")
        try:
            yield
        finally:
            self.seen.append(f"close {name}")

    def asynchronous(self, name: str) -> Callable[..., Any]:
        @asynccontextmanager
        async def part(*_: Any) -> AsyncIterator[None]:
            with self.part(name):
                yield

        return part


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps()

    class Clients:
        def __init__(self, *_: Any) -> None:
            self._part = steps.asynchronous("clients")()

        async def __aenter__(self) -> None:
            await self._part.__aenter__()

        async def __aexit__(self, *raised: Any) -> None:
            await self._part.__aexit__(*raised)

        def on_retry(self, callback: object) -> None:
            pass

        async def roles(self, _: Any) -> dict[str, Any]:
            if steps.failing == "roles":
                raise OSError("roles")
            return {}

    monkeypatch.setattr(runtime, "Clients", Clients)
    monkeypatch.setattr(runtime, "AnswerChecker", steps.asynchronous("checker"))
    monkeypatch.setattr(runtime, "rare_collections", lambda: steps.part("garbage"))
    monkeypatch.setattr(runtime, "ray_cluster", lambda _: steps.part("ray"))
    monkeypatch.setattr(runtime, "own_servers", steps.asynchronous("servers"))
    return steps


def settings(base_url: str = "http://127.0.0.1:9/v1", **given: Any) -> RunSettings:
    return RunSettings(model=team.model(base_url), method=team.method(), **given)


async def test_parts_are_closed_in_the_reverse_order(steps: Steps, tmp_path: Path):
    on_ray = settings(ray={"workers": 1})
    async with open_runtime(on_ray, tmp_path, Activity(), files=1):
        assert steps.seen == [f"open {part}" for part in ALL]
    assert steps.seen[len(ALL) :] == [f"close {part}" for part in reversed(ALL)]


async def test_ray_is_left_alone_by_a_run_in_one_process(steps: Steps, tmp_path: Path):
    async with open_runtime(settings(), tmp_path, Activity(), files=1):
        assert steps.seen == [f"open {part}" for part in ALL if part != "ray"]


@pytest.mark.parametrize("failing", [*ALL, "roles"])
async def test_a_part_that_fails_closes_those_before_it(steps: Steps, tmp_path: Path, failing: str):
    steps.failing = failing
    with pytest.raises(OSError, match=failing):
        async with open_runtime(settings(ray={"workers": 1}), tmp_path, Activity(), files=1):
            pytest.fail("it is open")
    before = [*ALL, "roles"][: [*ALL, "roles"].index(failing)]
    assert steps.seen == [f"open {part}" for part in before] + [f"close {part}" for part in reversed(before)]


async def test_an_error_in_the_block_closes_all(steps: Steps, tmp_path: Path):
    with pytest.raises(RuntimeError, match="in the block"):
        async with open_runtime(settings(), tmp_path, Activity(), files=1):
            raise RuntimeError("in the block")
    assert steps.seen[-1] == "close clients"
    assert len(steps.seen) == 2 * (len(ALL) - 1)


async def test_shared_servers_are_used_and_left_running(steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    used: list[tuple[str, ...]] = []
    monkeypatch.setattr(Runtime, "use_servers", lambda self, base_urls: used.append(base_urls))

    class Shared:
        key = "the shared key"

        async def base_urls(self, *_: Any) -> tuple[str, ...]:
            return ("http://shared/v1",)

    async with open_runtime(settings(), tmp_path, Activity(), 1, Shared()) as opened:  # type: ignore[arg-type]
        assert opened.key == "the shared key"
    assert used == [("http://shared/v1",)]
    assert not any("servers" in step for step in steps.seen)


async def test_runs_of_one_runtime_have_their_own_state_and_share_its_slots(tmp_path: Path):
    before = gc.get_threshold()
    async with ScriptedServer(team.reply) as server:
        given = settings(server.base_url, concurrency=100)
        async with open_runtime(given, tmp_path, Activity(), files=7) as opened:
            assert gc.get_threshold() == RARE
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 100 + 7 + SPARE
            activities = [Activity(), Activity()]
            solvers = [
                await opened.solver(given.model_copy(update={"seed": seed}), tmp_path / str(seed), activities[seed])
                for seed in (0, 1)
            ]
            results = [await solver.solve(0, team.problems(1)[0]) for solver in solvers]
    assert [solver.state.seed for solver in solvers] == [0, 1]
    assert solvers[0].state.limiter is solvers[1].state.limiter is opened.limiter
    assert solvers[0].state.budget is not solvers[1].state.budget
    assert [activity.calls > 0 for activity in activities] == [True, True]
    assert all(result.answer is not None for result in results)
    assert all(len(list((tmp_path / str(seed) / "trace").iterdir())) == 1 for seed in (0, 1))
    assert gc.get_threshold() == before
