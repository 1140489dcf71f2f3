"""Helpers that several benchmarks share: a run on the benchmark's own chat model, and the memory of the process."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tmas.answers.checker import AnswerChecker
from tmas.concurrency import PriorityLimiter
from tmas.llm.chat_model import ChatModel
from tmas.llm.tokens import ContextWindow
from tmas.methods.tmas import TMAS, TMASSettings
from tmas.records import Problem, Sampling
from tmas.run.activity import Activity
from tmas.run.directory import RunDirectory
from tmas.run.garbage import rare_collections
from tmas.run.runner import run_problems
from tmas.run.solver import ProblemSolver
from tmas.run.state import RoleModel, RunState

UNBOUNDED = 10**9


def problems(count: int) -> list[Problem]:
    return [Problem(problem_id=f"p{i}", question=f"Number {i} of {count}?") for i in range(count)]


async def run_in_directory(
    folder: Path,
    inputs: Sequence[Problem],
    settings: TMASSettings,
    chat: ChatModel,
    limiter: PriorityLimiter,
    activity: Activity | None = None,
    active: int = UNBOUNDED,
) -> None:
    """Solve ``inputs`` with TMAS and the chat model ``chat`` in the run directory ``folder``, or replay the run there.

    ``limiter``: decides how many calls are in flight, and their order. ``active``: problems open at once.
    """
    window = ContextWindow(len, UNBOUNDED, 1)
    roles = {role: RoleModel(chat, "scripted", Sampling(), window) for role in settings.roles}
    run = RunState(roles, limiter, activity=activity or Activity())
    with rare_collections(), closing(RunDirectory(folder, {}, inputs)) as directory:
        async with AnswerChecker() as checker:
            solve = ProblemSolver(TMAS(settings, checker), run, directory.path).solve
            terms = {"method": settings.model_dump()}
            gate = PriorityLimiter(active)
            await run_problems(inputs, solve, directory, checker, lambda: terms, gate, lambda _: None)


def memory() -> float:
    """Resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
