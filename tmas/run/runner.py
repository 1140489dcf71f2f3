"""Runs problems concurrently and writes each result to disk as soon as it is available."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from tmas.answers.checker import AnswerChecker
from tmas.concurrency import PriorityLimiter, first_cause
from tmas.llm.endpoint import EndpointDown
from tmas.records import Problem, Result
from tmas.records.run_files import FailureLine, Prediction, Terms
from tmas.run.directory import RunDirectory
from tmas.run.metrics import metrics
from tmas.run.results import failure_lines, prediction_line, verdicts

Solve = Callable[[int, Problem], Awaitable[Result]]
"""Solves a problem. The integer is the problem's position in the input. Implemented by
:meth:`tmas.run.solver.ProblemSolver.solve` and :meth:`tmas.run.ray_workers.WorkerPool.solve`."""


async def run_problems(
    problems: Sequence[Problem],
    solve: Solve,
    directory: RunDirectory,
    checker: AnswerChecker,
    terms: Callable[[], dict[str, Any]],
    active: PriorityLimiter,
    on_result: Callable[[Result], None],
) -> None:
    """Solve ``problems``, as many of them at once as ``active`` has slots.

    Each result is written to ``directory`` before it is passed to ``on_result``. ``terms``: called when a problem is
    finished, see :func:`~tmas.run.results.prediction_line`. Raises the exception that stopped the run; if there are
    several, an :class:`~tmas.llm.endpoint.EndpointDown` takes precedence. Finished results stay in the directory.
    """

    async def run(order: int, problem: Problem) -> None:
        async with active.slots((order,)):
            result = await solve(order, problem)
            line = prediction_line(result, terms(), await verdicts(result, checker))
            directory.append("failures.jsonl", failure_lines(result))
            directory.append("predictions.jsonl", [line])
            on_result(result)

    try:
        async with asyncio.TaskGroup() as group:
            for order, problem in enumerate(problems):
                group.create_task(run(order, problem))
    except BaseExceptionGroup as raised:
        raise first_cause(raised, foremost=EndpointDown) from None


class Pending(NamedTuple):
    """The problems that are not finished yet, and the lines of all other problems."""

    problems: list[Problem]
    predictions: list[Prediction]
    failures: list[FailureLine]

    def remove_lines(self, directory: RunDirectory) -> None:
        """Remove the lines of pending problems from the prediction and failure files.

        Call it once the run can no longer be refused: a refused run must not change the files.
        """
        directory.replace("predictions.jsonl", self.predictions)
        directory.replace("failures.jsonl", self.failures)


def pending_problems(
    directory: RunDirectory, problems: Sequence[Problem], terms: dict[str, Any], reuse_finished: bool = True
) -> Pending:
    """The problems that are not finished yet.

    ``terms``: the current settings; a problem that was finished under other settings may have to be solved again.
    ``reuse_finished``: False treats all problems as not finished. A damaged line is set aside, and its problem
    counts as not finished: it is solved again, with its calls answered from the trace. So is a problem whose
    number of lines in ``failures.jsonl`` differs from the one in its prediction. The predictions of problems that are
    not in ``problems`` are kept as they are.
    """
    ids = {p.problem_id for p in problems}
    predictions = directory.undamaged_lines("predictions.jsonl", Prediction)
    failures = directory.undamaged_lines("failures.jsonl", FailureLine)
    counts = Counter(line.problem_id for line in failures)
    current = Terms.model_validate(terms)

    def is_reusable(line: Prediction) -> bool:
        return reuse_finished and is_finished(line, current) and counts[line.problem_id] == line.failures

    kept = {line.problem_id: line for line in predictions if line.problem_id not in ids or is_reusable(line)}
    return Pending(
        [p for p in problems if p.problem_id not in kept],
        list(kept.values()),
        [line for line in failures if line.problem_id in kept],
    )


def sort_lines(directory: RunDirectory, problems: Sequence[Problem]) -> None:
    """Sort the prediction and failure lines in the order of ``problems``. Lines of other problems come last."""
    position = {problem.problem_id: position for position, problem in enumerate(problems)}
    for name, kind in (("predictions.jsonl", Prediction), ("failures.jsonl", FailureLine)):
        lines = sorted(directory.lines(name, kind), key=lambda line: position.get(line.problem_id, len(position)))
        directory.replace(name, lines)


def write_metrics(directory: RunDirectory) -> None:
    """Compute ``metrics.json`` from the prediction and failure lines, and the prices in the manifest."""
    lines = list(directory.lines("predictions.jsonl", Prediction))
    directory.write_metrics(metrics(lines, directory.lines("failures.jsonl", FailureLine), directory.prices))


def is_finished(line: Prediction, terms: Terms) -> bool:
    """Whether the problem needs no more work under ``terms``."""
    if line.stop == "early_stop":
        return True
    if line.stop == "worker":
        return False
    return line.terms.method == terms.method and (line.stop != "budget" or line.terms.limits == terms.limits)
