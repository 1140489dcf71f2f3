"""Runs a vLLM server with the shipped policy: ``python -m tests.support.policy_server LOG``.

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

from tests.support.miniature import SHIPPED
from tmas.cli.main import register_resolvers
from tmas.engines.vllm import free_port, vllm_server
from tmas.settings import SolveSettings

CONF = str(Path(__file__).parents[2] / "conf")
ONE_PROCESS = "+serving.args.distributed-executor-backend=vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""vLLM's engine computes in its own process. By default it starts another one on a CPU: that process imports vLLM once
more, and each of the two spins while it waits for the other. test_data_chain.py has a server with the default."""


def settings() -> SolveSettings:
    """The settings of ``tmas solve experiment=miniature`` with the shipped policy."""
    given = ["problems=sample", "output_dir=unused", "experiment=miniature", *SHIPPED, ONE_PROCESS]
    register_resolvers()
    with initialize_config_dir(CONF, version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("solve", overrides=given), resolve=True, throw_on_missing=True)
    return SolveSettings.model_validate(config)


async def serve(log: Path) -> None:
    given = settings()
    port = free_port(given.serving.host)
    async with vllm_server(given.model, given.serving, port, log):
        print(given.serving.base_url(port), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
