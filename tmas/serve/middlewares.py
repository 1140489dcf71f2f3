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
ANSWERED, CLIENT_LEFT = "answered", "client_left"
"""Outcomes of requests in the metrics. All others are the codes of errors."""


@dataclass
class Visit:
    """One chat request, for the metrics. ``outcome``: the client has left, unless the handler says otherwise."""

    model: str = "unknown"
    outcome: str = CLIENT_LEFT
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Time since the header of the request."""
        return time.monotonic() - self.started


VISIT = web.RequestKey("visit", Visit)


def count_requests(metrics: ServerMetrics) -> Any:
    """Count the chat requests by their outcome, which :class:`Visit` holds."""

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != CHAT:
            return await handler(request)
        visit = request[VISIT] = Visit()
        try:
            return await handler(request)
        finally:
            metrics.requests.labels(visit.model, visit.outcome).inc()

    return count


@web.middleware
async def openai_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a response in OpenAI's format."""
    if isinstance(request.protocol, ClientConnection):
        request.protocol.header_received()
    try:
        return await handler(request)
    except ApiError as raised:
        error = raised
    except web.HTTPException as raised:  # raised by aiohttp, for an unknown path, for example
        error = ApiError(raised.status, raised.reason.lower().replace(" ", "_"), str(raised.text))
    if VISIT in request:
        request[VISIT].outcome = error.code
    return json_response(error.body, error.status, error.headers)


def access_control(key: str | None, without_key: Collection[str]) -> Any:
    """Require ``key``, except for the paths ``without_key``. Without a key, require a loopback name as the host."""

    @web.middleware
    async def require_key(request: web.Request, handler: Handler) -> web.StreamResponse:
        header = request.headers.get("Authorization", "")
        if request.path not in without_key and not _is_equal(header, f"Bearer {key}"):
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
