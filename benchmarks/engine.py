"""A real vLLM for benchmarks: a model of random weights that generates as many tokens as asked, and scripted words.

What a run costs the engine depends on the lengths of prompts and replies alone; so the words may be scripted, which
gives the method something to work with, whatever the model's size.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from recipes.cpu.tiny_policy import build
from tmas import prompts
from tmas.engines.vllm import free_port, vllm_server
from tmas.llm.client import NO_HINT, ChatModel, OpenAIChat, RoutingHint
from tmas.llm.connection import ProgressCallback
from tmas.records import Completion, Failure, Reply, Request, Sampling
from tmas.settings import ModelSettings, ServingSettings
from tmas.testing.processes import naming

NAME, CONTEXT = "random", 16_384
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "HF_HUB_OFFLINE": "1"}
Words = Callable[[dict[str, Any]], list[str]]


class Dubbed:
    """Generates on a real engine, for each request as many tokens as ``length`` says, and replies with other words.

    ``salt``: no cached prefix is shared with requests of another. ``asked``: what the engine was asked, in order.
    """

    def __init__(self, chat: ChatModel, words: Words, length: Callable[[Request], int], salt: str) -> None:
        self._chat, self._words, self._length = chat, words, length
        self._extra = {"ignore_eos": True, "cache_salt": salt}
        self.asked: list[Request] = []

    async def complete(
        self, request: Request, on_progress: ProgressCallback | None = None, hint: RoutingHint = NO_HINT
    ) -> Reply | Failure:
        sampling = Sampling(max_tokens=self._length(request), extra=self._extra)
        asked = request.model_copy(update={"model": NAME, "sampling": sampling, "output_schema": None})
        self.asked.append(asked)
        reply = await self._chat.complete(asked, on_progress, hint)
        if isinstance(reply, Failure):
            return reply
        texts = self._words(
            {"messages": [m.model_dump() for m in request.messages], "n": request.n, "seed": request.seed}
        )
        return reply.model_copy(update={"completions": tuple(Completion(text=text) for text in texts)})


class RealEngine:
    """vLLM, asked by the project's own client."""

    def __init__(self, base_url: str, chat: OpenAIChat) -> None:
        self.base_url, self.chat = base_url, chat

    async def counters(self) -> dict[str, float]:
        """vLLM's own counters, by name and labels as its ``/metrics`` has them."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.base_url[:-3]}/metrics") as response:
            lines = (await response.text()).splitlines()
        return {name: float(value) for name, _, value in (li.rpartition(" ") for li in lines if li[:1] != "#")}


@asynccontextmanager
async def real_engine(
    folder: Path, max_num_seqs: int, core: int | None = None, **sizes: int
) -> AsyncIterator[RealEngine]:
    """Its model and log are in ``folder``. ``core``: where it computes, which nothing else of this run does then.

    ``sizes``: of the model, as its ``config.json`` calls them.
    """
    path = folder / "model"
    build(path, [file.read_text("utf-8") for file in Path(prompts.__file__).parent.glob("*.jinja")])
    config = orjson.loads((path / "config.json").read_bytes())
    del config["layer_types"]  # one for each layer; without it they are as here, all alike
    (path / "config.json").write_bytes(orjson.dumps(config | {"max_position_embeddings": CONTEXT} | sizes))
    model = ModelSettings(name=NAME, path=str(path), context_length=CONTEXT)
    args = {"max-num-seqs": max_num_seqs, "enforce-eager": True, "dtype": "bfloat16", "load-format": "dummy"}
    serving = ServingSettings(
        name="vllm", args=args, env=ENVIRONMENT | ({} if core is None else {"VLLM_CPU_OMP_THREADS_BIND": str(core)})
    )
    port = free_port(serving.host)
    endpoint = model.model_copy(update={"base_url": serving.base_url(port)}).endpoint()
    async with vllm_server(model, serving, port, folder / "vllm.log"), OpenAIChat(endpoint) as chat:
        if core is not None:
            keep_off(core)
        yield RealEngine(serving.base_url(port), chat)


def keep_off(core: int) -> None:
    """Nothing of this process and of the vLLM that it started runs on ``core``, but for what computes."""
    [computing] = naming("VLLM::Worker")
    others = os.sched_getaffinity(0) - {core}
    around = (os.getpid(), *naming("vllm.entrypoints.cli.main"), *naming("VLLM::EngineCore"))
    for pid, cores in {**dict.fromkeys(around, others), computing: {core}}.items():
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), cores)
