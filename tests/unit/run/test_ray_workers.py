"""How the run's process shares problems among workers; with actors that are no processes (real ones: test_ray.py)."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the cpu or gpu extra")

from ray.exceptions import RayActorError, RayTaskError

from tests.support.waiting import LIMIT, until, until_held_back
from tmas.concurrency import PriorityLimiter
from tmas.engines.ray_cluster import ClusterFailed
from tmas.errors import UserError
from tmas.files import digest
from tmas.records import BankChange, Problem
from tmas.run import ray_workers as workers
from tmas.run.activity import Activity, RoleActivity
from tmas.run.heartbeats import HeartbeatReply
from tmas.run.rounds import recent_changes
from tmas.run.runtime import Runtime
from tmas.settings import Limits, RaySettings, RunSettings
from tmas.testing import team
from tmas.testing.chat_server import Body, ScriptedServer

CANARY = "sk-canary-5142"


class Method:
    """An actor's method, as it is called from outside."""

    def __init__(self, function: Any) -> None:
        self.remote = function


class Actor:
    """Solves after a moment. ``dead``: it has died, but no heartbeat has shown it yet. ``restarted``: it has restarted,
    and no heartbeat has shown it yet. ``errors``: raised by the first calls of ``solve``, in order."""

    def __init__(self, dead: bool = False, restarted: bool = False, errors: Sequence[Exception] = ()) -> None:
        self.solved: Counter[str] = Counter()
        self.dead, self.restarted, self.errors = dead, restarted, iter(errors)
        self.ping, self.solve = Method(self._ping), Method(self._solve)

    async def _ping(self) -> bool:
        await asyncio.sleep(0)
        if self.dead:
            raise RayActorError
        return not self.restarted

    async def _solve(self, order: int, problem: Problem, allowance: object = None) -> Any:
        await asyncio.sleep(0.01)
        for error in self.errors:
            raise error
        self.solved[problem.problem_id] += 1
        return SimpleNamespace(usage=[])


def worker_pool(monkeypatch: pytest.MonkeyPatch, actors: list[Actor], responsive: bool = True) -> workers.WorkerPool:
    monkeypatch.setattr(workers, "_start_actors", lambda *_: actors)
    settings = SimpleNamespace(concurrency=10, role_models=dict)
    runtime = SimpleNamespace(settings=settings, base_urls=(), key="")
    pool = workers.WorkerPool(runtime, SimpleNamespace(directory=Path("nowhere"), state=SimpleNamespace(shares=None)))  # type: ignore[arg-type]
    for worker in pool.workers:
        worker.is_responsive = responsive
    return pool


async def test_problems_that_come_at_once_are_shared_evenly(monkeypatch: pytest.MonkeyPatch):
    actors = [Actor() for _ in range(3)]
    pool = worker_pool(monkeypatch, actors)
    await asyncio.gather(*(pool.solve(order, problem) for order, problem in enumerate(team.problems(6))))
    assert [actor.solved.total() for actor in actors] == [2, 2, 2]


@pytest.mark.parametrize("lost", [{"dead": True}, {"restarted": True}])
async def test_one_that_is_not_ready_gets_none_and_its_share_goes_to_the_others(
    monkeypatch: pytest.MonkeyPatch, lost: dict[str, Any]
):
    actors = [Actor(), Actor(**lost), Actor()]
    pool = worker_pool(monkeypatch, actors)
    await asyncio.gather(*(pool.solve(order, problem) for order, problem in enumerate(team.problems(6))))
    assert [actor.solved.total() for actor in actors] == [3, 0, 3]


async def test_a_worker_out_of_reach_that_keeps_a_trace_to_itself_is_killed(monkeypatch: pytest.MonkeyPatch):
    killed: list[Actor] = []
    monkeypatch.setattr(workers.ray, "kill", lambda actor, no_restart: killed.append(actor))
    held = RayTaskError("solve", "", BlockingIOError("another process still writes"))
    actors = [Actor(errors=[RayActorError()]), Actor(errors=[held])]
    pool = worker_pool(monkeypatch, actors)
    await pool.solve(0, team.problems(1)[0])
    assert killed == [actors[0]]
    assert actors[1].solved == {"p0": 1}


async def test_a_trace_that_another_run_has_ends_this_one(monkeypatch: pytest.MonkeyPatch):
    held = RayTaskError("solve", "", BlockingIOError("another process still writes"))
    pool = worker_pool(monkeypatch, [Actor(errors=[held])])
    with pytest.raises(BlockingIOError):
        await pool.solve(0, team.problems(1)[0])


async def test_slots_of_one_worker_go_to_another_only_after_a_heartbeat_has_taken_them_away(
    monkeypatch: pytest.MonkeyPatch,
):
    pool = worker_pool(monkeypatch, [Actor(), Actor()])
    one, other = pool.workers
    one.reply = workers.HeartbeatReply("a", in_use=10, demand=10)
    assert pool._heartbeat_request(one).slots == 10
    one.reply = workers.HeartbeatReply("a", in_use=0, demand=0)  # it may have started ten more since then
    other.reply = workers.HeartbeatReply("b", in_use=0, demand=10)
    assert pool._heartbeat_request(other).slots == 0
    assert pool._heartbeat_request(one).slots == 0
    assert pool._heartbeat_request(other).slots == 10


async def test_a_run_without_any_worker_stops_after_a_while(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "NO_WORKER_TIMEOUT", 0.05)
    monkeypatch.setattr(workers, "HEARTBEAT_INTERVAL", 0.02)
    pool = worker_pool(monkeypatch, [Actor()], responsive=False)
    with pytest.raises(ClusterFailed, match="no worker has answered"):
        await pool.solve(0, team.problems(1)[0])


async def test_a_monitor_can_be_stopped_while_a_heartbeat_is_answered(monkeypatch: pytest.MonkeyPatch):
    """In Python 3.11, ``asyncio.wait_for`` loses a cancellation that comes together with the result."""
    answered: asyncio.Future[HeartbeatReply] = asyncio.get_running_loop().create_future()
    actor = SimpleNamespace(heartbeat=Method(lambda request: answered))
    pool = worker_pool(monkeypatch, [actor])  # type: ignore[list-item]
    monkeypatch.setattr(pool, "_heartbeat_request", lambda worker: None)
    monitor = asyncio.create_task(pool.monitor(pool.workers[0]))
    await asyncio.sleep(0)
    answered.set_result(HeartbeatReply())
    monitor.cancel()
    done, _ = await asyncio.wait([monitor], timeout=LIMIT)
    assert done
    assert monitor.cancelled()


async def test_keys_travel_in_heartbeats_and_neither_in_constructors_nor_in_runtime_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ray keeps the arguments of a constructor in its control store, and writes a runtime environment to a log."""
    options: list[Any] = []
    constructed: list[Any] = []

    def with_options(**given: Any) -> SimpleNamespace:
        options.append(given)
        return SimpleNamespace(remote=lambda *arguments: constructed.append(arguments))

    monkeypatch.setattr(workers.ray, "remote", lambda _: SimpleNamespace(options=with_options))
    monkeypatch.setattr(workers.ray, "nodes", lambda: [{"NodeID": "a" * 56, "Alive": True}])
    monkeypatch.setattr(workers.ray.util, "get_node_ip_address", lambda: "here")
    monkeypatch.setenv("MY_KEY", CANARY)
    (tmp_path / "manifest.json").write_text('{"schema_version": 1, "chat_template": "counted"}')
    async with ScriptedServer(team.reply, key=CANARY) as server:
        given = {"model": team.model(server.base_url, api_key_env="MY_KEY"), "method": team.method()}
        runtime = Runtime(RunSettings.model_validate(given), f"{CANARY}-own", files=1)
        pool = workers.WorkerPool(runtime, SimpleNamespace(directory=tmp_path, state=SimpleNamespace(shares=None)))  # type: ignore[arg-type]
        request = pool._heartbeat_request(pool.workers[0])
        assert CANARY.encode() not in pickle.dumps((options, constructed))
        assert CANARY not in repr(request)
        monkeypatch.delenv("MY_KEY")
        worker = workers.RayWorker(*constructed[0])
        await worker.heartbeat(request)
        assert worker._startup
        opened, solver = await worker._startup
        async with contextlib.aclosing(opened):
            assert opened.key == f"{CANARY}-own"
            result = await solver.solve(0, team.problems(1)[0])
    assert result.answer


class Remote:
    """An actor that is a :class:`RayWorker` of this process, so that heartbeats do what they do."""

    def __init__(self, worker: workers.RayWorker) -> None:
        self.heartbeat, self.ping, self.solve = Method(worker.heartbeat), Method(worker.ping), Method(worker.solve)


@pytest.fixture
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers_as_text: None) -> Path:
    """A run directory in which workers of this process can start."""
    monkeypatch.setattr(workers.ray.util, "get_node_ip_address", lambda: "here")
    (tmp_path / "manifest.json").write_text('{"schema_version": 1, "chat_template": "counted"}')
    return tmp_path


@contextlib.asynccontextmanager
async def started(
    server: ScriptedServer, directory: Path, **method: Any
) -> AsyncIterator[Callable[..., Awaitable[workers.RayWorker]]]:
    """A function that creates a worker, sends it the given heartbeats, and waits until it has started."""
    settings = RunSettings(model=team.model(server.base_url), method=team.method(**method), ray=RaySettings(workers=2))
    async with contextlib.AsyncExitStack() as stack:

        async def start(*requests: workers.HeartbeatRequest) -> workers.RayWorker:
            worker = workers.RayWorker(settings, directory, digest(settings.prompts.hashes()))
            for request in requests:
                await worker.heartbeat(request)
            assert worker._startup
            runtime, _ = await worker._startup
            await stack.enter_async_context(contextlib.aclosing(runtime))
            return worker

        yield start


def limiter(worker: workers.RayWorker) -> PriorityLimiter:
    assert worker._startup
    return worker._startup.result()[0].limiter


async def test_pause_slots_and_budget_reach_a_worker_with_its_heartbeat(run_directory: Path):
    async with ScriptedServer(team.reply) as server, started(server, run_directory) as start:
        worker = await start(workers.HeartbeatRequest(5, (), is_paused=True))
        running = asyncio.create_task(worker.solve(0, team.problems(1)[0]))
        await until_held_back(limiter(worker))
        assert server.requests == []
        limited = workers.HeartbeatRequest(5, (), is_paused=True, limits=Limits(tokens_per_run=2000))
        await worker.heartbeat(limited)
        assert worker._limits_change
        await worker._limits_change
        reply = await worker.heartbeat(replace(limited, is_paused=False))
        assert reply.limits == limited.limits
        result = await running
        assert result.trajectory.stop == "budget"
        raised = workers.HeartbeatRequest(5, (), limits=Limits(tokens_per_run=10**6))
        reply = await worker.heartbeat(raised)
        assert (reply.limits, reply.budget.exhausted) == (limited.limits, True)


async def test_a_failed_change_of_the_budget_is_an_error_of_the_command_and_the_next_one_works(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(workers, "HEARTBEAT_INTERVAL", 0.01)
    async with ScriptedServer(team.reply) as server, started(server, run_directory) as start:
        worker = await start(workers.HeartbeatRequest(5, ()))
        pool = worker_pool(monkeypatch, [Remote(worker)])  # type: ignore[list-item]
        pool._solver.state = SimpleNamespace(activity=Activity(), limits=Limits())  # type: ignore[misc]
        monitor = asyncio.create_task(pool.monitor(pool.workers[0]))
        assert worker._startup
        solver = worker._startup.result()[1]
        attempts: list[int] = []

        async def fail_once() -> None:
            attempts.append(1)
            if len(attempts) == 1:
                raise OSError(5, "Input/output error", "trace/p0.jsonl")

        monkeypatch.setattr(type(solver), "count_earlier_starts", lambda _: fail_once())
        with pytest.raises(UserError, match=r"could not change the limits: .*Input/output error: 'trace/p0.jsonl'"):
            await asyncio.wait_for(pool.limit(Limits(tokens_per_run=2000)), LIMIT)
        assert (solver.state.limits, pool._solver.state.limits, pool._limits) == (Limits(), Limits(), Limits())
        await asyncio.wait_for(pool.limit(Limits(tokens_per_run=3000)), LIMIT)
        assert solver.state.limits == pool._solver.state.limits == Limits(tokens_per_run=3000)
        monitor.cancel()


async def test_a_pause_is_answered_when_every_worker_has_it(run_directory: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "HEARTBEAT_INTERVAL", 0.01)
    go, stop = workers.HeartbeatRequest(5, ()), workers.HeartbeatRequest(5, (), is_paused=True)
    async with ScriptedServer(team.reply) as server, started(server, run_directory) as start:
        assert limiter(await start(go, stop))._is_paused  # it came while the worker was starting
        both = [await start(go), await start(go)]
        pool = worker_pool(monkeypatch, [Remote(worker) for worker in both])  # type: ignore[misc]
        pool._solver.state = SimpleNamespace(activity=Activity(), limits=Limits())  # type: ignore[misc]
        monitors = [asyncio.create_task(pool.monitor(worker)) for worker in pool.workers]
        await pool.pause(True)
        assert [limiter(worker)._is_paused for worker in both] == [True, True]
        running = [asyncio.create_task(pool.solve(order, problem)) for order, problem in enumerate(team.problems(2))]
        await until_held_back(*map(limiter, both))
        assert server.requests == []
        await pool.pause(False)
        assert [limiter(worker)._is_paused for worker in both] == [False, False]
        assert all(await asyncio.gather(*running))
        for monitor in monitors:
            monitor.cancel()


async def test_a_problem_that_another_worker_solves_again_is_counted_once(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch
):
    def reply(body: Body) -> list[str]:  # no guideline can be read
        return ["?"] * body.get("n", 1) if team.role_of(body) == "guideline" else team.reply(body)

    problem = team.problems(1)[0]
    go, stop = workers.HeartbeatRequest(5, ()), workers.HeartbeatRequest(5, (), is_paused=True)
    async with ScriptedServer(reply) as server, started(server, run_directory, max_iterations=9) as start:
        pool = worker_pool(monkeypatch, [Actor(), Actor()])
        pool._solver.state = SimpleNamespace(activity=Activity())  # type: ignore[misc]
        total = pool._solver.state.activity
        first = await start(go)
        running = asyncio.create_task(first.solve(0, problem))
        await until(lambda: len(first._activity.bank_changes) > 1)
        await first.heartbeat(stop)
        await until(lambda: first._activity.in_flight == 0)
        await until(lambda: first._activity.calls == len(team.recorded_calls(run_directory)))  # all are on disk
        pool.workers[0].is_responsive, pool.workers[0].reply = True, await first.heartbeat(stop)
        pool._activities["first"] = copy.deepcopy(first._activity)
        pool.workers[0].reply = replace(pool.workers[0].reply, activity=pool._activities["first"])
        pool._update_activity()
        shown = total.failures, total.bank_changes
        assert shown[0]["p0"]["unparsable"] > 1
        assert len(shown[1]) > 1
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        pool.workers[0].mark_lost()
        second = await start(stop)  # it answers the recorded calls, and makes no other
        running = asyncio.create_task(second.solve(0, problem))
        await until(lambda: second._activity.failures == shown[0])
        pool.workers[1].reply = await second.heartbeat(stop)
        pool._activities["second"] = second._activity
        pool._update_activity()
        assert (total.failures, total.bank_changes) == shown
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_run_s_process_sends_changes_and_adds_up_roles_failures_and_bank_changes(
    monkeypatch: pytest.MonkeyPatch,
):
    pool = worker_pool(monkeypatch, [Actor(), Actor()])
    state = SimpleNamespace(activity=Activity(), limits=Limits())
    pool._solver = SimpleNamespace(state=state)  # type: ignore[assignment]
    pool.resize(4)
    for worker in pool.workers:
        worker.reply = workers.HeartbeatReply("x", is_paused=True)
    await pool.pause(True)
    request = pool._heartbeat_request(pool.workers[0])
    assert (request.slots, request.is_paused) == (2, True)
    changing = asyncio.create_task(pool.limit(Limits(tokens_per_run=7)))
    await asyncio.sleep(0)
    assert pool._heartbeat_request(pool.workers[0]).limits == Limits(tokens_per_run=7)
    for number, worker in enumerate(pool.workers):
        activity = Activity(
            roles={"summary": RoleActivity(in_flight=1, calls=2, tokens=30)},
            failures={f"p{number}": Counter(truncated=1)},
            cost=2,
            bank_changes=recent_changes(f"p{number}", 0, (1, 0), (BankChange(), None), now=10.0 - number),
        )
        worker.reply = workers.HeartbeatReply("x", activity=activity, limits=Limits(tokens_per_run=7))
        pool._activities[str(number)] = activity
    await changing
    assert state.limits == Limits(tokens_per_run=7)
    pool._update_activity()
    assert state.activity.roles == {"summary": RoleActivity(in_flight=2, calls=4, tokens=60)}
    assert state.activity.failures == {"p0": Counter(truncated=1), "p1": Counter(truncated=1)}
    assert state.activity.cost == 4
    assert [change.problem_id for change in state.activity.bank_changes] == ["p1", "p0"]
