"""Solve problems: the Python API, and what ``tmas solve`` runs.

from tmas import ModelSettings, TMASSettings, solve

model = ModelSettings(name="my-model", base_url="http://127.0.0.1:8000/v1", sampling={"max_tokens": 8192})
result = solve("What is 7 + 5?", model, method=TMASSettings(n_candidates=4, max_iterations=3))
print(result.answer, result.solution)
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tmas.answers import AnswerChecker
from tmas.concurrency import PriorityLimiter
from tmas.config import ModelSettings, RunSettings
from tmas.inference.budget import TokenBudget
from tmas.inference.engine import open_roles
from tmas.inference.run_directory import RunDirectory
from tmas.inference.runner import keep_finished, run_problems, write_metrics
from tmas.inference.session import Activity, Run
from tmas.methods import METHODS, MethodSettings
from tmas.methods.tmas import TMASSettings
from tmas.records import Problem, Result


def solve(problem: str | Problem, model: ModelSettings, method: MethodSettings | None = None, **options: Any) -> Result:
    """Solve one problem and wait for it. See :func:`asolve_all` for the options."""
    return asyncio.run(asolve(problem, model, method, **options))


def solve_all(
    problems: Sequence[Problem], model: ModelSettings, method: MethodSettings | None = None, **options: Any
) -> list[Result]:
    """Solve many problems, concurrently, and wait for them. See :func:`asolve_all`."""
    return asyncio.run(asolve_all(problems, model, method, **options))


async def asolve(
    problem: str | Problem, model: ModelSettings, method: MethodSettings | None = None, **options: Any
) -> Result:
    """:func:`solve` for callers with an event loop. A plain string is taken as the question."""
    if isinstance(problem, str):
        problem = Problem(problem_id="problem", question=problem)
    return (await asolve_all([problem], model, method, **options))[0]


async def asolve_all(
    problems: Sequence[Problem],
    model: ModelSettings,
    method: MethodSettings | None = None,
    output_dir: Path | str | None = None,
    **settings: Any,
) -> list[Result]:
    """Results in the order of ``problems``.

    ``method``: its settings (default: TMAS as published). ``output_dir``: the run directory, in which the same call
    goes on when it is made again; None: a temporary one. ``settings``: further fields of
    :class:`~tmas.config.RunSettings`.

    Raises :class:`~tmas.inference.endpoint.EndpointDown` when the endpoint is dead and
    :class:`~tmas.inference.run_directory.RunRefused` when the directory holds another run. What a model
    or a server did to single calls is in the results, as failures.
    """
    run_settings = RunSettings(model=model, method=method or TMASSettings(), **settings)
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as temporary:
        await run(
            problems,
            run_settings,
            Path(output_dir or temporary),
            on_result=lambda result: results.update({result.problem.problem_id: result}),
            replay_finished=True,
        )
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
) -> None:
    """Run ``problems`` into ``output_dir``. What :func:`asolve_all` and the command line share.

    ``config``: written to ``config.yaml``. ``activity``: counters to watch. ``replay_finished``: hand finished problems
    to ``on_result`` too, from their traces.
    """
    activity = activity or Activity()
    with closing(
        RunDirectory(output_dir, settings.identity(), problems, growing=("method.max_iterations",), config=config)
    ) as directory:
        terms = settings.terms()
        pending, spent = keep_finished(directory, problems, terms, keep=not replay_finished)
        activity.finished = len(problems) - len(pending)
        if pending:
            async with AnswerChecker() as checker, open_roles(settings, directory.path, activity) as roles:
                budget = TokenBudget(settings.limits.tokens_per_run)
                budget.spend(spent)
                limiter = PriorityLimiter(settings.concurrency)
                shared = Run(roles, limiter, settings.seed, settings.limits, budget, activity)
                method = METHODS[settings.method.name](settings.method, checker)
                active = settings.active_problems
                await run_problems(pending, method, shared, directory, checker, terms, active, on_result)
        write_metrics(directory)
