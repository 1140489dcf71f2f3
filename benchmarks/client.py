"""The client's cost of a call: CPU time, and memory while the call is in flight, with thousands of calls at once.

The goal is a ratio: a call of TMAS takes at most a quarter of the CPU time of a call of the ``openai`` client in the
same run. Absolute times depend on the machine and its other load.

``python -m benchmarks.client`` runs TMAS with ``tmas.api``, as ``tmas solve`` does. The cost includes rendering,
packing, the client, parsing and the trace on disk. A server in another process delays each request and streams its
reply in pieces. Each candidate gets one verification (M = 1): every call asks for one completion,
so the number of requests in flight can reach the limit, which counts completions.

For comparison, the official ``openai`` client sends the same number of requests to the same server, with one short
prompt each and without any other work. Each client is measured in a new process.
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

from benchmarks.server import chat_server
from benchmarks.support import memory, peak_memory
from tmas.api import run
from tmas.methods.tmas import TMASSettings
from tmas.records import Problem
from tmas.run.activity import Activity
from tmas.settings import ModelSettings, RunSettings

GOAL = 0.25
"""Maximum ratio: CPU time of a call of TMAS, divided by that of a call of the ``openai`` client."""
RATE = 500
"""Requests that the server answers per second when the maximum number is in flight."""
REPLY_TIMEOUT = 120.0
"""Seconds for all calls of the ``openai`` client. Calls without a reply after that count as failed."""


@dataclass(frozen=True)
class Cost:
    """What calls cost. ``failed``: calls without a reply. ``peak``: maximum number of calls in flight.

    ``cpu_ms``: CPU time per call in milliseconds. ``kib``: memory per call in flight in KiB. ``seconds``: wall time.
    """

    calls: int
    failed: int
    peak: int
    cpu_ms: float
    kib: float
    seconds: float


class Meter:
    """Measures CPU time and memory of this process since its construction.

    The growth of memory is divided by the maximum number of calls in flight.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._cpu, self._start, self._memory = time.process_time(), time.monotonic(), memory()

    async def watch(self, activity: Activity) -> None:
        while True:
            self.peak = max(self.peak, activity.in_flight)
            await asyncio.sleep(0.2)

    def read(self, calls: int, failed: int) -> Cost:
        cpu, grown = time.process_time() - self._cpu, peak_memory() - self._memory
        seconds = time.monotonic() - self._start
        return Cost(calls, failed, self.peak, 1000 * cpu / calls, 1024 * grown / max(1, self.peak), seconds)


async def tmas(base_url: str, concurrency: int, problems: int) -> Cost:
    """Run TMAS on ``problems`` problems with ``concurrency`` calls in flight."""
    inputs = [Problem(problem_id=f"p{i}", question=f"What is {i} + {i}?") for i in range(problems)]
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
        await run(inputs, settings, Path(folder, "run"), activity=activity)
        watching.cancel()
        return meter.read(activity.calls, activity.failed)


async def openai(base_url: str, concurrency: int, problems: int) -> Cost:
    """Make ``concurrency`` calls at once. Retries are off, because each retry would be another call."""
    from openai import AsyncOpenAI, OpenAIError

    activity, answered = Activity(), 0
    async with AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:

        async def call(number: int) -> None:
            nonlocal answered
            question: Any = [{"role": "user", "content": f"What is {number}?"}]
            activity.in_flight += 1
            try:
                stream = await client.chat.completions.create(model="scripted", messages=question, stream=True)
                async for _ in stream:
                    pass
                answered += 1
            except OpenAIError:
                pass
            finally:
                activity.in_flight -= 1

        meter = Meter()
        watching = asyncio.create_task(meter.watch(activity))
        with suppress(TimeoutError):
            async with asyncio.timeout(REPLY_TIMEOUT):
                await asyncio.gather(*(call(number) for number in range(concurrency)))
        watching.cancel()
        return meter.read(concurrency, concurrency - answered)


TMAS, OPENAI = "tmas, all in", "openai, bare"
CLIENTS = {TMAS: tmas, OPENAI: openai}


def measure(name: str, concurrency: int, problems: int, pieces: int = 8, rate: float = RATE) -> Cost:
    """The cost of the calls of one client, measured in a new process. ``name``: a key of ``CLIENTS``.

    ``pieces``: pieces in which a reply is streamed. ``rate``: see :data:`RATE`.
    """
    with (
        chat_server(concurrency / rate, pieces) as base_url,
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
    arguments = parser.parse_args()
    print(f"{'client':>12}  {'in flight':>9}  {'calls':>6}  {'failed':>6}  {'CPU ms/call':>13}  {'KiB/call':>10}")
    met = True
    for concurrency in arguments.concurrency:
        cpu_ms: dict[str, float] = {}
        for name in arguments.clients:
            cost = measure(name, concurrency, concurrency // 6, arguments.pieces)
            cpu_ms[name] = cost.cpu_ms
            print(
                f"{name:>12}  {cost.peak:>9,}  {cost.calls:>6,}  {cost.failed:>6,}  {cost.cpu_ms:>13.2f}  "
                f"{cost.kib:>10.0f}  ({cost.seconds:.0f} s)",
                flush=True,
            )
        if cpu_ms.keys() == CLIENTS.keys():
            ratio = cpu_ms[TMAS] / cpu_ms[OPENAI]
            met &= ratio <= GOAL
            outcome = "met" if ratio <= GOAL else "missed"
            print(f"{concurrency:,} in flight: {ratio:.2f} of the openai client's CPU time, goal {GOAL}: {outcome}")
    sys.exit(not met)


if __name__ == "__main__":
    main()
