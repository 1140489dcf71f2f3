"""The Python API for solving problems. ``tmas solve`` runs the same code.

from tmas import ModelSettings, TMASSettings, solve

model = ModelSettings(name="my-model", base_url="http://127.0.0.1:8000/v1", sampling={"max_tokens": 8192})
result = solve("What is 7 + 5?", model, method=TMASSettings(n_candidates=4, max_iterations=3))
print(result.answer, result.solution)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import uvloop

from tmas.engines.vllm import temporary_directory
from tmas.errors import UserError
from tmas.methods import MethodSettings
from tmas.methods.tmas import TMASSettings
from tmas.records import Problem, Result
from tmas.run.activity import Activity
from tmas.run.control import CallMaker, LocalCallMaker, RunControl
from tmas.run.directory import MAY_INCREASE, RunDirectory
from tmas.run.models import SharedServers
from tmas.run.progress import (
    CALL_INTERVAL,
    PRINT_INTERVAL,
    OnProgress,
    RunProgress,
    print_progress,
    regular_calls,
    until_it_fails,
)
from tmas.run.runner import Pending, Solve, pending_problems, run_problems, sort_lines, write_metrics
from tmas.run.runtime import open_runtime
from tmas.settings import ModelSettings, RunSettings


def solve(problem: str | Problem, model: ModelSettings, method: MethodSettings | None = None, **options: Any) -> Result:
    """Solve one problem and wait for it. See :func:`asolve_all` for the options."""
    return uvloop.run(asolve(problem, model, method, **options))


def solve_all(
    problems: Sequence[Problem], model: ModelSettings, method: MethodSettings | None = None, **options: Any
) -> list[Result]:
    """Solve many problems concurrently and wait for them. See :func:`asolve_all` for the options."""
    return uvloop.run(asolve_all(problems, model, method, **options))


async def asolve(
    problem: str | Problem, model: ModelSettings, method: MethodSettings | None = None, **options: Any
) -> Result:
    """Solve one problem; for callers with an event loop. A plain string is taken as the question."""
    if isinstance(problem, str):
        problem = Problem(problem_id="problem", question=problem)
    return (await asolve_all([problem], model, method, **options))[0]


async def asolve_all(
    problems: Sequence[Problem],
    model: ModelSettings,
    method: MethodSettings | None = None,
    output_dir: Path | str | None = None,
    progress: bool | OnProgress = True,
    **settings: Any,
) -> list[Result]:
    """Solve problems and return the results in the order of ``problems``.

    ``method``: settings of the method; defaults to TMAS as published. ``output_dir``: the run directory; the same call
    resumes an interrupted run in it. None uses a temporary directory. ``progress``: True prints a line to stderr every
    10 seconds; a function is called every second and after each problem, with a
    :class:`~tmas.run.progress.RunProgress`, which has the counters and, as ``line()``, what is printed. A function that
    raises an exception is not called again, and the exception is logged. ``settings``: further fields of
    :class:`~tmas.settings.RunSettings`.

    Raises :class:`~tmas.llm.endpoint.EndpointDown` if the endpoint is down; its subclass
    :class:`~tmas.llm.endpoint.UnknownModel` says that the server does not have the model. Raises
    :class:`~tmas.errors.UserError` for wrong input, such as an API key that is not set; its subclass
    :class:`~tmas.run.directory.RunRefused` says that the directory contains another run. Wrong settings raise
    pydantic's ``ValidationError``. Failures of single calls are in the results and are never raised.
    """
    run_settings = RunSettings(model=model, method=method or TMASSettings(), **settings)
    results: dict[str, Result] = {}
    shown = RunProgress(Activity(), len(problems), run_settings.method.max_iterations)

    def keep(result: Result) -> None:
        results[result.problem.problem_id] = result
        shown.mark_finished(result.problem.problem_id)
        if on_progress:
            on_progress(shown)

    on_progress = until_it_fails(progress) if callable(progress) else None
    async with AsyncExitStack() as stack:
        temporary = stack.enter_context(temporary_directory())
        if on_progress:
            await stack.enter_async_context(regular_calls(on_progress, shown, CALL_INTERVAL))
        elif progress:
            await stack.enter_async_context(regular_calls(until_it_fails(print_progress), shown, PRINT_INTERVAL))
        directory = Path(output_dir or temporary)
        await run(problems, run_settings, directory, activity=shown.activity, on_result=keep, replay_finished=True)
    return [results[p.problem_id] for p in problems]


async def run(
    problems: Sequence[Problem],
    settings: RunSettings,
    output_dir: Path,
    *,
    config: Mapping[str, Any] | None = None,
    activity: Activity | None = None,
    on_result: Callable[[Result], None] = lambda _: None,
    replay_finished: bool = False,
    servers: SharedServers | None = None,
) -> None:
    """Run ``problems`` into ``output_dir``. :func:`asolve_all` and the command line share this function.

    ``config``: written to ``config.yaml``. ``activity``: counters for progress displays. ``replay_finished``: also pass
    finished problems to ``on_result``, from their traces. ``servers``: with ``serving=vllm``, the servers that several
    runs share, see :class:`~tmas.run.models.SharedServers`; None starts servers for this run alone.
    """
    ids = Counter(problem.problem_id for problem in problems)
    if repeated := [name for name, count in ids.items() if count > 1]:
        raise UserError(f"several problems have the same problem_id: {', '.join(repeated)}")
    activity = activity or Activity()
    with closing(
        RunDirectory(
            output_dir,
            settings.identity(),
            problems,
            may_increase=MAY_INCREASE,
            config=config,
            prompts=settings.prompts,
            prices=settings.role_prices(),
        )
    ) as directory:
        pending = pending_problems(directory, problems, settings.terms(), reuse_finished=not replay_finished)
        activity.finished = len(problems) - len(pending.problems)
        if pending.problems:
            control = RunControl(
                directory.path,
                settings,
                activity,
                len(problems),
                activity.finished,
                currency=settings.currency,
                failures=pending.failures,
            )
            async with control.listen():
                await _solve_pending(pending, directory, control, on_result, servers)
        else:
            pending.remove_lines(directory)
        sort_lines(directory, problems)
        write_metrics(directory)


async def _solve_pending(
    pending: Pending,
    directory: RunDirectory,
    control: RunControl,
    on_result: Callable[[Result], None],
    servers: SharedServers | None,
) -> None:
    settings, activity, active = control.settings, control.activity, control.settings.active_problems

    def finish(result: Result) -> None:
        control.mark_finished(result.problem.problem_id, result)
        on_result(result)

    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(open_runtime(settings, directory.path, activity, active, servers))
        directory.record_reported(runtime.reported)
        pending.remove_lines(directory)
        solver = await runtime.solver(settings, directory.path, activity)
        if settings.currency:
            await solver.count_earlier_starts()
        earlier_cost = solver.state.budget.spent_money
        solve: Solve = solver.solve
        calls: CallMaker = LocalCallMaker(runtime, solver)
        if settings.on_ray:
            from tmas.run.ray_workers import worker_pool

            calls = await stack.enter_async_context(worker_pool(runtime, solver))
            solve = calls.solve
        control.use(calls, earlier_cost)
        await run_problems(
            pending.problems, solve, directory, runtime.checker, lambda: control.terms, control.problem_limiter, finish
        )
