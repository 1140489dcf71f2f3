"""What solves problems, each in a session of its own: in the run's process, or in each of Ray's workers."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tmas.answers.checker import AnswerChecker
from tmas.concurrency import PriorityLimiter
from tmas.llm.descriptors import allow_open_files
from tmas.methods import METHODS
from tmas.methods.base import Method
from tmas.records import Problem, Result, Usage
from tmas.run.budget import TokenBudget, recorded_tokens
from tmas.run.directory import counts_chat_template
from tmas.run.garbage import rare_collections
from tmas.run.models import Clients
from tmas.run.session import Activity, ProblemSession, Run
from tmas.run.syncs import Syncs
from tmas.run.trace import Trace, trace_path
from tmas.settings import RunSettings

LOCK_TIMEOUT = 120.0
"""Seconds in which a process that was given up must let go of a problem's trace."""


@dataclass(frozen=True)
class Solver:
    """Runs ``method`` on problems whose traces are in ``directory``, a run directory."""

    method: Method[Any]
    run: Run
    directory: Path
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    syncs: Syncs = field(default_factory=Syncs)

    async def solve(self, order: int, problem: Problem, lost: str | None = None) -> Result:
        """``order``: the place in the input. ``lost``: why the problem is given up, with no further call made."""
        with closing(await self._opened(trace_path(self.directory, problem.problem_id))) as trace:
            session = ProblemSession(problem, trace, self.run, order, lost)
            trajectory = await self.method.solve(problem, session)
        return Result(
            problem=problem,
            method=self.method.settings.name,
            trajectory=trajectory,
            usage=session.usage,
            failures=tuple(f for iteration in trajectory.iterations for f in iteration.all_failures),
            packed_prompts=session.packed,
        )

    async def _opened(self, path: Path) -> Trace:
        """One at a time, so that reading many long ones leaves the loop to others in between."""
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                async with self.opening:
                    return Trace(path, self.syncs)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(1.0)


class Worker:
    """All that one process needs to solve the problems of a run; ``activity`` counts what it does.

    An async context manager, which solves once it is :meth:`ready`. ``key``: of the run's own servers. Raises
    ``ValueError`` for what is wrong with a key, a tokenizer or a context length.
    """

    def __init__(self, settings: RunSettings, directory: Path, key: str, activity: Activity) -> None:
        self.settings, self.directory, self.key, self.activity = settings, directory, key, activity
        self.base_urls: tuple[str, ...] = ()
        self.limiter = PriorityLimiter(settings.concurrency)
        self.checker = AnswerChecker()
        self._clients = Clients(settings, key, counts_chat_template(directory))
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._clients)
        await self._stack.enter_async_context(self.checker)
        self._stack.enter_context(rare_collections())
        allow_open_files(self.settings.concurrency + self.settings.active_problems)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def told(self) -> dict[str, int]:
        """Context lengths in tokens that servers told, by the key of the setting that is null."""
        return self._clients.told

    def tell(self, base_urls: tuple[str, ...]) -> None:
        """These are the run's own servers from now on."""
        self.base_urls = base_urls
        self._clients.tell(base_urls)

    def resize(self, places: int) -> None:
        """So many completions may be in flight from now on."""
        self.limiter.resize(places)
        self._clients.resize(places)

    async def ready(self) -> None:
        """Ask the servers what they must tell, and count what the run has cost so far, if it has a budget."""
        settings, budget = self.settings, TokenBudget(self.settings.limits.tokens_per_run)
        if budget.is_limited:
            budget.spend(Usage(completion_tokens=await asyncio.to_thread(recorded_tokens, self.directory)))
        roles = await self._clients.roles()
        run = Run(roles, self.limiter, settings.seed, settings.limits, budget, self.activity, settings.prompts)
        method = METHODS[settings.method.name](settings.method, self.checker)
        self._solver = Solver(method, run, self.directory)

    async def solve(self, order: int, problem: Problem, lost: str | None = None) -> Result:
        """See :meth:`Solver.solve`."""
        return await self._solver.solve(order, problem, lost)
