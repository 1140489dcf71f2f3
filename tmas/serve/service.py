"""Solves requests. All requests share one runtime; each request has its own run directory."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field

from tmas.concurrency import PriorityLimiter, first_cause
from tmas.files import text_digest
from tmas.llm.endpoint import EndpointDown
from tmas.methods import METHODS
from tmas.records import Problem, Result
from tmas.redaction import clean_logger
from tmas.run.activity import Activity
from tmas.run.control import LocalCallMaker, RunControl
from tmas.run.directory import RunDirectory
from tmas.run.garbage import RARE_IN_A_SERVER, rare_collections
from tmas.run.runner import run_problems, write_metrics
from tmas.run.runtime import Runtime, open_runtime
from tmas.serve.errors import ApiError
from tmas.serve.metrics import ServerMetrics
from tmas.serve.progress import IterationProgress, ProgressLineCallback
from tmas.serve.settings import ServerSettings, ServeSettings
from tmas.settings import RunSettings

log = clean_logger(__name__)


@dataclass(frozen=True)
class Job:
    """One request: its id, its question and its run settings. The id is the name of its run directory.

    ``model``: the name that the request asks for. ``ignored``: names of the request's fields without effect.
    """

    request_id: str
    question: str
    settings: RunSettings
    model: str
    ignored: tuple[str, ...] = ()

    @property
    def problem(self) -> Problem:
        """The problem. Its id is a hash of the question, so that random draws depend on question and seed alone."""
        return Problem(problem_id=text_digest(self.question), question=self.question)


@dataclass
class Service:
    """Solves jobs. All of them share ``runtime``, and ``control`` counts them. Created by :func:`open_service`."""

    settings: ServerSettings
    runtime: Runtime
    control: RunControl
    is_closing: bool = False
    metrics: ServerMetrics = field(default_factory=ServerMetrics)
    _jobs: set[asyncio.Task[Result]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.settings.max_running)
        self.metrics.running.set_function(lambda: self.running)
        self.metrics.waiting.set_function(lambda: self.waiting)

    @property
    def running(self) -> int:
        return min(len(self._jobs), self.settings.max_running)

    @property
    def waiting(self) -> int:
        return len(self._jobs) - self.running

    @asynccontextmanager
    async def submit(self, job: Job, on_progress_line: ProgressLineCallback) -> AsyncIterator[asyncio.Task[Result]]:
        """Start a task that solves ``job``. The end of the block cancels it.

        ``on_progress_line`` gets the progress lines. Raises :class:`ApiError` if too many requests wait or the server
        shuts down. The task raises :class:`ApiError` for every failure.
        """
        if self.is_closing:
            raise _shutting_down_error()
        if len(self._jobs) >= self.settings.max_running + self.settings.max_waiting:
            raise ApiError(429, "server_busy", "too many requests are running and waiting on this server")
        if len(self._jobs) >= self.settings.max_running:
            on_progress_line(
                f"waiting for a slot (running requests: {self.running}, waiting before this one: {self.waiting})"
            )
        task = asyncio.create_task(self._solve_with_api_errors(job, on_progress_line))
        self._jobs.add(task)
        self.control.problems += 1
        task.add_done_callback(self._jobs.discard)
        task.add_done_callback(lambda done: self._mark_finished(job, done))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _mark_finished(self, job: Job, done: asyncio.Task[Result]) -> None:
        result = None if done.cancelled() or done.exception() else done.result()
        self.control.mark_finished(job.problem.problem_id, result)

    async def drain(self) -> None:
        """Accept no more jobs, wait ``drain_seconds`` for those that run or wait, and cancel the rest."""
        self.is_closing = True
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=self.settings.drain_seconds)
        for task in self._jobs:
            task.cancel()

    async def _solve_with_api_errors(self, job: Job, on_progress_line: ProgressLineCallback) -> Result:
        try:
            async with self._slots:
                return await self._solve(job, on_progress_line)
        except asyncio.CancelledError:
            if self.is_closing:
                raise _shutting_down_error() from None
            raise
        except EndpointDown as error:
            log.warning("%s: %s", job.request_id, error)
            raise ApiError(503, "engine_down", "the model behind this server does not answer") from None
        except Exception:  # a failure of one request must not stop the others
            log.exception("%s failed", job.request_id)
            raise ApiError(500, "internal_error", f"the server failed: see {job.request_id} in its log") from None

    async def _solve(self, job: Job, on_progress_line: ProgressLineCallback) -> Result:
        results: list[Result] = []
        checker = self.runtime.checker
        path, settings, problem = self.settings.output_dir / job.request_id, job.settings, job.problem
        with ExitStack() as stack:
            if not self.settings.keep_runs:
                stack.callback(shutil.rmtree, path, ignore_errors=True)
            config = settings.model_dump(mode="json")
            directory = RunDirectory(
                path,
                settings.identity(),
                [problem],
                config=config,
                prompts=settings.prompts,
                prices=settings.role_prices(),
            )
            stack.enter_context(closing(directory))
            try:
                async with asyncio.TaskGroup() as group:
                    progress = IterationProgress(settings.method.max_iterations, on_progress_line, group)
                    method = METHODS[settings.method.name](settings.method, checker, progress.on_round)
                    solver = await self.runtime.solver(settings, path, self.control.activity, method)
                    solver = self.metrics.counted(solver, job.model)
                    await run_problems(
                        [problem],
                        solver.solve,
                        directory,
                        checker,
                        terms=settings.terms,
                        active=PriorityLimiter(1),
                        on_result=results.append,
                    )
            except BaseExceptionGroup as raised:
                raise first_cause(raised, foremost=EndpointDown) from None
            write_metrics(directory)
        self.metrics.count_failures(results[0], job.model)
        return results[0]


@asynccontextmanager
async def open_service(settings: ServeSettings) -> AsyncIterator[Service]:
    """Open the runtime and yield a :class:`Service` that uses it. The runtime is closed at the end of the block.

    Raises :class:`~tmas.llm.endpoint.EndpointDown` and :class:`~tmas.engines.vllm.ServerFailed`.
    """
    serve = settings.serve
    serve.output_dir.mkdir(parents=True, exist_ok=True)
    open_files = 2 * serve.max_running + serve.max_connections  # a running request has a lock file and a trace
    default, *others = settings.served_models.values()
    activity = Activity()
    currencies = {model.currency for model in settings.served_models.values()}
    control = RunControl(
        serve.output_dir,
        default,
        activity,
        changeable=("concurrency", "pause"),
        currency=currencies.pop() if len(currencies) == 1 else None,
    )
    runtime_of_all = open_runtime(default, serve.output_dir, activity, open_files, others=others)
    async with control.listen(), runtime_of_all as runtime:
        control.use(LocalCallMaker(runtime))
        with rare_collections(RARE_IN_A_SERVER):
            yield Service(serve, runtime, control)


def _shutting_down_error() -> ApiError:
    return ApiError(503, "shutting_down", "the server is shutting down")
