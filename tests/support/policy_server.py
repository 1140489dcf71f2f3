"""Runs a vLLM server with the shipped policy, as ``tmas demo`` does: ``python -m tests.support.policy_server LOG``.

It prints the server's base URL when the server is ready. It ends the server and itself when its standard input is
closed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tmas.cli.demo import DemoSettings, with_policy
from tmas.cli.main import register_resolvers
from tmas.engines.vllm import free_port, vllm_server
from tmas.miniature import POLICY, PROMPTS, read_manifest

CONF = str(Path(__file__).parents[2] / "conf")
NAME = with_policy({"path": None, "name": "miniature"}, read_manifest())["name"]
"""The policy's name on the server. ``tmas demo`` calls it that."""
PLAYED = (
    *(f"model.name={NAME}", f"model.tokenizer={POLICY}", f"prompts={PROMPTS}"),
    *("method.agents.max_new_items=16", "method.agents.structured_outputs=off"),
)
"""Arguments in addition to ``experiment=miniature`` and ``model.base_url``, for a command that calls the server."""


def settings() -> DemoSettings:
    """The settings of ``tmas demo``."""
    register_resolvers()
    with initialize_config_dir(CONF, version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("demo", overrides=["output_dir=unused"]), resolve=True)
    return DemoSettings.model_validate({**config, "model": with_policy(config["model"], read_manifest())})


async def serve(log: Path) -> None:
    given = settings()
    port = free_port(given.serving.host)
    async with vllm_server(given.model, given.serving, port, log):
        print(given.serving.base_url(port), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
