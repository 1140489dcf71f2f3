"""The Ray workers of a run: starts the actors, and assigns problems and slots to them. Ray restarts an actor that died.

The run's own process keeps the queue of problems and gives each problem to the least busy worker. When a worker dies,
another worker solves its problems and answers the finished calls from their traces. Therefore ``directory`` must be on
storage that all nodes share.

API keys travel only in the heartbeats. Ray sends the arguments of a method directly to the actor's process. It keeps
the arguments of a constructor in its control store, and the variables of a runtime environment in a log file, too.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tmas.concurrency import divide_slots, first_cause
from tmas.engines.ray_cluster import ClusterFailed
from tmas.errors import UserError
from tmas.files import digest
from tmas.records import Problem, Result
from tmas.redaction import clean_logger
from tmas.run.activity import Activity
from tmas.run.control import BudgetUse
from tmas.run.heartbeats import HeartbeatReply, HeartbeatRequest
from tmas.run.ray_actor import RayWorker
from tmas.run.rounds import add_up_details
from tmas.run.runtime import Runtime
from tmas.run.share_messages import ShareDesk
from tmas.run.shares import Amount, Shares
from tmas.run.solver import ProblemSolver
from tmas.run.trace import trace_path
from tmas.settings import Limits

log = clean_logger(__name__)

HEARTBEAT_INTERVAL = 1.0
"""Seconds between two heartbeats of a worker."""
HEARTBEAT_TIMEOUT = 60.0
"""Kill a worker that has not answered a heartbeat after this many seconds."""
STARTUP_WAIT = 60.0
"""Seconds to wait for all workers to start. After that, the first problems go to the workers that have started."""
PAUSE_WAIT = 30.0
"""Seconds to wait until all workers have confirmed a pause or its end. They do so with their next heartbeat."""
NO_WORKER_TIMEOUT = 600.0
"""Stop the run after this many seconds without any responsive worker."""
MAX_DEATHS = 3
"""Give up on a problem after this many consecutive worker deaths without a finished call."""


@dataclass(eq=False)
class _WorkerState:
    """One worker, as seen by the run's own process.

    ``open_problems``: number of problems that were assigned to it and are not solved yet. ``given_slots``: slots that
    the last heartbeat gave to it. ``budget``: what it last reported, also while it starts again after a death.
    """

    actor: Any
    open_problems: int = 0
    is_responsive: bool = False
    reply: HeartbeatReply = field(default_factory=HeartbeatReply)
    given_slots: int = 0
    budget: BudgetUse = field(default_factory=BudgetUse)

    @property
    def reserved(self) -> int:
        """Slots that it uses, or may use without another heartbeat."""
        return max(self.reply.in_use, self.given_slots)

    def mark_lost(self) -> None:
        """Assign nothing to it until its next heartbeat, and free its slots."""
        self.is_responsive, self.reply, self.given_slots = False, HeartbeatReply(), 0

    async def is_reachable(self) -> bool:
        """Ask the actor now. A worker may have died since its last heartbeat.

        Such a death came before the problem was assigned, so it does not count against the problem.
        """
        try:
            self.is_responsive = await self.actor.ping.remote() and self.is_responsive
        except RayActorError:
            self.mark_lost()
        return self.is_responsive

    async def solve(self, order: int, problem: Problem, allowance: Amount | None) -> Result:
        try:
            result = await self.actor.solve.remote(order, problem, allowance)
        except RayTaskError as error:
            raise error.cause from None
        except RayActorError:
            self.mark_lost()
            raise
        self.reply.activity.failures.pop(problem.problem_id, None)  # the result contains them
        return result


class WorkerPool:
    """Assigns problems and slots to workers. ``runtime`` and ``solver`` belong to the run's own process."""

    def __init__(self, runtime: Runtime, solver: ProblemSolver) -> None:
        self._runtime, self._solver = runtime, solver
        self.workers = [_WorkerState(actor) for actor in _start_actors(runtime, solver.directory)]
        names = {model.api_key_env for model in runtime.settings.role_models().values() if model.api_key_env}
        self._environment = {name: os.environ[name] for name in names}
        self._activities: dict[str, Activity] = {}
        self._budgets: dict[str, BudgetUse] = {}
        shares = solver.state.shares
        self._shares = shares if isinstance(shares, Shares) and shares.is_strict else None
        self._desk = ShareDesk(self._shares) if self._shares else None
        self._slots, self._is_paused, self._limits = runtime.settings.concurrency, False, None
        self._last_reply = time.monotonic()

    async def solve(self, order: int, problem: Problem) -> Result:
        """Like :meth:`tmas.run.solver.ProblemSolver.solve`, on a worker.

        If the worker dies, another one solves the problem. After :data:`MAX_DEATHS` deaths without a finished call in
        between, the problem fails.
        """
        deaths, size, last_dead = 0, -1, None
        while deaths < MAX_DEATHS:
            worker = await self._least_busy()
            worker.open_problems += 1
            try:
                if not await worker.is_reachable():
                    continue
                allowance = self._shares.begin(problem.problem_id) if self._shares else None
                return await worker.solve(order, problem, allowance)
            except RayActorError:
                new_size = _file_size(trace_path(self._solver.directory, problem.problem_id))
                deaths = 1 if new_size > size else deaths + 1
                size, last_dead = new_size, worker
            except BlockingIOError:
                if last_dead is None:
                    raise
                # The worker was only unreachable for a moment. It is alive and holds the lock of the trace.
                ray.kill(last_dead.actor, no_restart=False)
                last_dead = None
            finally:
                worker.open_problems -= 1
        reason = f"{MAX_DEATHS} workers died, one after the other"
        return await self._solver.solve(order, problem, give_up_reason=reason)

    def resize(self, slots: int) -> None:
        """Allow this number of completions in flight, over all workers, from their next heartbeats on."""
        self._slots = slots

    async def pause(self, paused: bool) -> None:
        """Start no new call while paused. Waits until all workers that answer have confirmed it."""
        self._is_paused = paused
        deadline = time.monotonic() + PAUSE_WAIT
        while any(worker.is_responsive and worker.reply.is_paused != paused for worker in self.workers):
            if time.monotonic() > deadline:
                log.warning("no confirmation of pause=%s from a worker within %.0f s", paused, PAUSE_WAIT)
                return
            await asyncio.sleep(HEARTBEAT_INTERVAL / 10)

    async def limit(self, limits: Limits) -> None:
        """Change the budgets of the run, and wait until the worker has them.

        Only called with one worker: budgets that are divided between problems cannot be changed live. Raises
        ``UserError`` if the worker reports an error, or if the budget is used up.
        """
        self._limits = limits
        while any(worker.reply.limits != limits for worker in self.workers):
            if self.budget_use.exhausted:
                self._limits = self._solver.state.limits
                raise UserError("the budget of the run is used up, and the run is ending")
            for worker in self.workers:
                if error := worker.reply.limits_error:
                    self._limits = self._solver.state.limits
                    worker.reply = replace(worker.reply, limits_error=None)  # the next change starts without it
                    remedy = "The earlier limits are still in force. Correct the cause, and try again."
                    raise UserError(f"a worker could not change the limits: {error}", remedy=remedy)
            await asyncio.sleep(HEARTBEAT_INTERVAL / 10)
        self._solver.state.limits = limits

    @property
    def budget_use(self) -> BudgetUse:
        uses = [worker.budget for worker in self.workers]
        if self._shares:  # each worker counts its own calls, and the run's own process those of earlier starts
            uses = [BudgetUse(self._solver.state.budget.spent), *self._budgets.values()]
        return BudgetUse(sum(use.spent for use in uses), any(use.exhausted for use in uses))

    async def wait_for_workers(self) -> None:
        """Wait until all workers are responsive, for at most :data:`STARTUP_WAIT` seconds."""
        deadline = time.monotonic() + STARTUP_WAIT
        while time.monotonic() < deadline and not all(worker.is_responsive for worker in self.workers):  # noqa: ASYNC110
            await asyncio.sleep(HEARTBEAT_INTERVAL / 10)

    async def monitor(self, worker: _WorkerState) -> None:
        """Send heartbeats to ``worker`` until cancelled.

        Raises what the worker raised, and :class:`ClusterFailed` if it cannot be started.
        """
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_TIMEOUT):
                    reply = await worker.actor.heartbeat.remote(self._heartbeat_request(worker))
            except TimeoutError:
                worker.mark_lost()
                ray.kill(worker.actor, no_restart=False)
            except RayTaskError as error:
                raise error.cause from None
            except ActorDiedError as error:
                raise ClusterFailed(f"a worker cannot be started: {error}") from None
            except RayActorError:
                worker.mark_lost()
            else:
                worker.is_responsive, worker.reply = True, reply
                worker.budget = reply.budget if reply.limits else worker.budget
                self._activities[reply.process_id] = reply.activity
                self._budgets[reply.process_id] = reply.budget
                self._last_reply = time.monotonic()
            self._update_activity()
            self._answer_questions(worker)
            await asyncio.sleep(HEARTBEAT_INTERVAL)

    async def _least_busy(self) -> _WorkerState:
        while not (responsive := [worker for worker in self.workers if worker.is_responsive]):
            if time.monotonic() - self._last_reply > NO_WORKER_TIMEOUT:
                raise ClusterFailed(f"no worker has answered for {NO_WORKER_TIMEOUT:.0f} s")
            await asyncio.sleep(HEARTBEAT_INTERVAL)
        return min(responsive, key=lambda worker: worker.open_problems)

    def _heartbeat_request(self, worker: _WorkerState) -> HeartbeatRequest:
        """The next heartbeat of ``worker``, with its slots.

        Slots of other workers stay reserved until their own heartbeats have taken them away.
        """
        loads = [(w.reply.in_use if w is worker else w.reserved, w.reply.demand) for w in self.workers]
        slots = divide_slots(loads, self._slots)
        worker.given_slots = slots[self.workers.index(worker)]
        runtime = self._runtime
        grants = self._desk.answers(worker.reply.process_id) if self._desk else {}
        servers = (runtime.key, self._environment)
        return HeartbeatRequest(worker.given_slots, runtime.base_urls, self._is_paused, self._limits, *servers, grants)

    def _answer_questions(self, worker: _WorkerState) -> None:
        if self._desk:
            self._desk.keep_only({worker.reply.process_id for worker in self.workers})
            self._desk.receive(worker.reply.process_id, worker.reply.questions)

    def _update_activity(self) -> None:
        """Add up the counters of all worker processes, including those that have died."""
        total = self._solver.state.activity
        for name in ("calls", "replayed", "failed", "tokens", "cost"):
            setattr(total, name, sum(getattr(activity, name) for activity in self._activities.values()))
        live = [worker.reply.activity for worker in self.workers if worker.is_responsive]
        total.in_flight = sum(activity.in_flight for activity in live)
        add_up_details(total, list(self._activities.values()), live)
        total.iterations = {problem: t for activity in live for problem, t in activity.iterations.items()}
        total.retrying = {base_url: reason for activity in live for base_url, reason in activity.retrying.items()}


@asynccontextmanager
async def worker_pool(runtime: Runtime, solver: ProblemSolver) -> AsyncIterator[WorkerPool]:
    """A pool of ``ray.workers`` workers while the block runs; defaults to one worker on each node.

    ``runtime`` and ``solver`` belong to the run's own process. Raises :class:`ClusterFailed` if no worker can be
    started or no worker responds.
    """
    pool = WorkerPool(runtime, solver)
    try:
        async with asyncio.TaskGroup() as group:
            monitors = [group.create_task(pool.monitor(worker)) for worker in pool.workers]
            await pool.wait_for_workers()
            yield pool
            for monitor in monitors:
                monitor.cancel()
    except BaseExceptionGroup as raised:
        raise first_cause(raised) from None
    finally:
        for worker in pool.workers:
            ray.kill(worker.actor)


def _start_actors(runtime: Runtime, directory: Path) -> list[Any]:
    settings = runtime.settings
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    actor: Any = ray.remote(RayWorker)
    remote_settings = settings.model_copy(update={"model": settings.model.with_absolute_paths()})
    prompts = digest(settings.prompts.hashes())
    arguments = (remote_settings, directory.resolve(), prompts)

    def start(node: str) -> Any:
        options = {
            "num_cpus": 0,
            # One byte, which every node has: Ray ignores the node affinity of an actor that requires no resource.
            "memory": 1,
            "max_restarts": -1,
            "max_concurrency": settings.active_problems + 8,  # problems, in addition to heartbeats
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True),
        }
        return actor.options(**options).remote(*arguments)

    return [start(nodes[i % len(nodes)]) for i in range(settings.ray.workers or len(nodes))]


def _file_size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
