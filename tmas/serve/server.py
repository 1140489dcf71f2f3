"""The server's port, and HTTP on it while a block runs."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from tmas.errors import UserError
from tmas.serve.app import application
from tmas.serve.service import Service
from tmas.serve.settings import ServerSettings
from tmas.settings import RunSettings


def bound(serve: ServerSettings) -> socket.socket:
    """The server's port. It is taken before engines are started, and connections are refused until they are ready."""
    port = socket.socket(socket.AF_INET6 if ":" in serve.host else socket.AF_INET)
    port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        port.bind((serve.host, serve.port))
    except OSError as error:
        port.close()
        raise UserError(str(error.strerror), where=f"serve.host={serve.host} serve.port={serve.port}") from None
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
