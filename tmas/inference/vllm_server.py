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
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from tmas.config import ModelSettings, ServingSettings


class ServerFailed(Exception):
    """vLLM did not come up; the message ends with the last lines of its log."""


@asynccontextmanager
async def vllm_server(model: ModelSettings, serving: ServingSettings, log: Path) -> AsyncIterator[str]:
    """Serve ``model.path`` as ``model.name`` while the block runs; yields the base URL. Its output goes to ``log``."""
    port = _free_port(serving.host)
    with log.open("ab") as output:
        guard = subprocess.Popen(  # noqa: ASYNC220 - takes milliseconds
            [sys.executable, "-m", "tmas.inference.guard", *_command(model, serving, port)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", **serving.env},
            start_new_session=True,
        )
    try:
        await _until_healthy(guard, f"http://{serving.host}:{port}/health", serving.startup_timeout, log)
        yield f"http://{serving.host}:{port}/v1"
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
        **serving.args,
    }
    given = {f"--{name}": value for name, value in flags.items() if value is not None and value is not False}
    words = [word for flag, value in given.items() for word in ([flag] if value is True else [flag, str(value)])]
    return [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model.path), *words]


async def _until_healthy(guard: subprocess.Popen[bytes], url: str, timeout: float, log: Path) -> None:
    deadline = time.monotonic() + timeout
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            if guard.poll() is not None:
                raise ServerFailed(f"vLLM ended with code {guard.returncode} while starting:\n{_tail(log)}")
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.5)
    raise ServerFailed(f"vLLM was not ready after {timeout:.0f} s (serving.startup_timeout):\n{_tail(log)}")


def _tail(log: Path, lines: int = 25) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) + f"\n(whole log: {log})"


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]
