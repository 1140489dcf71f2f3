"""The Ray actor that solves problems of a run. :mod:`tmas.run.ray_workers` starts it and assigns problems to it."""

from __future__ import annotations

import asyncio
import os
import secrets
from contextlib import AsyncExitStack
from pathlib import Path

import ray

from tmas.errors import UserError
from tmas.files import digest
from tmas.records import Problem, Result
from tmas.redaction import log_to_stderr
from tmas.run.activity import Activity
from tmas.run.control import LocalCallMaker
from tmas.run.directory import counts_chat_template
from tmas.run.heartbeats import HeartbeatReply, HeartbeatRequest
from tmas.run.runtime import Runtime
from tmas.run.share_messages import RemoteShares
from tmas.run.shares import Amount
from tmas.run.solver import ProblemSolver
from tmas.settings import Limits, RunSettings


class RayWorker:
    """The actor: a :class:`~tmas.run.runtime.Runtime` in its own process, which Ray may restart on any node.

    ``prompts``: digest of all prompts that the run uses. The worker refuses to start if its own digest differs.
    (Replaced prompts arrive in ``settings``; the built-in ones come from the tmas that the node has installed.)
    """

    def __init__(self, settings: RunSettings, directory: Path, prompts: str) -> None:
        self._arguments, self._prompts, self._process_id = (settings, directory), prompts, secrets.token_hex(4)
        self._activity = Activity()
        divides_budget = settings.has_run_budget and settings.has_several_workers and settings.method.allocates
        self._shares = RemoteShares(settings.limits) if divides_budget else None
        log_to_stderr()
        self._startup: asyncio.Task[tuple[Runtime, ProblemSolver]] | None = None
        self._latest = HeartbeatRequest(0, ())
        self._limits_change: asyncio.Task[None] | None = None

    async def heartbeat(self, request: HeartbeatRequest) -> HeartbeatReply:
        """Apply ``request`` and return the worker's load. The first heartbeat starts the runtime.

        Raises the exception of the startup if it failed.
        """
        self._latest = request
        self._startup = self._startup or asyncio.create_task(self._start())
        if not self._startup.done():
            return HeartbeatReply(self._process_id, is_paused=request.is_paused)
        runtime, solver = self._startup.result()
        maker = LocalCallMaker(runtime, solver)
        self._apply_latest(runtime)
        limits_error = self._change_limits(request.limits or solver.state.limits, solver.state.limits, maker)
        limiter = runtime.limiter
        load = (self._process_id, limiter.in_use, limiter.wanted)
        # The worker asks for shares of the budget in its replies. The next heartbeats bring the answers.
        if self._shares:
            self._shares.receive(request.grants)
        share_questions = self._shares.questions if self._shares else ()
        state = (solver.state.limits, maker.budget_use, request.is_paused)
        return HeartbeatReply(*load, self._activity, *state, share_questions, limits_error)

    def _change_limits(self, wanted: Limits, present: Limits, maker: LocalCallMaker) -> str | None:
        """Start to change the budgets if they differ. Returns the error of a change that has failed."""
        change = self._limits_change
        if change and change.done():
            self._limits_change = None
            if error := change.exception():
                return str(error) or type(error).__name__
        if wanted != present and self._limits_change is None and not maker.budget_use.exhausted:
            # Changing the limits may read all traces, which takes long. It runs in a task, because a worker that does
            # not answer heartbeats is killed.
            self._limits_change = asyncio.create_task(maker.limit(wanted))
        return None

    async def ping(self) -> bool:
        """Whether this process has received a heartbeat. It can solve problems only after that."""
        return self._startup is not None

    async def solve(self, order: int, problem: Problem, allowance: Amount | None = None) -> Result:
        """See :meth:`tmas.run.solver.ProblemSolver.solve`. Waits for the startup to finish.

        ``allowance``: what the problem may use of the run's budget (:mod:`tmas.run.shares`).
        """
        assert self._startup, "solve() before the first heartbeat"
        if self._shares:
            assert allowance
            self._shares.allow(problem.problem_id, allowance)
        _, solver = await asyncio.shield(self._startup)
        try:
            return await solver.solve(order, problem)
        finally:
            self._activity.iterations.pop(problem.problem_id, None)
            self._activity.failures.pop(problem.problem_id, None)

    async def _start(self) -> tuple[Runtime, ProblemSolver]:
        (settings, directory), request = self._arguments, self._latest
        if request.limits:
            settings = settings.model_copy(update={"limits": request.limits})
        node = ray.util.get_node_ip_address()
        if not (directory / "manifest.json").exists():
            raise UserError(
                f"there is no {directory} on the Ray node {node}",
                where="output_dir",
                remedy="Use a directory that all nodes share.",
            )
        if digest(settings.prompts.hashes()) != self._prompts:
            raise UserError(
                f"the Ray node {node} has a version of tmas with other prompts than this machine",
                remedy="Install the same version on all nodes.",
            )
        os.environ.update(request.environment)
        async with AsyncExitStack() as close_on_error:
            opened = Runtime(settings, request.server_key, settings.active_problems, counts_chat_template(directory))
            runtime = await close_on_error.enter_async_context(opened)
            self._apply_latest(runtime)
            runtime.show_retries_in(self._activity)
            await runtime.ready()
            solver = await runtime.solver(settings, directory, self._activity, shares=self._shares)
            self._apply_latest(runtime)  # later heartbeats may have brought a pause
            close_on_error.pop_all()  # the runtime stays open until the actor ends
        return runtime, solver

    def _apply_latest(self, runtime: Runtime) -> None:
        """Apply the slots, the pause and the servers of the latest heartbeat."""
        latest = self._latest
        runtime.resize(latest.slots)
        runtime.limiter.pause(latest.is_paused)
        if latest.base_urls != runtime.base_urls:
            runtime.use_servers(latest.base_urls)
