"""The server's port and the HTTP server on it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from tmas.errors import UserError
from tmas.serve.app import create_app
from tmas.serve.connections import Connections
from tmas.serve.service import Service
from tmas.serve.settings import ServerSettings
from tmas.settings import RunSettings

BACKLOG = 128
"""Connections that the operating system holds until the server accepts them."""


def bind_port(serve: ServerSettings) -> socket.socket:
    """Bind the server's port before the vLLM servers start. Connections are refused until :func:`http_server` listens.

    Raises ``UserError`` if the port cannot be bound.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in serve.host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((serve.host, serve.port))
    except OSError as error:
        bound.close()
        raise UserError(str(error.strerror), where=f"serve.host={serve.host} serve.port={serve.port}") from None
    return bound


@asynccontextmanager
async def http_server(
    port: socket.socket, service: Service, models: Mapping[str, RunSettings], key: str | None
) -> AsyncIterator[str]:
    """Serve HTTP on ``port``, a socket of :func:`bind_port`, while the block runs.

    Afterwards, requests may finish until the drain time is up.

    Yields the base URL for clients. ``models`` and ``key``: see :func:`~tmas.serve.app.create_app`.
    """
    connections = Connections(service.settings)
    app = create_app(service, models, key, connections)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    connections.server = runner.server
    try:
        listener = await asyncio.get_running_loop().create_server(connections.accept, sock=port, backlog=BACKLOG)
        try:
            host, number, *_ = port.getsockname()
            yield f"http://{f'[{host}]' if ':' in host else host}:{number}/v1"
        finally:
            await service.drain()
            listener.close()
    finally:
        await runner.cleanup()
