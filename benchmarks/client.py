"""What a call costs the client: CPU time, and memory while it is in flight, with thousands of them at once.

The goal is a ratio: a call of TMAS takes at most a quarter of the CPU time that a call of the ``openai`` client takes
in the same run. Milliseconds depend on the machine and on what else it does.

``python -m benchmarks.client`` runs TMAS by ``tmas.api`` as ``tmas solve`` does, all in (rendering, packing, client,
parsing, trace on disk), against a server in a process of its own that holds each request for a while and streams its
reply in pieces. M is 1, so that each call is a request of its own and as many requests are in flight as are allowed.
Beside it stands the official ``openai`` client with the same server and as many requests in flight, of one short prompt
and with nothing around them. Each is measured in a fresh process.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.server import served
from benchmarks.support import memory, most_memory
from tmas.api import run
from tmas.methods.tmas import TMASSettings
from tmas.records import Problem
from tmas.run.session import Activity
from tmas.settings import ModelSettings, RunSettings

GOAL = 0.25
"""CPU time of a call of TMAS over that of a call of the ``openai`` client."""
RATE = 500
"""Requests a second that the server answers when as many are in flight as may be."""
PATIENCE = 120.0
"""Seconds for the ``openai`` client's calls; those that have no reply by then count as failed."""


@dataclass(frozen=True)
class Cost:
    """``failed``: calls with no reply; ``most``: the most that were in flight."""

    calls: int
    failed: int
    most: int
    cpu_ms: float
    kib: float
    seconds: float


class Meter:
    """CPU time and memory of this process from the construction on, which the most calls in flight are to blame for."""

    def __init__(self) -> None:
        self.most = 0
        self._cpu, self._start, self._memory = time.process_time(), time.monotonic(), memory()

    async def watch(self, activity: Activity) -> None:
        while True:
            self.most = max(self.most, activity.in_flight)
            await asyncio.sleep(0.2)

    def read(self, calls: int, failed: int) -> Cost:
        cpu, grown = time.process_time() - self._cpu, most_memory() - self._memory
        seconds = time.monotonic() - self._start
        return Cost(calls, failed, self.most, 1000 * cpu / calls, 1024 * grown / self.most, seconds)


async def tmas(base_url: str, concurrency: int, problems: int) -> Cost:
    asked = [Problem(problem_id=f"p{i}", question=f"What is {i} + {i}?") for i in range(problems)]
    settings = RunSettings(
        model=ModelSettings(name="scripted", base_url=base_url, context_length=131_072),
        method=TMASSettings(n_verifications=1, max_iterations=2),
        concurrency=concurrency,
        active_problems=problems,
    )
    activity = Activity()
    with tempfile.TemporaryDirectory() as folder:
        meter = Meter()
        watching = asyncio.create_task(meter.watch(activity))
        await run(asked, settings, Path(folder, "run"), activity=activity)
        watching.cancel()
        return meter.read(activity.calls, activity.failed)


async def openai(base_url: str, concurrency: int, problems: int) -> Cost:
    """As many calls as may be in flight, all at once. Retries are off: each would be another call."""
    from openai import AsyncOpenAI, OpenAIError

    activity, served = Activity(), 0
    async with AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:

        async def call(number: int) -> None:
            nonlocal served
            question: Any = [{"role": "user", "content": f"What is {number}?"}]
            activity.in_flight += 1
            try:
                stream = await client.chat.completions.create(model="scripted", messages=question, stream=True)
                async for _ in stream:
                    pass
                served += 1
            except OpenAIError:
                pass
            finally:
                activity.in_flight -= 1

        meter = Meter()
        watching = asyncio.create_task(meter.watch(activity))
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*(call(number) for number in range(concurrency)))
        watching.cancel()
        return meter.read(concurrency, concurrency - served)


TMAS, OPENAI = "tmas, all in", "openai, bare"
CLIENTS = {TMAS: tmas, OPENAI: openai}


def measure(name: str, concurrency: int, problems: int, pieces: int = 8, rate: float = RATE) -> Cost:
    """In a process of its own."""
    with (
        served(concurrency / rate, pieces) as base_url,
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process,
    ):
        return process.submit(_run, name, base_url, concurrency, problems).result()


def _run(name: str, base_url: str, concurrency: int, problems: int) -> Cost:
    return uvloop.run(CLIENTS[name](base_url, concurrency, problems))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[800, 4000])
    parser.add_argument("--pieces", type=int, default=8, help="pieces in which a reply is streamed")
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=list(CLIENTS))
    given = parser.parse_args()
    print(f"{'client':>12}  {'in flight':>9}  {'calls':>6}  {'failed':>6}  {'CPU ms a call':>13}  {'KiB a call':>10}")
    met = True
    for concurrency in given.concurrency:
        cpu_ms: dict[str, float] = {}
        for name in given.clients:
            cost = measure(name, concurrency, concurrency // 6, given.pieces)
            cpu_ms[name] = cost.cpu_ms
            print(
                f"{name:>12}  {cost.most:>9,}  {cost.calls:>6,}  {cost.failed:>6,}  {cost.cpu_ms:>13.2f}  "
                f"{cost.kib:>10.0f}  ({cost.seconds:.0f} s)",
                flush=True,
            )
        if cpu_ms.keys() == CLIENTS.keys():
            ratio = cpu_ms[TMAS] / cpu_ms[OPENAI]
            met &= ratio <= GOAL
            verdict = "met" if ratio <= GOAL else "missed"
            print(f"{concurrency:,} in flight: {ratio:.2f} of the openai client's CPU time, goal {GOAL}: {verdict}")
    sys.exit(not met)


if __name__ == "__main__":
    main()
