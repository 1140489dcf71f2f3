"""What happens around every request of ``tmas serve``: access control, errors in OpenAI's format, and counting."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tmas.serve.connections import ClientConnection
from tmas.serve.errors import ApiError
from tmas.serve.metrics import ServerMetrics
from tmas.serve.settings import is_loopback

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CHAT = "/v1/chat/completions"
ANSWERED, CLIENT_LEFT, INTERNAL_ERROR = "answered", "client_left", "internal_error"
"""Outcomes of requests in the metrics. The outcome of a request that failed is the code of its error, such as
``INTERNAL_ERROR``."""


@dataclass
class RequestMetrics:
    """What the metrics count about one chat request. ``outcome``: ``CLIENT_LEFT`` until a handler sets another one."""

    model: str = "unknown"
    outcome: str = CLIENT_LEFT
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Time since the header of the request."""
        return time.monotonic() - self.started


REQUEST_METRICS = web.RequestKey("request_metrics", RequestMetrics)


def count_requests(metrics: ServerMetrics) -> Any:
    """Count the chat requests by their outcome, which :class:`RequestMetrics` holds."""

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != CHAT:
            return await handler(request)
        request_metrics = request[REQUEST_METRICS] = RequestMetrics()
        try:
            return await handler(request)
        except Exception as error:
            is_closed = request.transport is None or request.transport.is_closing()
            if not (is_closed and isinstance(error, ConnectionError)):  # a bug
                request_metrics.outcome = INTERNAL_ERROR
            raise
        finally:
            metrics.requests.labels(request_metrics.model, request_metrics.outcome).inc()

    return count


@web.middleware
async def openai_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every :class:`ApiError` and HTTP error of aiohttp into a response in OpenAI's format.

    Also tell the connection that a complete header has arrived.
    """
    if isinstance(request.protocol, ClientConnection):
        request.protocol.header_received()
    try:
        return await handler(request)
    except ApiError as raised:
        error = raised
    except web.HTTPException as raised:  # raised by aiohttp, for an unknown path, for example
        error = ApiError(raised.status, raised.reason.lower().replace(" ", "_"), str(raised.text))
    if REQUEST_METRICS in request:
        request[REQUEST_METRICS].outcome = error.code
    return json_response(error.body, error.status, error.headers)


def access_control(key: str | None, public_paths: Collection[str]) -> Any:
    """Require ``key``, except for ``public_paths``. If ``key`` is None, require a loopback name as the host."""

    @web.middleware
    async def require_key(request: web.Request, handler: Handler) -> web.StreamResponse:
        header = request.headers.get("Authorization", "")
        if request.path not in public_paths and not _is_equal(header, f"Bearer {key}"):
            raise ApiError(401, "invalid_api_key", "the API key is missing or wrong")
        return await handler(request)

    @web.middleware
    async def require_loopback_host(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not is_loopback(re.sub(r":\d+$", "", request.host).strip("[]")):
            raise ApiError(403, "host_not_allowed", "without an API key, this server accepts only loopback host names")
        return await handler(request)

    return require_loopback_host if key is None else require_key


def _is_equal(text: str, expected: str) -> bool:
    """Compare in constant time, so that the time does not reveal how many characters are right."""
    return hmac.compare_digest(text.encode(errors="surrogateescape"), expected.encode(errors="surrogateescape"))


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, headers=headers, content_type="application/json")
