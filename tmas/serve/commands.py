"""What ``tmas serve`` does with its settings and a console."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import uvloop
from aiohttp import web
from rich.console import Console
from rich.text import Text

from tmas.engines.vllm import ServerFailed
from tmas.exits import INTERRUPTED, STOPPED, cancelled_by_sigterm, fail
from tmas.llm.endpoint import EndpointDown
from tmas.serve.app import application
from tmas.serve.requests import MODEL
from tmas.serve.service import Service, opened
from tmas.serve.settings import ServerSettings, ServeSettings
from tmas.settings import RunSettings


def serve_command(config: dict[str, Any], console: Console) -> None:
    """``tmas serve``: until SIGTERM or Ctrl-C, each of which lets running requests end for a while."""
    settings = ServeSettings.model_validate(config)
    try:
        uvloop.run(_serve(settings, console))
    except asyncio.CancelledError:
        console.print("stopped")
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)
    except (EndpointDown, ServerFailed) as error:
        fail(str(error), STOPPED)


async def _serve(settings: ServeSettings, console: Console) -> None:
    key, run, folder = settings.serve.read_key(), settings.run(), settings.serve.output_dir
    with cancelled_by_sigterm(), closing(bound(settings.serve)) as port:
        if run.serving.name == "vllm":
            console.print(Text(f"starting vLLM with {run.model.name}; its log is in {folder}"), soft_wrap=True)
        async with opened(settings) as service, listening(port, service, run, key) as base_url:
            console.print(Text(f"{base_url} serves the model {MODEL}; requests are in {folder}"), soft_wrap=True)
            await asyncio.Event().wait()


def bound(serve: ServerSettings) -> socket.socket:
    """The server's port. It is taken before engines are started, and connections are refused until they are ready."""
    port = socket.socket(socket.AF_INET6 if ":" in serve.host else socket.AF_INET)
    port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        port.bind((serve.host, serve.port))
    except OSError as error:
        port.close()
        raise ValueError(f"serve.host={serve.host} serve.port={serve.port}: {error.strerror}") from None
    return port


@asynccontextmanager
async def listening(port: socket.socket, service: Service, default: RunSettings, key: str | None) -> AsyncIterator[str]:
    """Answer requests while the block runs, and afterwards until those that run have ended or time is up.

    Yields the base URL for clients. ``default``: see :func:`~tmas.serve.app.application`.
    """
    app = application(service, default, key)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, port).start()
        try:
            host, number, *_ = port.getsockname()
            yield f"http://{f'[{host}]' if ':' in host else host}:{number}/v1"
        finally:
            await service.drain()
    finally:
        await runner.cleanup()
