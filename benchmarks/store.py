"""The cost of reopening a finished run of the published size, and the growth of memory during the run.

``python -m benchmarks.store FOLDER`` solves 100 problems in 20 iterations with 8 candidates and 8 verifications each:
164,000 completions. It uses the project's runner and trace with scripted replies and writes the run to FOLDER/run. Then
it opens this run directory twice, as ``tmas solve`` does when it resumes, each time in a new process: once when all
problems are finished, and once with every problem replayed from its trace, which is the highest cost of resuming.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import support
from benchmarks.server import replies
from benchmarks.support import memory, peak_memory, run_in_directory
from tmas.concurrency import PriorityLimiter
from tmas.llm.chat_model import NO_HINT, RoutingHint
from tmas.llm.connection import ProgressCallback
from tmas.methods.tmas import TMASSettings
from tmas.records import Completion, Reply, Request, Usage
from tmas.run.activity import Activity
from tmas.run.directory import RunDirectory
from tmas.run.runner import pending_problems, write_metrics

REASONING = "Suppose not. Then some k has this property, and the least of them leads back to the case before. " * 20
STEPS = 10
"""Number of memory measurements in the run."""
GOAL = 1.1
"""Maximum ratio: memory at the end of the run, divided by memory halfway."""


class ScriptedChat:
    """A chat model that replies at once, with two kilobytes of reasoning in each reply."""

    async def complete(
        self, request: Request, on_progress: ProgressCallback | None = None, hint: RoutingHint = NO_HINT
    ) -> Reply:
        texts = replies({"messages": [m.model_dump() for m in request.messages], "n": request.n, "seed": request.seed})
        completions = tuple(Completion(text=text, reasoning=REASONING, thinking="server") for text in texts)
        return Reply(completions=completions, usage=Usage(calls=1, prompt_tokens=1000, completion_tokens=500))


async def solve(folder: Path, problems: int, settings: TMASSettings, active: int) -> list[tuple[int, float]]:
    """Make the run, or replay it. Returns :data:`STEPS` measurements at about equal distances.

    A measurement is the number of finished requests and the memory in MiB. ``active``: problems open at once.
    """
    activity, measurements = Activity(), []
    requests = problems * settings.max_iterations * (3 * settings.n_candidates + 2)

    async def watch() -> None:
        while len(measurements) < STEPS - 1:
            finished = activity.calls + activity.replayed
            if finished >= requests * (len(measurements) + 1) // STEPS:
                measurements.append((finished, memory()))
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    await run_in_directory(
        folder, support.problems(problems), settings, ScriptedChat(), PriorityLimiter(800), activity, active
    )
    watching.cancel()
    return [*measurements, (activity.calls + activity.replayed, memory())]


def make(folder: Path, problems: int, settings: TMASSettings, active: int) -> list[tuple[int, float]]:
    return uvloop.run(solve(folder, problems, settings, active))


def reopen(folder: Path, problems: int, settings: TMASSettings, active: int) -> int:
    """Open a finished run as ``tmas solve`` does. Returns the number of pending problems, 0."""
    inputs = support.problems(problems)
    with closing(RunDirectory(folder, {}, inputs)) as directory:
        pending = pending_problems(directory, inputs, {"method": settings.model_dump()})
        pending.remove_lines(directory)
        write_metrics(directory)
    return len(pending.problems)


def replay(folder: Path, problems: int, settings: TMASSettings, active: int) -> int:
    """Replay every problem from its trace. Returns the number of requests."""
    (folder / "predictions.jsonl").unlink()
    return uvloop.run(solve(folder, problems, settings, active))[-1][0]


def run_in_new_process(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """Run ``function`` in a new process. Returns its result, its seconds, and by how many MiB its memory grew."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_measure_here, function, *arguments).result()


def _measure_here(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    started, before = time.monotonic(), memory()
    result = function(*arguments)
    return result, time.monotonic() - started, peak_memory() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument(
        "--active", type=int, default=10, help="problems open at once; their earlier iterations stay in memory"
    )
    arguments = parser.parse_args()
    settings = TMASSettings(max_iterations=arguments.iterations)
    folder = arguments.folder / "run"
    shutil.rmtree(folder, ignore_errors=True)
    measurements, seconds, _ = run_in_new_process(make, folder, arguments.problems, settings, arguments.active)
    size = sum(file.stat().st_size for file in (folder / "trace").iterdir()) / 1e6
    completions = (
        arguments.problems * arguments.iterations * (2 + settings.n_candidates * (2 + settings.n_verifications))
    )
    total, at_end = measurements[-1]
    print(f"{completions:,} completions in {total:,} requests, {size:,.0f} MB of traces, made in {seconds:.0f} s")
    print("memory by finished requests: " + ", ".join(f"{calls:,}: {mib:.0f} MiB" for calls, mib in measurements))
    for name, function in {"all problems finished": reopen, "all problems replayed": replay}.items():
        count, seconds, mib = run_in_new_process(function, folder, arguments.problems, settings, arguments.active)
        print(f"{name:>22}: {seconds:6.1f} s, {mib:5.0f} MiB ({count:,})")
    halfway = next(mib for requests, mib in measurements if requests >= total / 2)
    growth = at_end / halfway
    print(f"memory, end / halfway: {growth:.2f}; goal {GOAL}: {'met' if growth <= GOAL else 'missed'}")
    sys.exit(growth > GOAL)


if __name__ == "__main__":
    main()
