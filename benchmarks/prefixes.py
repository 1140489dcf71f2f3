"""How many prompt tokens an engine computes in a run of TMAS, beside the same run asked for in the usual way.

``python -m benchmarks.prefixes`` starts a real vLLM with a small model of random weights and makes one run twice, with
the same scripted words (see ``benchmarks.engine``). Once as ``tmas solve`` does: what calls share stands first in their
prompts, and the M verifications of a candidate are one request. Then with the instructions first, as prompts usually
have them, and M requests. Counted are the prompt tokens that vLLM says it computed, and those it had in its cache.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import uvloop

from benchmarks import support
from benchmarks.engine import Dubbed, RealEngine, real_engine
from benchmarks.server import replies
from benchmarks.support import run_into
from tmas.concurrency import PriorityLimiter, gather_all
from tmas.llm.client import NO_HINT, ChatModel, RoutingHint
from tmas.llm.connection import ProgressCallback
from tmas.methods.tmas import TMASSettings
from tmas.records import Failure, Message, Reply, Request

COMPUTED, CACHED = (f'source="{source}"' for source in ("local_compute", "local_cache_hit"))
TASK = "# Your task"


class Usual:
    """Asks for each completion singly, with the instructions before the rest of the prompt."""

    def __init__(self, chat: ChatModel) -> None:
        self._chat = chat

    async def complete(
        self, request: Request, on_progress: ProgressCallback | None = None, hint: RoutingHint = NO_HINT
    ) -> Reply | Failure:
        messages = tuple(Message(role=m.role, content=instructions_first(m.content)) for m in request.messages)
        single = request.model_copy(update={"messages": messages, "n": 1})
        return (await gather_all(self._chat.complete(single, None, hint) for _ in range(request.n)))[0]


def instructions_first(prompt: str) -> str:
    shared, mark, task = prompt.rpartition(TASK)
    return f"{mark}{task}\n\n{shared}"


async def prompt_tokens(engine: RealEngine, name: str, problems: int, settings: TMASSettings) -> tuple[float, float]:
    """Prompt tokens that the engine computed in a run, and those that it had."""
    before = await engine.counters()
    chat = engine.chat if name == "ours" else Usual(engine.chat)
    dubbed = Dubbed(chat, replies, lambda _: 8, salt=name)
    with tempfile.TemporaryDirectory() as folder:
        await run_into(Path(folder), support.problems(problems), settings, dubbed, PriorityLimiter(64))
    after = await engine.counters()
    computed, cached = (
        sum(after[k] - before.get(k, 0.0) for k in after if source in k) for source in (COMPUTED, CACHED)
    )
    return computed, cached


async def measure(problems: int, settings: TMASSettings) -> float:
    """Prompt tokens computed, ours over the usual."""
    computed: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with real_engine(Path(folder), max_num_seqs=64) as engine:
            for name in ("ours", "usual"):
                computed[name], cached = await prompt_tokens(engine, name, problems, settings)
                print(f"{name:>6}: {computed[name]:>9,.0f} computed, {cached:>9,.0f} cached", flush=True)
    return computed["ours"] / computed["usual"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=3)
    given = parser.parse_args()
    ratio = uvloop.run(measure(given.problems, TMASSettings(max_iterations=given.iterations)))
    print(f"prompt tokens computed, ours over the usual: {ratio:.3f}; goal below 1: {'met' if ratio < 1 else 'missed'}")
    sys.exit(ratio >= 1)


if __name__ == "__main__":
    main()
