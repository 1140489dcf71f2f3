"""Real Ray with several nodes on one machine: what may die during a run, and what must hold afterwards.

The engines are the scripted team in vLLM's place (tests/support/vllm_stand_in), with logs of their own: so replies are
known, time passes quickly, and what was asked can be counted. Real vLLM on Ray: test_replicas_vllm.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.ray_nodes import RayNodes, ray_nodes
from tests.support.waiting import LIMIT, wait_until
from tmas import asolve_all
from tmas.engines.ray_cluster import LOOPBACK
from tmas.files import read_lines
from tmas.records.live import LimitChanges
from tmas.run.status import change_limits, live_status
from tmas.testing import team
from tmas.testing.chat_server import ScriptedServer
from tmas.testing.team import essence

pytest.importorskip("ray", reason="needs the cpu or gpu extra")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
STAND_IN = ROOT / "tests/support/vllm_stand_in"
PROBLEMS = 6  # with fewer, a worker that is to be killed in the middle of its calls may have none


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with ray_nodes(3) as started:
        yield started


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What an uninterrupted run in one process comes to."""
    run = tmp_path_factory.mktemp("whole") / "run"

    async def solve() -> None:
        async with ScriptedServer(team.reply) as server:
            model = team.model(server.base_url)
            await asolve_all(team.problems(PROBLEMS), model, team.method(), output_dir=run)

    asyncio.run(solve())
    return essence(run)


@dataclass
class Launch:
    """A `tmas solve` on the cluster. ``engines``: what the stand-ins are told; ``more``: further settings."""

    folder: Path
    nodes: RayNodes
    engines: dict[str, Any] = field(default_factory=dict)
    more: tuple[str, ...] = ()
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.run, self.logs = self.folder / "run", self.folder / "logs"
        self.logs.mkdir(exist_ok=True)
        problems = [p.model_dump(exclude_none=True) for p in team.problems(PROBLEMS)]
        (self.folder / "problems.jsonl").write_text("".join(f"{json.dumps(p)}\n" for p in problems))

    def start(self) -> subprocess.Popen[str]:
        told = json.dumps({"log": str(self.logs), **self.engines})
        settings = [
            *("problems=problems.jsonl", "output_dir=run", "serving=vllm"),  # as from a folder where no Ray node is
            *(f"model.path={ROOT}", "model.name=scripted", "model.context_length=100000", "model.tokenizer=estimate"),
            *("model.sampling.max_tokens=1000", "model.patience.backoff_base=0.01"),
            *patience(LIMIT, LIMIT),  # a busy machine is slow, and a call that is given up is made again
            *(f"method.{name}={value}" for name, value in team.SMALL["tmas"].items()),
            *(f"ray.address={self.nodes.address}", "serving.replicas=2"),
            f"++serving.env.PYTHONPATH='{STAND_IN}:{ROOT}'",
            f"++serving.env.STAND_IN='{told}'",
        ]
        driver = subprocess.Popen(
            [sys.executable, "-m", "tmas.cli", "solve", *settings, *self.more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env={**os.environ, **LOOPBACK},  # Ray takes 127.0.0.1 for another address without it
            text=True,
        )
        self.drivers.append(driver)
        return driver

    def finish(self, driver: subprocess.Popen[str] | None = None, code: int = 0) -> str:
        """What it printed."""
        driver = driver or self.start()
        printed, _ = driver.communicate(timeout=LIMIT)
        assert driver.returncode == code, printed
        return printed

    def recorded(self) -> Counter[int]:
        """How often each call stands in the traces, by the seed of its request: no two calls of a run share one."""
        return Counter(entry["request"]["seed"] for entry in team.recorded_calls(self.run).values())

    def asked(self, state: str = "begun") -> Counter[int]:
        """How often each call came to an engine, or ended there in ``state``, as the engines' own logs have it."""
        lines = [json.loads(line) for file in self.logs.glob("*.jsonl") for line in file.read_text().splitlines()]
        return Counter(line["seed"] for line in lines if line["state"] == state)

    def settled(self) -> dict[int, int]:
        """How often each call that stands in the traces was asked."""
        recorded, asked = self.recorded(), self.asked()
        return {call: asked[call] for call in recorded}

    def until_recorded(self, calls: int) -> None:
        wait_until(lambda: self.run.joinpath("trace").is_dir() and self.recorded().total() >= calls)

    @contextmanager
    def held(self) -> Iterator[Counter[int]]:
        """No engine answers meanwhile, and all open problems have calls under way; yields what is recorded by then."""
        (self.logs / "held").touch()
        begun = -1
        while begun < (begun := self.asked().total()):
            time.sleep(0.5)
        try:
            yield self.recorded()
        finally:
            (self.logs / "held").unlink()


@pytest.fixture
def launch(tmp_path: Path, nodes: RayNodes) -> Iterator[Launch]:
    launch = Launch(tmp_path, nodes, {"seconds": 0.4})
    yield launch
    for driver in launch.drivers:  # a test that failed leaves none to the next
        driver.kill()
        driver.wait()


def patience(first_token: float, idle: float) -> tuple[str, ...]:
    """Settings: the seconds without a first text, and between two, after which a call is given up and made again."""
    return f"model.patience.first_token_timeout={first_token}", f"model.patience.idle_timeout={idle}"


def kill(pids: list[int]) -> None:
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def holds(launch: Launch, whole: list[dict[str, Any]], before: Mapping[int, int]) -> None:
    """Every problem has the outcome of an uninterrupted run; no call is lost, none that was recorded made again.

    ``before``: how often each call that was recorded in time had been asked by then.
    """
    assert essence(launch.run) == whole
    recorded, asked = launch.recorded(), launch.asked()
    assert set(recorded.values()) == {1}
    assert recorded.keys() == asked.keys() >= launch.asked("finished").keys()
    assert {call: asked[call] for call in before} == before


def is_idle(launch: Launch) -> bool:
    """Whether no call is in flight, and all calls that were made are counted."""
    status = live_status(launch.run)
    return status.in_flight == 0 and status.calls == launch.recorded().total()


def test_two_workers_two_engines_nothing_dies(launch: Launch, whole: list[dict[str, Any]]):
    driver = launch.start()
    launch.until_recorded(1)
    assert [len(launch.nodes.processes("ray::RayWorker", node)) for node in range(3)] == [1, 1, 1]
    status = change_limits(launch.run, LimitChanges(pause=True, concurrency=100))
    assert (status.state, status.concurrency) == ("paused", 100)
    wait_until(lambda: is_idle(launch))  # a worker without the pause would have calls in flight until the run ends
    assert live_status(launch.run).finished < PROBLEMS
    assert change_limits(launch.run, LimitChanges(pause=False)).state == "running"
    printed = launch.finish(driver)
    holds(launch, whole, launch.recorded())
    # Each call was made once. The engines are killed at the end, and may not have logged the end of the last one.
    assert launch.asked() == launch.recorded()
    assert len(list(launch.logs.glob("*.jsonl"))) == 2
    assert re.search(
        rf"\ball\W+{launch.recorded().total():,}\W", printed
    )  # the table of tokens by role counts all calls


def test_the_driver_is_killed_and_after_it_a_worker_an_engine_and_a_node(launch: Launch, whole: list[dict[str, Any]]):
    """All in one run, for the starts of drivers, workers and engines take most of the time."""
    driver = launch.start()
    launch.until_recorded(30)
    driver.kill()
    driver.wait()
    wait_until(lambda: not launch.nodes.processes("ray::RayWorker"))  # nothing of a dead run works on
    wait_until(lambda: not launch.nodes.processes("vllm.entrypoints.cli.main serve"))
    before = launch.settled()

    aborted, driver = launch.asked("aborted").total(), launch.start()
    launch.until_recorded(len(before) + 20)
    with launch.held():
        before = launch.settled() | before
        kill(launch.nodes.processes("ray::RayWorker")[:1])
        wait_until(lambda: launch.asked("aborted").total() > aborted)  # another worker asks again for what it had

    launch.until_recorded(len(before) + 20)
    engines = len(list(launch.logs.glob("*.jsonl")))
    kill(launch.nodes.processes("vllm.entrypoints.cli.main serve")[:1])
    with launch.held():  # the other one could end the run before it is there again
        before = launch.settled() | before
        wait_until(lambda: len(list(launch.logs.glob("*.jsonl"))) > engines)

    launch.until_recorded(len(before) + 20)
    with launch.held():  # a worker that was killed may not be there again yet
        wait_until(lambda: launch.nodes.processes("ray::RayWorker", 2))
        before = launch.settled() | before
        launch.nodes.kill(2)
    launch.finish(driver)
    launch.nodes.add()
    holds(launch, whole, before)


@pytest.mark.slow
def test_engines_that_never_start_end_the_run_which_goes_on_when_they_do(launch: Launch, whole: list[dict[str, Any]]):
    launch.engines["broken"] = True
    printed = launch.finish(code=3)
    assert "STAND_IN has broken=true" in printed
    assert not launch.asked()
    launch.engines["broken"] = False
    launch.finish()
    holds(launch, whole, launch.recorded())


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_and_its_problems_go_to_others(launch: Launch, whole: list[dict[str, Any]]):
    driver = launch.start()
    launch.until_recorded(40)
    hung = launch.nodes.processes("ray::RayWorker")[0]
    with launch.held() as before:
        os.kill(hung, signal.SIGSTOP)
    launch.finish(driver)
    holds(launch, whole, before)
    wait_until(lambda: hung not in launch.nodes.processes(""))


@pytest.mark.slow
def test_an_engine_ten_times_slower_than_the_other(launch: Launch, whole: list[dict[str, Any]]):
    launch.engines["slow"] = 10
    launch.finish()
    holds(launch, whole, launch.recorded())


def test_a_fifth_of_the_answers_comes_to_grief(launch: Launch, whole: list[dict[str, Any]]):
    launch.engines = {"seconds": 0.05, "faulty": 0.2}
    launch.more = patience(10, 3)  # some of the faults are replies that hang
    launch.finish()
    assert essence(launch.run) == whole
    assert set(launch.recorded().values()) == {1}
    assert launch.asked().total() > launch.recorded().total()


@pytest.mark.slow
def test_the_disk_is_full_for_a_while(launch: Launch, whole: list[dict[str, Any]]):
    launch.run.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", launch.run], check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    try:
        printed = launch.finish(code=3)
        assert "No space left on device" in printed
        assert "run/" in printed
        before = launch.recorded()
        subprocess.run(["mount", "-o", "remount,size=100m", launch.run], check=True)
        launch.finish()
        holds(launch, whole, before)
    finally:
        subprocess.run(["umount", "-l", launch.run], check=True)


@pytest.mark.slow
def test_two_drivers_on_one_directory(launch: Launch, whole: list[dict[str, Any]]):
    driver = launch.start()
    launch.until_recorded(1)
    printed = launch.finish(code=2)
    assert "in use by another run" in printed
    launch.finish(driver)
    holds(launch, whole, launch.recorded())


@pytest.mark.slow
def test_a_problem_over_which_workers_die_is_listed_and_tried_again(launch: Launch, whole: list[dict[str, Any]]):
    launch.engines["seconds"] = 1000  # so that no call ends
    driver, drafts = launch.start(), PROBLEMS * team.SMALL["tmas"]["n_candidates"]
    for asked in (drafts, 2 * drafts, 3 * drafts):
        wait_until(lambda: launch.asked().total() >= asked)  # noqa: B023 - called before it changes
        kill(launch.nodes.processes("ray::RayWorker"))
    launch.finish(driver)
    lines = list(read_lines(launch.run / "predictions.jsonl"))
    assert {line["stop"] for line in lines} == {"worker"}
    assert {line["reason"] for line in read_lines(launch.run / "failures.jsonl")} == {"worker"}
    launch.engines["seconds"] = 0.05
    launch.finish()
    assert essence(launch.run) == whole
