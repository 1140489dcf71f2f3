"""What a finished run of the published size costs to open again, and whether memory grows as its calls are finished.

``python -m benchmarks.store FOLDER`` solves 100 problems over 20 iterations of 8 candidates with 8 verifications each,
164,000 completions, by the project's own runner and store with scripted replies, into FOLDER/run. Then, each in a fresh
process, it opens that run directory as ``tmas solve`` does when the command is given again: once as it is (nothing is
left to do), and once with every problem replayed from its trace, which is what resuming costs at most.
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
from benchmarks.support import memory, most_memory, run_into
from tmas.concurrency import PriorityLimiter
from tmas.llm.client import NO_HINT, RoutingHint
from tmas.llm.connection import ProgressCallback
from tmas.methods.tmas import TMASSettings
from tmas.records import Completion, Reply, Request, Usage
from tmas.run.directory import RunDirectory
from tmas.run.runner import pending_problems, write_metrics
from tmas.run.session import Activity

REASONING = "Suppose not. Then some k has this property, and the least of them leads back to the case before. " * 20
STEPS = 10
"""Lines of the table of memory."""
GOAL = 1.1
"""Memory at the end of the run over what it was half way."""


class Scripted:
    """Replies at once, each with two kilobytes of reasoning."""

    async def complete(
        self, request: Request, on_progress: ProgressCallback | None = None, hint: RoutingHint = NO_HINT
    ) -> Reply:
        texts = replies({"messages": [m.model_dump() for m in request.messages], "n": request.n, "seed": request.seed})
        completions = tuple(Completion(text=text, reasoning=REASONING, thinking="server") for text in texts)
        return Reply(completions=completions, usage=Usage(calls=1, prompt_tokens=1000, completion_tokens=500))


async def solve(folder: Path, problems: int, settings: TMASSettings, active: int) -> list[tuple[int, float]]:
    """Make the run, or replay it; memory by the number of requests finished, at about equal distances."""
    activity, seen = Activity(), []
    requests = problems * settings.max_iterations * (3 * settings.n_candidates + 2)

    async def watch() -> None:
        while len(seen) < STEPS - 1:
            finished = activity.calls + activity.replayed
            if finished >= requests * (len(seen) + 1) // STEPS:
                seen.append((finished, memory()))
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    await run_into(folder, support.problems(problems), settings, Scripted(), PriorityLimiter(800), activity, active)
    watching.cancel()
    return [*seen, (activity.calls + activity.replayed, memory())]


def make(folder: Path, problems: int, settings: TMASSettings, active: int) -> list[tuple[int, float]]:
    return uvloop.run(solve(folder, problems, settings, active))


def reopen(folder: Path, problems: int, settings: TMASSettings, active: int) -> int:
    """As ``tmas solve`` does where nothing is left to do: the problems that are left."""
    asked = support.problems(problems)
    with closing(RunDirectory(folder, {}, asked)) as directory:
        left = pending_problems(directory, asked, {"method": settings.model_dump()})
        write_metrics(directory)
    return len(left)


def replay(folder: Path, problems: int, settings: TMASSettings, active: int) -> int:
    """Every problem again, from its trace: the calls that were found there."""
    (folder / "predictions.jsonl").unlink()
    return uvloop.run(solve(folder, problems, settings, active))[-1][0]


def fresh(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """The outcome of ``function`` in a process of its own, its seconds, and the MiB that it added at most."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_measured, function, *arguments).result()


def _measured(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    started, before = time.monotonic(), memory()
    outcome = function(*arguments)
    return outcome, time.monotonic() - started, most_memory() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--active", type=int, default=10, help="problems open at once; their earlier rounds are held")
    given = parser.parse_args()
    settings = TMASSettings(max_iterations=given.iterations)
    shape = (given.folder / "run", given.problems, settings, given.active)
    shutil.rmtree(shape[0], ignore_errors=True)
    grown, seconds, _ = fresh(make, *shape)
    size = sum(file.stat().st_size for file in (shape[0] / "trace").iterdir()) / 1e6
    completions = given.problems * given.iterations * (2 + settings.n_candidates * (2 + settings.n_verifications))
    print(
        f"{completions:,} completions in {grown[-1][0]:,} requests, {size:,.0f} MB of traces, made in {seconds:.0f} s"
    )
    print("memory by requests finished: " + ", ".join(f"{calls:,}: {mib:.0f} MiB" for calls, mib in grown))
    for name, function in {"nothing left to do": reopen, "every problem replayed": replay}.items():
        outcome, seconds, mib = fresh(function, *shape)
        print(f"{name:>22}: {seconds:6.1f} s, {mib:5.0f} MiB ({outcome:,})")
    half_way = next(mib for requests, mib in grown if requests >= grown[-1][0] / 2)
    growth = grown[-1][1] / half_way
    print(f"memory at the end over half way: {growth:.2f}; goal {GOAL}: {'met' if growth <= GOAL else 'missed'}")
    sys.exit(growth > GOAL)


if __name__ == "__main__":
    main()
