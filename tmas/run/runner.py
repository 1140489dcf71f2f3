"""Runs problems, all at once: every result on disk as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tmas.answers.checker import AnswerChecker
from tmas.concurrency import first_cause
from tmas.llm.endpoint import EndpointDown
from tmas.records import Problem, Result
from tmas.records.run_files import FailureLine, Prediction, Terms
from tmas.run.directory import RunDirectory
from tmas.run.metrics import metrics
from tmas.run.results import failure_lines, prediction_line, verdicts

Solve = Callable[[int, Problem], Awaitable[Result]]
"""Solves a problem, given with its place in the input: :meth:`tmas.run.solver.ProblemSolver.solve` or Ray's workers."""


async def run_problems(
    problems: Sequence[Problem],
    solve: Solve,
    directory: RunDirectory,
    checker: AnswerChecker,
    terms: dict[str, Any],
    active: int,
    on_result: Callable[[Result], None],
) -> None:
    """Solve ``problems``, at most ``active`` of them open at once; each result is written before it is handed on.

    ``terms``: see :func:`~tmas.run.results.prediction_line`. Raises the first thing that stops the run, such as
    :class:`~tmas.llm.endpoint.EndpointDown`; what was done stays in the directory.
    """
    gate = asyncio.Semaphore(active)

    async def run(order: int, problem: Problem) -> None:
        async with gate:
            result = await solve(order, problem)
            line = prediction_line(result, terms, await verdicts(result, checker))
            directory.append("failures.jsonl", failure_lines(result))
            directory.append("predictions.jsonl", [line])
            on_result(result)

    try:
        async with asyncio.TaskGroup() as group:
            for order, problem in enumerate(problems):
                group.create_task(run(order, problem))
    except BaseExceptionGroup as raised:
        raise first_cause(raised, foremost=EndpointDown) from None


def keep_finished(
    directory: RunDirectory, problems: Sequence[Problem], terms: dict[str, Any], keep: bool = True
) -> list[Problem]:
    """The problems that are left to do. ``keep`` False: none counts as finished.

    Lines of problems that are left to do are taken out of the prediction and failure files.
    """
    asked = {p.problem_id for p in problems}
    kept = {
        line.problem_id: line
        for line in directory.lines("predictions.jsonl", Prediction)
        if line.problem_id not in asked or (keep and _stands(line, Terms.model_validate(terms)))
    }
    failures = list(directory.lines("failures.jsonl", FailureLine))
    directory.replace("predictions.jsonl", kept.values())
    directory.replace("failures.jsonl", (f for f in failures if f.problem_id in kept))
    return [p for p in problems if p.problem_id not in kept]


def put_in_order(directory: RunDirectory, problems: Sequence[Problem]) -> None:
    """The prediction and failure lines, until now in the order of finishing, in that of ``problems``; others last."""
    place = {problem.problem_id: place for place, problem in enumerate(problems)}
    for name, kind in (("predictions.jsonl", Prediction), ("failures.jsonl", FailureLine)):
        lines = sorted(directory.lines(name, kind), key=lambda line: place.get(line.problem_id, len(place)))
        directory.replace(name, lines)


def write_metrics(directory: RunDirectory) -> None:
    """``metrics.json`` from the prediction and failure lines."""
    lines = list(directory.lines("predictions.jsonl", Prediction))
    directory.write_metrics(metrics(lines, directory.lines("failures.jsonl", FailureLine)))


def _stands(line: Prediction, terms: Terms) -> bool:
    if line.stop == "early_stop":
        return True
    if line.stop == "worker":
        return False
    return line.terms.method == terms.method and (line.stop != "budget" or line.terms.limits == terms.limits)
