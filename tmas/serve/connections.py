"""Limits for the server's connections. They apply even before a client has authenticated.

Opening a connection costs a client nothing, and each one takes a file descriptor of the server. Their number is
therefore limited, and so is the time that a client may take for a request.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from tmas.redaction import clean_logger
from tmas.serve.errors import ApiError
from tmas.serve.settings import ServerSettings

log = clean_logger(__name__)
LINGER = 2.0
"""Seconds for which the rest of a request is read after an early response. Without this, a client that is still sending
would lose the response."""


class Connections:
    """The open connections of the server, the oldest first.

    A connection is protected while its request is being solved. At the limit, a new connection replaces the oldest one
    that is not protected: one that has not sent its request yet, or waits idle for the next one.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.most = most_connections(settings)
        self.server: web.Server | None = None
        self._open: dict[ClientConnection, None] = {}
        self._protected: set[web.RequestHandler] = set()

    def __len__(self) -> int:
        return len(self._open)

    def accept(self) -> asyncio.Protocol:
        """The protocol factory of the listening socket: called for each new connection."""
        assert self.server, "accept() before the server exists"
        while len(self._open) >= self.most:
            oldest = next((one for one in self._open if one not in self._protected), None)
            if oldest is None:
                return _Refused()
            self.forget(oldest)
            oldest.force_close()
        connection = ClientConnection(
            self.server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own value for no log
            keepalive_timeout=self.settings.idle_seconds,
            lingering_time=LINGER,
            auto_decompress=False,  # aiohttp would unpack bodies before the key is checked, even discarded ones
        )
        connection.connections = self
        self._open[connection] = None
        return connection

    def forget(self, connection: ClientConnection) -> None:
        self._open.pop(connection, None)

    @contextmanager
    def protect(self, request: web.Request) -> Iterator[None]:
        """Keep the connection of ``request`` open while the block runs."""
        self._protected.add(request.protocol)
        try:
            yield
        finally:
            self._protected.discard(request.protocol)


class ClientConnection(web.RequestHandler):
    """One connection. It is closed if no complete request header arrives within ``header_seconds`` of its opening."""

    __slots__ = ("_header_timer", "connections")

    connections: Connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        seconds = self.connections.settings.header_seconds
        self._header_timer = asyncio.get_running_loop().call_later(seconds, self.force_close)

    def header_received(self) -> None:
        """Stop the timer. From now on ``idle_seconds`` limits the time until the next header is complete."""
        self._header_timer.cancel()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._header_timer.cancel()
        self.connections.forget(self)
        super().connection_lost(exc)

    def log_exception(self, *args: Any, **more: Any) -> None:
        """Log an error with its traceback, unless a client caused it with a body that is not valid HTTP."""
        if isinstance(more.get("exc_info"), web.RequestPayloadError):
            log.debug("malformed body: %s", more["exc_info"])
        else:
            super().log_exception(*args, **more)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that is not HTTP without a traceback in the log: anyone can send it. Bugs are logged.

        Raises ``exc`` if it is a ``ConnectionError`` and the connection is closed: aiohttp then drops the connection.
        """
        if isinstance(exc, ConnectionError) and not self.connected:
            raise exc
        if status != 400:
            return super().handle_error(request, status, exc, message)
        self.header_received()
        log.debug("malformed request from %s", request.remote)
        response = web.json_response(ApiError(400, "invalid_http", "the request is not valid HTTP").body, status=400)
        response.force_close()
        return response


class _Refused(asyncio.Protocol):
    """A connection that is closed at once: all others are in use by requests that are being solved."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def most_connections(settings: ServerSettings) -> int:
    """``max_connections``, or half of the file descriptors that this process may open, if that is less.

    At least one more than the number of requests that may run and wait, so that ``/health`` is answered.
    """
    descriptors: Any = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    allowed = settings.max_connections if descriptors == resource.RLIM_INFINITY else descriptors // 2
    return max(min(settings.max_connections, allowed), settings.max_running + settings.max_waiting + 1)
