"""A real vLLM server for benchmarks. Its model has random weights and generates as many tokens as requested.

The texts of the replies are scripted, so that the method can work with them. This does not change what a run costs the
engine: the cost depends only on the lengths of prompts and replies.
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
from tmas.llm.chat_model import NO_HINT, ChatModel, RoutingHint
from tmas.llm.client import OpenAIChat
from tmas.llm.connection import ProgressCallback
from tmas.records import Completion, Failure, Reply, Request, Sampling
from tmas.settings import ModelSettings, ServingSettings
from tmas.testing.processes import naming

NAME, CONTEXT = "random", 16_384
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "HF_HUB_OFFLINE": "1"}
Texts = Callable[[dict[str, Any]], list[str]]
"""Returns the replies for a request body, one for each choice."""


class ScriptedReplies:
    """A chat model that generates ``length(request)`` tokens on a real engine and replies with scripted texts.

    ``texts``: the replies for a request body. ``salt``: requests with different salts share no cached prefix.
    ``requests``: the requests that the engine received, in order.
    """

    def __init__(self, chat: ChatModel, texts: Texts, length: Callable[[Request], int], salt: str) -> None:
        self._chat, self._texts, self._length = chat, texts, length
        self._extra = {"ignore_eos": True, "cache_salt": salt}
        self.requests: list[Request] = []

    async def complete(
        self, request: Request, on_progress: ProgressCallback | None = None, hint: RoutingHint = NO_HINT
    ) -> Reply | Failure:
        sampling = Sampling(max_tokens=self._length(request), extra=self._extra)
        sent = request.model_copy(update={"model": NAME, "sampling": sampling, "output_schema": None})
        self.requests.append(sent)
        reply = await self._chat.complete(sent, on_progress, hint)
        if isinstance(reply, Failure):
            return reply
        texts = self._texts(
            {"messages": [m.model_dump() for m in request.messages], "n": request.n, "seed": request.seed}
        )
        return reply.model_copy(update={"completions": tuple(Completion(text=text) for text in texts)})


class RealEngine:
    """A running vLLM server and the project's client for it."""

    def __init__(self, base_url: str, chat: OpenAIChat) -> None:
        self.base_url, self.chat = base_url, chat

    async def counters(self) -> dict[str, float]:
        """vLLM's counters. The keys are names with labels, as in ``/metrics``."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.base_url[:-3]}/metrics") as response:
            lines = (await response.text()).splitlines()
        return {name: float(value) for name, _, value in (li.rpartition(" ") for li in lines if li[:1] != "#")}


@asynccontextmanager
async def real_engine(
    folder: Path, max_num_seqs: int, core: int | None = None, **sizes: int
) -> AsyncIterator[RealEngine]:
    """Start a vLLM server and stop it after the block. Its model and its log are written to ``folder``.

    ``max_num_seqs``: completions that vLLM decodes at once. ``core``: the CPU core on which vLLM computes; everything
    else of this benchmark runs on other cores. ``sizes``: keys of the model's ``config.json``, such as ``hidden_size``.
    """
    path = folder / "model"
    build(path, [file.read_text("utf-8") for file in Path(prompts.__file__).parent.glob("*.jinja")])
    config = orjson.loads((path / "config.json").read_bytes())
    del config["layer_types"]  # it must have one entry for each layer; the default is the same type for all layers
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
            reserve_core(core)
        yield RealEngine(serving.base_url(port), chat)


def reserve_core(core: int) -> None:
    """Bind vLLM's worker process to ``core``, and this process and vLLM's other processes to the other cores."""
    [worker] = naming("VLLM::Worker")
    other_cores = os.sched_getaffinity(0) - {core}
    other_processes = (os.getpid(), *naming("vllm.entrypoints.cli.main"), *naming("VLLM::EngineCore"))
    for pid, cores in {**dict.fromkeys(other_processes, other_cores), worker: {core}}.items():
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), cores)
