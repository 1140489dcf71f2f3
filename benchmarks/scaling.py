"""How much faster a run gets with more engines: the same run on 1, 2, 4 and 8 of them, of fixed capacity each.

``python -m benchmarks.scaling`` runs TMAS with the project's own method, session, limiter and router on scripted
engines with a virtual clock. Each engine decodes so many completions at once, at 50 tokens a second each; what comes
beyond that waits inside it, so that an uneven spread costs what it costs in life. The lengths are those of
``benchmarks.scheduling``. Efficiency: the time on one engine over the number of engines times the time on all of them.
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
from benchmarks.support import run_into
from tmas.concurrency import PriorityLimiter
from tmas.llm.client import NO_HINT, RoutingHint
from tmas.llm.connection import ProgressCallback, StreamProgress
from tmas.llm.router import Router
from tmas.methods.tmas import TMASSettings
from tmas.records import Reply, Request
from tmas.testing.virtual_time import run_in_virtual_time

GOAL = 0.95
SPEED = 50.0
"""Tokens a second of a completion."""
PIECE = 500.0
"""Tokens after which the router hears of them: every ten seconds."""


class Routed:
    """Several engines as one model: each call goes where the router sends it, which hears of every token."""

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
    """Virtual seconds, and the tokens that each engine decoded."""

    async def run() -> tuple[float, list[float]]:
        chat = Routed(engines, slots)
        with tempfile.TemporaryDirectory() as folder:
            limiter = PriorityLimiter(engines * slots)
            await run_into(Path(folder), support.problems(problems), settings, chat, limiter)
        return asyncio.get_running_loop().time(), [engine.work for engine in chat.engines.values()]

    return run_in_virtual_time(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--places", type=int, default=32, help="completions that an engine decodes at once")
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=5)
    given = parser.parse_args()
    settings = TMASSettings(max_iterations=given.iterations)
    print(f"{'engines':>7}  {'hours':>7}  {'efficiency':>10}  {'busiest over mean':>17}")
    alone, efficiency = math.nan, 1.0
    for engines in given.engines:
        seconds, work = makespan(engines, given.places, given.problems, settings)
        if engines == given.engines[0]:
            alone = seconds * engines
        efficiency = alone / (engines * seconds)
        spread = max(work) * engines / sum(work)
        print(f"{engines:>7}  {seconds / 3600:>7.2f}  {efficiency:>10.3f}  {spread:>17.2f}", flush=True)
    met = efficiency >= GOAL
    print(f"goal {GOAL} with {given.engines[-1]} engines: {'met' if met else 'missed'}")
    sys.exit(not met)


if __name__ == "__main__":
    main()
