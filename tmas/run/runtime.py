"""The runtime of a process that solves problems: models, answer checker, limiter and budget.

``tmas solve``, ``tmas serve`` and each Ray worker use the same class. ``tmas solve`` and ``tmas serve`` open it with
:func:`open_runtime`, which also starts the run's own servers. A Ray worker uses the servers that the run's process has
started; each heartbeat contains their addresses.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

from tmas.answers.checker import AnswerChecker
from tmas.concurrency import PriorityLimiter
from tmas.engines.ray_cluster import ray_cluster
from tmas.llm.descriptors import allow_open_files
from tmas.methods import METHODS
from tmas.methods.base import Method
from tmas.records.reading import read_record
from tmas.records.run_files import Manifest
from tmas.run.activity import Activity
from tmas.run.budget import TokenBudget, count_earlier_starts
from tmas.run.directory import counts_chat_template
from tmas.run.garbage import rare_collections
from tmas.run.models import Clients, SharedServers, own_servers
from tmas.run.shares import ShareKeeper, Shares
from tmas.run.solver import ProblemSolver
from tmas.run.state import RunState
from tmas.settings import RunSettings


class Runtime:
    """Everything that solving needs in one process. An async context manager; call :meth:`ready` before :meth:`solver`.

    ``key``: the key of the run's own servers. ``files``: number of files that are open at once, in addition to the
    sockets of the calls in flight. ``counts_chat_template``: see :func:`~tmas.run.directory.counts_chat_template`.
    ``others``: settings of further runs, for example with other roles, that :meth:`solver` will be called with.
    Raises ``UserError`` for a wrong API key, tokenizer or context length.
    """

    def __init__(
        self,
        settings: RunSettings,
        key: str,
        files: int,
        counts_chat_template: bool = True,
        others: Sequence[RunSettings] = (),
    ) -> None:
        self.settings, self.key = settings, key
        self.limiter = PriorityLimiter(settings.concurrency)
        self.checker = AnswerChecker()
        self.base_urls: tuple[str, ...] = ()
        self._files = files
        self._clients = Clients(settings, key, counts_chat_template, others)
        self._others = others
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as close_on_error:
            await close_on_error.enter_async_context(self._clients)
            await close_on_error.enter_async_context(self.checker)
            close_on_error.enter_context(rare_collections())
            allow_open_files(self.settings.concurrency + self._files)
            self._stack = close_on_error.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close everything, in the reverse order of opening."""
        await self._stack.aclose()

    @property
    def reported(self) -> dict[str, int]:
        """Context lengths in tokens that servers reported, by the key of the setting that is null."""
        return self._clients.reported

    def use_servers(self, base_urls: tuple[str, ...]) -> None:
        """Send the calls of the run's own models to these servers from now on."""
        self.base_urls = base_urls
        self._clients.use_servers(base_urls)

    def show_retries_in(self, activity: Activity) -> None:
        """Show in ``activity`` why calls are being retried."""
        self._clients.on_retry(activity.note_retry)

    def resize(self, slots: int) -> None:
        """Allow this number of completions in flight from now on."""
        allow_open_files(slots + self._files)
        self.limiter.resize(slots)
        self._clients.resize(slots)

    async def ready(self) -> None:
        """Ask the servers for the context lengths that are not set."""
        for settings in (self.settings, *self._others):
            await self._clients.roles(settings)

    async def served_models(self) -> dict[str, tuple[str, ...]]:
        """The names of the models that the server of each role lists; none for a server without such a list."""
        return await self._clients.served_models(self.settings)

    async def solver(
        self,
        settings: RunSettings,
        directory: Path,
        activity: Activity,
        method: Method[Any] | None = None,
        shares: ShareKeeper | None = None,
    ) -> ProblemSolver:
        """A solver for one run in ``directory``, a run directory. ``activity`` counts its calls.

        ``settings``: the settings of the runtime, or others with the same endpoints. ``method``: defaults to the method
        of ``settings``, without a progress callback. ``shares``: given by a Ray worker of a run that divides its budget
        between problems on several workers. The allowances of the problems then limit the usage instead of a budget of
        the run. Defaults to the shares recorded in the traces, if the method divides the budget.
        """
        limits, prices = settings.limits, settings.role_prices()
        budget = TokenBudget()
        if shares is None and settings.has_run_budget:
            budget = TokenBudget(limits.tokens_per_run, money_limit=limits.money_per_run)
            await count_earlier_starts(budget, directory, prices)
            if settings.method.allocates:
                count = len(read_record(directory / "manifest.json", Manifest).problems)
                reserve = settings.ray.share_reserve if settings.has_several_workers else None
                shares = await asyncio.to_thread(Shares.of_run, directory, limits, count, prices, reserve)
        state = RunState(
            await self._clients.roles(settings),
            self.limiter,
            settings.seed,
            limits,
            budget,
            activity,
            prompts=settings.prompts,
            prices=prices,
            shares=shares,
        )
        method = method or METHODS[settings.method.name](settings.method, self.checker)
        return ProblemSolver(method, state, directory)


@asynccontextmanager
async def open_runtime(
    settings: RunSettings,
    directory: Path,
    activity: Activity,
    files: int,
    shared: SharedServers | None = None,
    others: Sequence[RunSettings] = (),
) -> AsyncIterator[Runtime]:
    """A runtime that is ready, with the Ray cluster and the servers that ``settings`` ask for.

    ``directory``: the folder for the servers' logs. ``activity`` shows that they are being started. ``files``: see
    :class:`Runtime`, which also describes ``others``. ``shared``: servers to use in place of the run's own, not on Ray.
    Raises :class:`~tmas.llm.endpoint.EndpointDown` and :class:`~tmas.engines.vllm.ServerFailed`.
    """
    key = shared.key if shared else secrets.token_urlsafe(32)
    opened = Runtime(settings, key, files, counts_chat_template(directory), others)
    async with opened as runtime, AsyncExitStack() as stack:
        if settings.on_ray:
            stack.enter_context(ray_cluster(settings.ray.address))
        if shared:
            runtime.use_servers(await shared.base_urls(settings, activity))
        else:
            servers = own_servers(settings, key, directory, activity, runtime.use_servers)
            await stack.enter_async_context(servers)
        runtime.show_retries_in(activity)
        activity.status = "waiting for the model server"
        await runtime.ready()
        activity.status = ""
        yield runtime
