"""Run a command while vLLM serves a policy: ``python -m recipes.miniature.serving POLICY NAME LOG COMMAND ...``.

The command finds the server by the environment variables ``MODEL_URL`` and ``MODEL_NAME``. The server stops with the
command.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tmas.engines.vllm import free_port, vllm_server
from tmas.settings import ModelSettings, ServingSettings

SERVING = ServingSettings(
    name="vllm",
    args={
        "max-num-seqs": 256,
        "dtype": "bfloat16",
        "enforce-eager": True,
        "enable-prompt-tokens-details": True,
        "stream-interval": 16,
    },
    env={"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "HF_HUB_OFFLINE": "1"},
)


async def serve(policy: Path, name: str, log: Path, command: list[str]) -> int:
    """The exit code of ``command``. ``name`` is the model's name on the server."""
    model = ModelSettings(name=name, path=str(policy), context_length=2048)
    port = free_port(SERVING.host)
    async with vllm_server(model, SERVING, port, log):
        url = f"http://{SERVING.host}:{port}/v1"
        environment = {**os.environ, "MODEL_URL": url, "MODEL_NAME": name}
        process = await asyncio.create_subprocess_exec(*command, env=environment)
        return await process.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(serve(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:])))
