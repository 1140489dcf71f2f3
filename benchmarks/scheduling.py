"""The makespan of three schedulers, compared with its lower bound.

``python -m benchmarks.scheduling`` runs TMAS at its published size (100 problems, 20 iterations, N = M = 8) with the
project's method, session, trace and limiter on a scripted engine, at several concurrencies. The clock is virtual: only
generation takes time. The lengths of completions are heavy-tailed (log-normal, at most 130,000 tokens). They depend on
the role, the problem and the call alone, so they are the same in all runs of a table.

The lower bound is the larger of two numbers: the critical path of the longest problem, and the total work divided by
the number of slots. The table shows the makespan divided by this bound, for three orders of the same calls:

- furthest behind first: the order of ``tmas solve``
- first come: in order of arrival
- stage by stage: no problem starts a stage before all problems have finished the previous one, as in other pipelines
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import math
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import NormalDist

from benchmarks import support
from benchmarks.support import UNBOUNDED, run_in_directory
from tmas.concurrency import PriorityLimiter, Slots
from tmas.llm.chat_model import NO_HINT, RoutingHint
from tmas.llm.connection import ProgressCallback, StreamProgress
from tmas.methods.tmas import TMASSettings
from tmas.records import Completion, Reply, Request, Usage
from tmas.testing import team
from tmas.testing.chat_server import Body
from tmas.testing.virtual_time import run_in_virtual_time

GOAL = 1.03
LONGEST = 130_000
MEDIAN = {"solution": 16_000, "verification": 8_000, "summary": 1_500, "experience": 4_000, "guideline": 3_000}
"""Median tokens of a completion of each role."""
SPREAD, PROBLEM_SPREAD = 0.8, 0.4
"""Standard deviations of the logarithm of a length: within a problem, and between problems."""


def same_answer(role: str, body: Body) -> list[str]:
    """The texts of the scripted team, with the same answer in all solutions."""
    return [r"The answer is \boxed{7}."] * body["n"] if role == "solution" else team.reply(body)


class ScriptedEngine:
    """Decodes up to ``slots`` completions at once; others wait in order of arrival.

    ``speed``: tokens per second of each completion. ``piece``: tokens between two progress reports. ``reply``: the
    texts of a request of a role. ``work``: tokens decoded so far.
    """

    def __init__(
        self,
        slots: int,
        speed: float = 1.0,
        piece: float = math.inf,
        reply: Callable[[str, Body], list[str]] = same_answer,
    ) -> None:
        self._slots, self._speed, self._piece, self._reply = PriorityLimiter(slots), speed, piece, reply
        self.work = 0.0

    async def complete(
        self, request: Request, on_progress: ProgressCallback | None = None, hint: RoutingHint = NO_HINT
    ) -> Reply:
        body = {"messages": [m.model_dump() for m in request.messages], "n": request.n, "seed": request.seed}
        role, tokens, ended = team.role_of(body), 0.0, 0

        async def decode(choice: int) -> None:
            nonlocal tokens, ended
            remaining = length(role, f"{request.seed}/{choice}", team.prompt(body))
            self.work += remaining
            async with self._slots.slots(()):
                while remaining > 0:
                    piece = min(remaining, self._piece)
                    await asyncio.sleep(piece / self._speed)
                    remaining, tokens = remaining - piece, tokens + piece
                    ended += remaining == 0
                    if on_progress:
                        on_progress(StreamProgress(int(tokens), ended))

        async with asyncio.TaskGroup() as group:
            for choice in range(request.n):
                group.create_task(decode(choice))
        texts = self._reply(role, body)
        return Reply(completions=tuple(Completion(text=text) for text in texts), usage=Usage(calls=1))


def length(role: str, call: str, prompt: str) -> float:
    """The length of a completion in tokens. The prompt up to its first question mark stands for the problem."""
    problem = prompt.partition("?")[0]
    normal = SPREAD * _normal(call) + PROBLEM_SPREAD * _normal(problem)
    return min(LONGEST, MEDIAN[role] * math.exp(normal))


def _normal(name: str) -> float:
    """A number from the standard normal distribution, derived from ``name``."""
    uniform = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]) / 2**56
    return NormalDist().inv_cdf(max(uniform, 1e-12))


class FirstCome(PriorityLimiter):
    """Ignores priorities: calls start in order of arrival."""

    @asynccontextmanager
    async def slots(self, priority: tuple[int, ...], count: int = 1) -> AsyncIterator[Slots]:
        async with super().slots((), count) as slots:
            yield slots


class StageByStage(PriorityLimiter):
    """Starts calls only when no call is in flight, and then all calls that wait, in order of priority."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._in_flight = 0
        self._stage = asyncio.Event()

    @asynccontextmanager
    async def slots(self, priority: tuple[int, ...], count: int = 1) -> AsyncIterator[Slots]:
        stage = self._stage
        if not self._in_flight:
            asyncio.get_running_loop().call_later(1e-6, self._start_stage)
        await stage.wait()
        self._in_flight += 1
        try:
            async with super().slots(priority, count) as slots:
                yield slots
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                asyncio.get_running_loop().call_later(1e-6, self._start_stage)

    def _start_stage(self) -> None:
        """Start the calls that wait now. They are one stage: the next calls of all problems."""
        if not self._in_flight:
            self._stage.set()
            self._stage = asyncio.Event()


def measure(
    order: type[PriorityLimiter],
    concurrency: int,
    problems: int,
    settings: TMASSettings,
    reply: Callable[[str, Body], list[str]] = same_answer,
) -> tuple[float, float]:
    """The makespan in virtual seconds and the work in tokens. ``order``: the limiter that orders the calls."""

    async def run() -> tuple[float, float]:
        engine = ScriptedEngine(concurrency, reply=reply)
        with tempfile.TemporaryDirectory() as folder:
            await run_in_directory(Path(folder), support.problems(problems), settings, engine, order(concurrency))
        return asyncio.get_running_loop().time(), engine.work

    return run_in_virtual_time(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[400, 800, 1600])
    arguments = parser.parse_args()
    settings = TMASSettings(max_iterations=arguments.iterations)
    started = time.monotonic()
    critical, work = measure(PriorityLimiter, UNBOUNDED, arguments.problems, settings)
    size = f"{arguments.problems} problems, {arguments.iterations} iterations"
    print(f"{size}: {work:,.0f} tokens, critical path {critical:,.0f}")
    orders = {"furthest behind first": PriorityLimiter, "first come": FirstCome, "stage by stage": StageByStage}
    print(f"{'concurrency':>11}  {'bound':>11}  " + "  ".join(f"{name:>21}" for name in orders))
    met = True
    for concurrency in arguments.concurrency:
        bound = max(critical, work / concurrency)
        ratios = [measure(order, concurrency, arguments.problems, settings)[0] / bound for order in orders.values()]
        met &= ratios[0] <= GOAL
        print(f"{concurrency:>11,}  {bound:>11,.0f}  " + "  ".join(f"{ratio:>21.3f}" for ratio in ratios), flush=True)
    print(f"goal {GOAL}: {'met' if met else 'missed'} (took {time.monotonic() - started:.0f} s)")
    sys.exit(not met)


if __name__ == "__main__":
    main()
