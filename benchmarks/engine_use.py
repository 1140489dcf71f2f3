"""How much of an engine TMAS uses: tokens a second in a run over those of the same engine when it is saturated.

``python -m benchmarks.engine_use`` starts a real vLLM with a small model of random weights, runs TMAS on it by the
project's own method, session, trace and client, with scripted words and heavy-tailed lengths (see
``benchmarks.engine``), and then asks for the same prompts and lengths again, all at once and with nothing around them.
The run is made a second time after that, for a machine may become slower or faster meanwhile: what counts is the mean
of the two. The engine computes on one core, as it would on a GPU; all else, vLLM's HTTP server too, has the others.
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
from benchmarks.engine import Dubbed, RealEngine, real_engine
from benchmarks.scheduling import length
from benchmarks.support import run_into
from tmas.concurrency import PriorityLimiter, gather_all
from tmas.methods.tmas import TMASSettings
from tmas.records import Request, Sampling
from tmas.testing import team

GOAL = 0.95
SEQUENCES = 32
"""What vLLM decodes at once."""
CORE = min(os.sched_getaffinity(0))
"""Where it computes."""
SIZES = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "head_dim": 64,
}
"""Of a model large enough that the engine is the bottleneck, and not what streams its tokens."""
GENERATED = "vllm:generation_tokens_total"


async def tokens_per_second(engine: RealEngine, work: asyncio.Future[object] | asyncio.Task[object]) -> float:
    before, started, worked = await engine.counters(), time.monotonic(), time.process_time()
    await work
    seconds, own, after = time.monotonic() - started, time.process_time() - worked, await engine.counters()
    tokens = sum(after[name] - before[name] for name in after if name.startswith(GENERATED))
    print(
        f"{tokens:,.0f} tokens in {seconds:.0f} s: {tokens / seconds:.0f} a second; {own:.0f} s of CPU on this side",
        flush=True,
    )
    return tokens / seconds


async def measure(problems: int, shorter: float, settings: TMASSettings) -> float:
    """Tokens a second in a run of TMAS over those when saturated."""

    def tokens(request: Request) -> int:
        body = {"messages": [m.model_dump() for m in request.messages]}
        return max(4, int(length(team.role_of(body), str(request.seed), team.prompt(body)) / shorter))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with real_engine(folder, SEQUENCES, core=CORE, **SIZES) as engine:

            async def run(salt: str) -> tuple[float, list[Request]]:
                dubbed = Dubbed(engine.chat, team.reply, tokens, salt)
                asked, limiter = support.problems(problems), PriorityLimiter(2 * SEQUENCES)
                work = asyncio.ensure_future(run_into(folder / salt, asked, settings, dubbed, limiter))
                return await tokens_per_second(engine, work), dubbed.asked

            first, asked = await run("run")
            again = [salted(request, "again") for request in asked]
            saturated = asyncio.ensure_future(gather_all(engine.chat.complete(request) for request in again))
            most = await tokens_per_second(engine, saturated)
            second, _ = await run("second")
            return (first + second) / 2 / most


def salted(request: Request, salt: str) -> Request:
    extra = {**request.sampling.extra, "cache_salt": salt}
    sampling = Sampling(max_tokens=request.sampling.max_tokens, extra=extra)
    return request.model_copy(update={"sampling": sampling})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=24)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--shorter", type=float, default=400.0, help="how much shorter completions are than published")
    given = parser.parse_args()
    settings = TMASSettings(n_candidates=4, n_verifications=4, max_iterations=given.iterations)
    ratio = uvloop.run(measure(given.problems, given.shorter, settings))
    print(f"tokens a second, run over saturated: {ratio:.3f}; goal {GOAL}: {'met' if ratio >= GOAL else 'missed'}")
    sys.exit(ratio < GOAL)


if __name__ == "__main__":
    main()
