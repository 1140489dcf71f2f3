"""Run a command while vLLM serves a policy: ``python -m recipes.miniature.serving POLICY NAME LOG COMMAND ...``.

The command finds the server by the environment variables ``MODEL_URL`` and ``MODEL_NAME``. The server stops with the
command, and SIGTERM stops both.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from tmas.cli.exits import cancel_on_sigterm
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
        # By default, vLLM on a CPU runs the model in a second process. The engine and this process keep a core busy
        # while they wait for each other. Here one process does both.
        "distributed-executor-backend": "vllm.v1.executor.uniproc_executor.UniProcExecutor",
    },
    env={"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "HF_HUB_OFFLINE": "1"},
)


async def serve(policy: Path, name: str, log: Path, command: list[str]) -> int:
    """The exit code of ``command``. ``name`` is the model's name on the server."""
    model = ModelSettings(name=name, path=str(policy), context_length=2048)
    port = free_port(SERVING.host)
    with cancel_on_sigterm():
        async with vllm_server(model, SERVING, port, log):
            url = f"http://{SERVING.host}:{port}/v1"
            environment = {**os.environ, "MODEL_URL": url, "MODEL_NAME": name}
            # If asyncio.create_subprocess_exec is cancelled while it starts the command, the command may keep running.
            process = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: ASYNC220
            try:
                return await asyncio.to_thread(process.wait)
            finally:
                if process.poll() is None:  # the command and what it started
                    os.killpg(process.pid, signal.SIGTERM)
                    process.wait()


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(serve(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:])))
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
