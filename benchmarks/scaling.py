"""Scaling with the number of engines: the same run on 1, 2, 4 and 8 engines of equal capacity.

``python -m benchmarks.scaling`` runs TMAS with the project's method, session, limiter and router on scripted engines
with a virtual clock. Each engine decodes ``--slots`` completions at once, each at 50 tokens per second. Further
completions wait inside the engine, so an uneven distribution costs time, as on real engines. The lengths are those of
``benchmarks.scheduling``. Efficiency: the time on one engine, divided by the number of engines times the time on all.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import tempfile
from pathlib import Path

from benchmarks import support
from benchmarks.scheduling import ScriptedEngine
from benchmarks.support import run_in_directory
from tmas.concurrency import PriorityLimiter
from tmas.llm.chat_model import NO_HINT, RoutingHint
from tmas.llm.connection import ProgressCallback, StreamProgress
from tmas.llm.router import Router
from tmas.methods.tmas import TMASSettings
from tmas.records import Reply, Request
from tmas.testing.virtual_time import run_in_virtual_time

GOAL = 0.95
SPEED = 50.0
"""Tokens per second of each completion."""
PIECE = 500.0
"""Tokens between two progress reports to the router: ten seconds."""


class RoutedEngines:
    """Several engines as one chat model. The router chooses the engine of each call and gets the call's progress."""

    def __init__(self, engines: int, slots: int) -> None:
        names = [f"http://engine-{i}/v1" for i in range(engines)]
        self.engines = {name: ScriptedEngine(slots, SPEED, PIECE) for name in names}
        self._router = Router(names, engines * slots, asyncio.get_running_loop().time)

    async def complete(
        self, request: Request, on_progress: ProgressCallback | None = None, hint: RoutingHint = NO_HINT
    ) -> Reply:
        engine = self._router.choose(hint.problem, count=request.n)
        assert engine
        with engine.call(request.n) as count:

            def count_and_report(progress: StreamProgress) -> None:
                count(*progress)
                if on_progress:
                    on_progress(progress)

            return await self.engines[engine.base_url].complete(request, count_and_report, hint)


def makespan(engines: int, slots: int, problems: int, settings: TMASSettings) -> tuple[float, list[float]]:
    """The makespan in virtual seconds, and the tokens that each engine decoded. ``slots``: for each engine."""

    async def run() -> tuple[float, list[float]]:
        chat = RoutedEngines(engines, slots)
        with tempfile.TemporaryDirectory() as folder:
            limiter = PriorityLimiter(engines * slots)
            await run_in_directory(Path(folder), support.problems(problems), settings, chat, limiter)
        return asyncio.get_running_loop().time(), [engine.work for engine in chat.engines.values()]

    return run_in_virtual_time(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument(
        "--slots", "--places", dest="slots", type=int, default=32, help="completions that an engine decodes at once"
    )
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=5)
    arguments = parser.parse_args()
    settings = TMASSettings(max_iterations=arguments.iterations)
    print(f"{'engines':>7}  {'hours':>7}  {'efficiency':>10}  {'busiest over mean':>17}")
    on_one_engine, efficiency = math.nan, 1.0
    for engines in arguments.engines:
        seconds, work = makespan(engines, arguments.slots, arguments.problems, settings)
        if engines == arguments.engines[0]:
            on_one_engine = seconds * engines
        efficiency = on_one_engine / (engines * seconds)
        spread = max(work) * engines / sum(work)
        print(f"{engines:>7}  {seconds / 3600:>7.2f}  {efficiency:>10.3f}  {spread:>17.2f}", flush=True)
    met = efficiency >= GOAL
    print(f"goal {GOAL} with {arguments.engines[-1]} engines: {'met' if met else 'missed'}")
    sys.exit(not met)


if __name__ == "__main__":
    main()
