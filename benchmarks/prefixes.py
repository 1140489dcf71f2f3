"""Prompt tokens that an engine computes in a run of TMAS, compared with conventional prompts for the same run.

``python -m benchmarks.prefixes`` starts a real vLLM server with a small model of random weights. It makes the same run
twice, with the same scripted texts (see ``benchmarks.engine``):

- ours, as ``tmas solve`` does: text that several calls share comes first in their prompts, and the M verifications of a
  candidate are one request
- conventional: the instructions come first, and each verification is a request

It prints the prompt tokens that vLLM reports as computed and as cached.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import uvloop

from benchmarks import support
from benchmarks.engine import RealEngine, ScriptedReplies, real_engine
from benchmarks.server import replies
from benchmarks.support import run_in_directory
from tmas.concurrency import PriorityLimiter, gather_all
from tmas.llm.chat_model import NO_HINT, ChatModel, RoutingHint
from tmas.llm.connection import ProgressCallback
from tmas.methods.tmas import TMASSettings
from tmas.records import Failure, Message, Reply, Request

COMPUTED, CACHED = (f'source="{source}"' for source in ("local_compute", "local_cache_hit"))
TASK = "# Your task"


class ConventionalPrompts:
    """Sends one request for each completion, with the instructions before the rest of the prompt."""

    def __init__(self, chat: ChatModel) -> None:
        self._chat = chat

    async def complete(
        self, request: Request, on_progress: ProgressCallback | None = None, hint: RoutingHint = NO_HINT
    ) -> Reply | Failure:
        messages = tuple(Message(role=m.role, content=instructions_first(m.content)) for m in request.messages)
        single = request.model_copy(update={"messages": messages, "n": 1})
        results = await gather_all(self._chat.complete(single, None, hint) for _ in range(request.n))
        return results[0]  # ScriptedReplies puts the texts of all completions into it


def instructions_first(prompt: str) -> str:
    shared, mark, task = prompt.rpartition(TASK)
    return f"{mark}{task}\n\n{shared}"


async def prompt_tokens(engine: RealEngine, name: str, problems: int, settings: TMASSettings) -> tuple[float, float]:
    """The computed and the cached prompt tokens of one run. ``name``: ours or conventional."""
    before = await engine.counters()
    chat = engine.chat if name == "ours" else ConventionalPrompts(engine.chat)
    scripted = ScriptedReplies(chat, replies, lambda _: 8, salt=name)
    with tempfile.TemporaryDirectory() as folder:
        await run_in_directory(Path(folder), support.problems(problems), settings, scripted, PriorityLimiter(64))
    after = await engine.counters()
    computed, cached = (
        sum(after[k] - before.get(k, 0.0) for k in after if source in k) for source in (COMPUTED, CACHED)
    )
    return computed, cached


async def measure(problems: int, settings: TMASSettings) -> float:
    """The computed prompt tokens of our run, divided by those of the conventional run."""
    computed: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with real_engine(Path(folder), max_num_seqs=64) as engine:
            for name in ("ours", "conventional"):
                computed[name], cached = await prompt_tokens(engine, name, problems, settings)
                print(f"{name:>12}: {computed[name]:>9,.0f} computed, {cached:>9,.0f} cached", flush=True)
    return computed["ours"] / computed["conventional"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=3)
    arguments = parser.parse_args()
    ratio = uvloop.run(measure(arguments.problems, TMASSettings(max_iterations=arguments.iterations)))
    outcome = "met" if ratio < 1 else "missed"
    print(f"computed prompt tokens, ours / conventional: {ratio:.3f}; goal below 1: {outcome}")
    sys.exit(ratio >= 1)


if __name__ == "__main__":
    main()
