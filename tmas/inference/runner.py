"""Runs a method over problems: all at once, each in its own session, every result on disk as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Protocol

from tmas.agents import Session
from tmas.answers import AnswerChecker
from tmas.inference.endpoint import EndpointDown
from tmas.inference.metrics import metrics
from tmas.inference.results import failure_lines, prediction_line, usage_of_line, verdicts
from tmas.inference.run_directory import RunDirectory
from tmas.inference.session import ProblemSession, Run
from tmas.records import Problem, Result, Trajectory, Usage


class Method(Protocol):
    """A deterministic function of (problem, seed) whose only effects are the session's calls."""

    async def solve(self, problem: Problem, session: Session) -> Trajectory: ...


async def run_problems(
    problems: Sequence[Problem],
    method: Method,
    run: Run,
    directory: RunDirectory,
    checker: AnswerChecker,
    terms: dict[str, Any],
    active: int,
    on_result: Callable[[Result], None],
) -> None:
    """Solve ``problems``, at most ``active`` of them open at once; each result is written before it is handed on.

    ``terms``: see :func:`~tmas.inference.results.prediction_line`. Raises the first thing that stops the run, such as
    :class:`~tmas.inference.endpoint.EndpointDown`; what was done stays in the directory.
    """
    gate = asyncio.Semaphore(active)

    async def solve(order: int, problem: Problem) -> None:
        async with gate:
            result = await _solve_one(problem, method, terms, run, directory, order)
            line = prediction_line(result, terms, await verdicts(result, checker))
            directory.append("failures.jsonl", failure_lines(result))
            directory.append("predictions.jsonl", [line])
            on_result(result)

    try:
        async with asyncio.TaskGroup() as group:
            for order, problem in enumerate(problems):
                group.create_task(solve(order, problem))
    except BaseExceptionGroup as raised:
        raise _first_cause(raised) from None


async def _solve_one(
    problem: Problem, method: Method, terms: dict[str, Any], run: Run, directory: RunDirectory, order: int
) -> Result:
    with closing(directory.trace(problem)) as trace:
        session = ProblemSession(problem, trace, run, order)
        trajectory = await method.solve(problem, session)
    return Result(
        problem=problem,
        method=terms["method"]["name"],
        trajectory=trajectory,
        usage=session.usage,
        failures=tuple(f for iteration in trajectory.iterations for f in iteration.all_failures),
        packed_prompts=session.packed,
    )


def keep_finished(
    directory: RunDirectory, problems: Sequence[Problem], terms: dict[str, Any], keep: bool = True
) -> tuple[list[Problem], Usage]:
    """The problems that are left to do, and what the finished ones cost. ``keep`` False: none counts as finished.

    Lines of problems that are left to do are taken out of the prediction and failure files.
    """
    asked = {p.problem_id for p in problems}
    kept = {
        line["problem_id"]: line
        for line in directory.lines("predictions.jsonl")
        if line["problem_id"] not in asked or (keep and _stands(line, terms))
    }
    directory.replace("predictions.jsonl", kept.values())
    directory.replace("failures.jsonl", [f for f in directory.lines("failures.jsonl") if f["problem_id"] in kept])
    spent = sum((usage_of_line(line) for line in kept.values()), Usage())
    return [p for p in problems if p.problem_id not in kept], spent


def write_metrics(directory: RunDirectory) -> None:
    """``metrics.json`` from the prediction and failure lines."""
    directory.write_metrics(metrics(list(directory.lines("predictions.jsonl")), directory.lines("failures.jsonl")))


def _stands(line: dict[str, Any], terms: dict[str, Any]) -> bool:
    if line["stop"] == "early_stop":
        return True
    same_method = line["terms"]["method"] == terms["method"]
    return same_method and (line["stop"] != "budget" or line["terms"]["limits"] == terms["limits"])


def _first_cause(raised: BaseExceptionGroup[BaseException]) -> BaseException:
    """A dead endpoint before anything else, otherwise the first thing that went wrong."""
    causes = list(_leaves(raised))
    return next((c for c in causes if isinstance(c, EndpointDown)), causes[0])


def _leaves(raised: BaseException) -> list[BaseException]:
    if isinstance(raised, BaseExceptionGroup):
        return [leaf for inner in raised.exceptions for leaf in _leaves(inner)]
    return [raised]
