"""Solves the problems of one run, each in its own session."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tmas.methods.base import Method
from tmas.records import Problem, Result, Usage
from tmas.run.budget import count_earlier_starts, line_charges
from tmas.run.rounds import observed_rounds
from tmas.run.session import ProblemSession
from tmas.run.state import RunState
from tmas.run.trace import Trace, read_trace, trace_path
from tmas.settings import Limits

LOCK_TIMEOUT = 120.0
"""Seconds to wait for a trace's lock. A worker that the run considers dead may still hold it."""


@dataclass(frozen=True)
class ProblemSolver:
    """Applies ``method`` to problems. Their traces are in ``directory``, the run directory."""

    method: Method[Any]
    state: RunState
    directory: Path
    _open_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def solve(self, order: int, problem: Problem, give_up_reason: str | None = None) -> Result:
        """Solve ``problem``. If it has a trace, resume from there.

        ``order``: the problem's position in the input. ``give_up_reason``: if set, only recorded calls are answered and
        no new call is made. Raises ``BlockingIOError`` if another process keeps the trace locked, and
        :class:`~tmas.run.trace.TraceError` if the trace is of another run or another schema version.
        """
        allowance = self.state.shares.begin(problem.problem_id) if self.state.shares else None
        path = trace_path(self.directory, problem.problem_id)
        with closing(await self._open_trace(path)) as trace:
            charges = await asyncio.to_thread(_charges, path) if allowance else None
            session = ProblemSession(problem, trace, self.state, order, give_up_reason, allowance, charges)
            async with observed_rounds(session, self.state.activity) as on_round:
                trajectory = await self.method.observed(on_round).solve(problem, session)
            if self.method.settings.allocates:
                await session.end_share()
            if session.stopped is None:
                trace.finish()
        failures = tuple(f for iteration in trajectory.iterations for f in iteration.all_failures)
        return Result(
            problem=problem,
            method=self.method.settings.name,
            trajectory=trajectory,
            usage=session.usage,
            failures=failures,
            packed_prompts=session.packed_prompts,
            replies=session.reply_counter.counts(failures),
        )

    async def limit(self, limits: Limits) -> None:
        """Change the budgets of the run. Calls in flight that began without a limit count when they end.

        Without a limit, the budget may have counted only the calls of this start. The first limit adds those of earlier
        starts.
        """
        if limits.tokens_per_run is not None or limits.money_per_run is not None:
            await self.count_earlier_starts()
        self.state.limits = limits
        self.state.budget.set_limits(limits.tokens_per_run, limits.money_per_run)

    async def count_earlier_starts(self) -> None:
        """Add what earlier starts of the run have used to its budget. Reads all traces, in a thread."""
        await count_earlier_starts(self.state.budget, self.directory, self.state.prices)

    async def _open_trace(self, path: Path) -> Trace:
        """Open a trace. Waits up to :data:`LOCK_TIMEOUT` seconds while another process has it locked.

        A thread reads it, one trace at a time, so that many problems that are resumed together do not block the loop.
        """
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                async with self._open_lock:
                    return await _open_in_thread(path)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(1.0)


async def _open_in_thread(path: Path) -> Trace:
    opening = asyncio.get_running_loop().run_in_executor(None, Trace, path)
    try:
        await asyncio.wait([opening])
    except asyncio.CancelledError:  # the thread cannot be cancelled, and nothing else would unlock its trace
        await asyncio.wait([opening])
        if opening.exception() is None:
            opening.result().close()
        raise
    return opening.result()


def _charges(trace: Path) -> dict[str, Usage]:
    return line_charges(read_trace(trace, skip_damaged=True))
