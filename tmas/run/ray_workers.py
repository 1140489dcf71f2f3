"""The workers of a run on its Ray cluster: actors that solve its problems, which Ray starts again when they die.

The run's process holds the queue. A problem goes to the worker with the fewest; one that a dead worker leaves goes to
another, which answers from the problem's trace all that was finished. So ``directory`` must be on storage that all
nodes share.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
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
from tmas.run.directory import counts_chat_template
from tmas.run.runtime import Runtime
from tmas.run.session import Activity
from tmas.run.solver import ProblemSolver
from tmas.run.trace import trace_path
from tmas.settings import RunSettings

BEAT = 1.0
"""Seconds between two heartbeats of a worker: what it hears of its servers and slots, and tells of its work."""
HUNG = 60.0
"""Seconds without an answer to a heartbeat after which a worker is killed."""
GATHERING = 60.0
"""Seconds in which all workers should have come up: the first problems are shared among those that have."""
NONE_LEFT = 600.0
"""Seconds without any worker after which the run stops."""
DEATHS = 3
"""Workers that die in a row over a problem, no call of it finished in between, before it is given up."""


@dataclass(frozen=True)
class Order:
    """What a worker is told with each heartbeat."""

    slots: int
    base_urls: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What a worker tells. ``life``: one of a process; completions: ``in_use`` are in flight, ``wanted`` could be."""

    life: str = ""
    in_use: int = 0
    wanted: int = 0
    activity: Activity = field(default_factory=Activity)


class RayWorker:
    """A :class:`~tmas.run.runtime.Runtime` in a process of its own, which Ray may restart on any node.

    ``environment``: the variables that hold the keys of endpoints. ``prompts``: the digest of the run's prompts;
    those that a user replaced come with ``settings``.
    """

    def __init__(
        self, settings: RunSettings, directory: Path, key: str, environment: dict[str, str], prompts: str
    ) -> None:
        os.environ.update(environment)
        self._given, self._prompts, self._life = (settings, directory, key), prompts, secrets.token_hex(4)
        self._activity = Activity()
        self._began: asyncio.Task[tuple[Runtime, ProblemSolver]] | None = None

    async def heartbeat(self, order: Order) -> Report:
        self._began = self._began or asyncio.create_task(self._begin(order))
        if not self._began.done():
            return Report(self._life)
        runtime, _ = self._began.result()
        runtime.resize(order.slots)
        if order.base_urls != runtime.base_urls:
            runtime.use_servers(order.base_urls)
        return Report(self._life, runtime.limiter.in_use, runtime.limiter.wanted, self._activity)

    async def hear(self) -> bool:
        """Whether it has answered a heartbeat, and so can be given problems; that it is heard says that it lives."""
        return self._began is not None

    async def solve(self, order: int, problem: Problem) -> Result:
        assert self._began, "a worker is given problems when it has answered a heartbeat"
        _, solver = await asyncio.shield(self._began)
        try:
            return await solver.solve(order, problem)
        finally:
            self._activity.iterations.pop(problem.problem_id, None)

    async def _begin(self, order: Order) -> tuple[Runtime, ProblemSolver]:
        settings, directory, key = self._given
        node = ray.util.get_node_ip_address()
        if not (directory / "manifest.json").exists():
            raise UserError(
                f"there is no {directory} on the Ray node {node}",
                where="output_dir",
                remedy="Give a directory that all nodes share.",
            )
        if digest(settings.prompts.hashes()) != self._prompts:
            raise UserError(
                f"the Ray node {node} has another version of tmas, with other prompts, than this one",
                remedy="Install the same version on all nodes.",
            )
        async with AsyncExitStack() as unless_failed:
            opened = Runtime(settings, key, settings.active_problems, counts_chat_template(directory))
            runtime = await unless_failed.enter_async_context(opened)
            runtime.resize(order.slots)
            runtime.use_servers(order.base_urls)
            await runtime.ready()
            solver = await runtime.solver(settings, directory, self._activity)
            unless_failed.pop_all()  # it stays open as long as the actor lives
        return runtime, solver


@dataclass(eq=False)
class _Member:
    """One worker as the run sees it. ``open``: problems that it has, or is about to be given; ``granted``: slots that
    it was last told of."""

    actor: Any
    open: int = 0
    is_well: bool = False
    report: Report = Report()
    granted: int = 0

    @property
    def holds(self) -> int:
        """Slots that it has taken, or may have by now."""
        return max(self.report.in_use, self.granted)

    def lost(self) -> None:
        """It does not answer, and what it had is another's to do."""
        self.is_well, self.report, self.granted = False, Report(), 0

    async def hears(self) -> bool:
        """Whether it lives at this moment: what a heartbeat has not told yet is no death over a problem."""
        try:
            self.is_well = await self.actor.hear.remote() and self.is_well
        except RayActorError:
            self.lost()
        return self.is_well

    async def solve(self, order: int, problem: Problem) -> Result:
        try:
            return await self.actor.solve.remote(order, problem)
        except RayTaskError as error:
            raise error.cause from None
        except RayActorError:
            self.lost()
            raise


class Workers:
    """The workers, and who of them solves what. ``here``: the runtime and the solver of the run's own process."""

    def __init__(self, here: Runtime, solver: ProblemSolver) -> None:
        self._here, self._solver = here, solver
        self._members = [_Member(actor) for actor in _actors(here, solver.directory)]
        self._lives: dict[str, Activity] = {}
        self._last_well = time.monotonic()

    async def solve(self, order: int, problem: Problem) -> Result:
        """Like :meth:`tmas.run.solver.ProblemSolver.solve`, by workers, until one of them has the result."""
        deaths, size, dead = 0, -1, None
        while deaths < DEATHS:
            member = await self._least_busy()
            member.open += 1
            try:
                if not await member.hears():
                    continue
                return await member.solve(order, problem)
            except RayActorError:
                now = _size(trace_path(self._solver.directory, problem.problem_id))
                deaths, size, dead = 1 if now > size else deaths + 1, now, member
            except BlockingIOError:
                if dead is None:
                    raise
                ray.kill(dead.actor, no_restart=False)  # out of reach for a moment, it lives on and has the trace
                dead = None
            finally:
                member.open -= 1
        return await self._solver.solve(order, problem, lost=f"{DEATHS} workers died, one after the other")

    async def gathered(self) -> None:
        """Waits for all workers, for a while."""
        deadline = time.monotonic() + GATHERING
        while time.monotonic() < deadline and not all(member.is_well for member in self._members):  # noqa: ASYNC110
            await asyncio.sleep(BEAT / 10)

    async def keep(self, member: _Member) -> None:
        """Beat for ever; raises what a worker raised, and :class:`ClusterFailed` for one that cannot be started."""
        while True:
            try:
                report = await asyncio.wait_for(member.actor.heartbeat.remote(self._order(member)), HUNG)
            except TimeoutError:
                member.lost()
                ray.kill(member.actor, no_restart=False)
            except RayTaskError as error:
                raise error.cause from None
            except ActorDiedError as error:
                raise ClusterFailed(f"a worker cannot be started: {error}") from None
            except RayActorError:
                member.lost()
            else:
                member.is_well, member.report = True, report
                self._lives[report.life] = report.activity
                self._last_well = time.monotonic()
            self._show()
            await asyncio.sleep(BEAT)

    async def _least_busy(self) -> _Member:
        while not (well := [member for member in self._members if member.is_well]):
            if time.monotonic() - self._last_well > NONE_LEFT:
                raise ClusterFailed(f"no worker has answered for {NONE_LEFT:.0f} s")
            await asyncio.sleep(BEAT)
        return min(well, key=lambda member: member.open)

    def _order(self, member: _Member) -> Order:
        """What others were told of counts as theirs, until they have been told of less."""
        loads = [(m.report.in_use if m is member else m.holds, m.report.wanted) for m in self._members]
        slots = divide_slots(loads, self._here.settings.concurrency)
        member.granted = slots[self._members.index(member)]
        return Order(member.granted, self._here.base_urls)

    def _show(self) -> None:
        """Put together what all workers do, and what those that died had done."""
        shown = self._solver.state.activity
        for name in ("calls", "replayed", "failed", "tokens"):
            setattr(shown, name, sum(getattr(activity, name) for activity in self._lives.values()))
        live = [member.report.activity for member in self._members if member.is_well]
        shown.in_flight = sum(activity.in_flight for activity in live)
        shown.iterations = {problem: t for activity in live for problem, t in activity.iterations.items()}


@asynccontextmanager
async def workers(here: Runtime, solver: ProblemSolver) -> AsyncIterator[Workers]:
    """``ray.workers`` of them while the block runs, or one on each node. ``here`` and ``solver`` are those of the run's
    own process.

    Raises :class:`ClusterFailed` where the cluster has none to offer.
    """
    fleet = Workers(here, solver)
    try:
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(fleet.keep(member)) for member in fleet._members]
            await fleet.gathered()
            yield fleet
            for keeper in keepers:
                keeper.cancel()
    except BaseExceptionGroup as raised:
        raise first_cause(raised) from None
    finally:
        for member in fleet._members:
            ray.kill(member.actor)


def _actors(here: Runtime, directory: Path) -> list[Any]:
    settings = here.settings
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    names = {model.api_key_env for model in settings.role_models().values() if model.api_key_env}
    environment = {name: os.environ[name] for name in names}
    actor: Any = ray.remote(RayWorker)
    there = settings.model_copy(update={"model": settings.model.absolute()})
    given = (there, directory.resolve(), here.key, environment, digest(settings.prompts.hashes()))

    def begun(node: str) -> Any:
        place = NodeAffinitySchedulingStrategy(node, soft=True)
        most = settings.active_problems + 8  # problems at once, and heartbeats beside them
        # A byte of memory, which every node has: Ray asks no node in particular for an actor that needs nothing.
        options = {
            "num_cpus": 0,
            "memory": 1,
            "max_restarts": -1,
            "max_concurrency": most,
            "scheduling_strategy": place,
        }
        return actor.options(**options).remote(*given)

    return [begun(nodes[i % len(nodes)]) for i in range(settings.ray.workers or len(nodes))]


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
