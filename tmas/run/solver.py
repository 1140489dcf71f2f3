"""Solves the problems of one run, each in a session of its own."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tmas.methods.base import Method
from tmas.records import Problem, Result
from tmas.run.session import ProblemSession, RunState
from tmas.run.trace import Trace, trace_path

LOCK_TIMEOUT = 120.0
"""Seconds to wait until a worker that the run has given up releases the lock of a trace."""


@dataclass(frozen=True)
class ProblemSolver:
    """Applies ``method`` to problems whose traces are in ``directory``, a run directory."""

    method: Method[Any]
    state: RunState
    directory: Path
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def solve(self, order: int, problem: Problem, lost: str | None = None) -> Result:
        """``order``: the problem's place in the input. ``lost``: why the run gives the problem up; then only recorded
        calls are answered, and no new call is made."""
        with closing(await self._open_trace(trace_path(self.directory, problem.problem_id))) as trace:
            session = ProblemSession(problem, trace, self.state, order, lost)
            trajectory = await self.method.solve(problem, session)
        return Result(
            problem=problem,
            method=self.method.settings.name,
            trajectory=trajectory,
            usage=session.usage,
            failures=tuple(f for iteration in trajectory.iterations for f in iteration.all_failures),
            packed_prompts=session.packed,
        )

    async def _open_trace(self, path: Path) -> Trace:
        """One trace at a time is read, because reading a long one blocks the event loop."""
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                async with self._opening:
                    return Trace(path)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(1.0)
