"""Engine utilization of TMAS: tokens per second in a run, divided by tokens per second of the saturated engine.

``python -m benchmarks.engine_use`` starts a real vLLM server with a small model of random weights. It measures the
tokens per second three times:

1. a run of TMAS with the project's method, session, trace and client, scripted texts and heavy-tailed lengths (see
   ``benchmarks.engine``)
2. the same prompts and lengths again, all requests at once and without any other work: the engine is saturated
3. the run of step 1 again, because the speed of the machine can change in between. The mean of steps 1 and 3 counts.

vLLM computes on one core, in place of a GPU. Everything else, including vLLM's HTTP server, uses the other cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks import support
from benchmarks.engine import RealEngine, ScriptedReplies, real_engine
from benchmarks.scheduling import length
from benchmarks.support import run_in_directory
from tmas.concurrency import PriorityLimiter, gather_all
from tmas.methods.tmas import TMASSettings
from tmas.records import Request, Sampling
from tmas.testing import team

GOAL = 0.95
SEQUENCES = 32
"""Completions that vLLM decodes at once."""
CORE = min(os.sched_getaffinity(0))
"""The CPU core on which vLLM computes."""
SIZES = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "head_dim": 64,
}
"""Sizes of the model. It is large enough to make the engine the bottleneck, not the streaming of its tokens."""
GENERATED = "vllm:generation_tokens_total"


async def tokens_per_second(engine: RealEngine, work: asyncio.Future[object] | asyncio.Task[object]) -> float:
    """Wait for ``work`` and return the tokens per second that ``engine`` generated meanwhile."""
    before, started, cpu_before = await engine.counters(), time.monotonic(), time.process_time()
    await work
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu_before
    after = await engine.counters()
    tokens = sum(after[name] - before[name] for name in after if name.startswith(GENERATED))
    print(
        f"{tokens:,.0f} tokens in {seconds:.0f} s: {tokens / seconds:.0f} per second; client CPU time {cpu:.0f} s",
        flush=True,
    )
    return tokens / seconds


async def measure(problems: int, shorter: float, settings: TMASSettings) -> float:
    """The utilization. ``shorter``: factor by which completions are shorter than the published ones."""

    def tokens(request: Request) -> int:
        body = {"messages": [m.model_dump() for m in request.messages]}
        return max(4, int(length(team.role_of(body), str(request.seed), team.prompt(body)) / shorter))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with real_engine(folder, SEQUENCES, core=CORE, **SIZES) as engine:

            async def run(salt: str) -> tuple[float, list[Request]]:
                scripted = ScriptedReplies(engine.chat, team.reply, tokens, salt)
                inputs, limiter = support.problems(problems), PriorityLimiter(2 * SEQUENCES)
                work = asyncio.ensure_future(run_in_directory(folder / salt, inputs, settings, scripted, limiter))
                return await tokens_per_second(engine, work), scripted.requests

            first, requests = await run("run")
            repeated = [with_salt(request, "again") for request in requests]
            all_at_once = asyncio.ensure_future(gather_all(engine.chat.complete(request) for request in repeated))
            saturated = await tokens_per_second(engine, all_at_once)
            second, _ = await run("second")
            return (first + second) / 2 / saturated


def with_salt(request: Request, salt: str) -> Request:
    extra = {**request.sampling.extra, "cache_salt": salt}
    sampling = Sampling(max_tokens=request.sampling.max_tokens, extra=extra)
    return request.model_copy(update={"sampling": sampling})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=24)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument(
        "--shorter", type=float, default=400.0, help="factor by which completions are shorter than published"
    )
    arguments = parser.parse_args()
    settings = TMASSettings(n_candidates=4, n_verifications=4, max_iterations=arguments.iterations)
    ratio = uvloop.run(measure(arguments.problems, arguments.shorter, settings))
    print(f"tokens per second, run / saturated: {ratio:.3f}; goal {GOAL}: {'met' if ratio >= GOAL else 'missed'}")
    sys.exit(ratio < GOAL)


if __name__ == "__main__":
    main()
