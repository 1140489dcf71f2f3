"""The HTTP application of ``tmas serve``: routes, access control, errors in OpenAI's format, server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
from aiohttp import ClientPayloadError, web

from tmas.records import Result
from tmas.serve.connections import ClientConnection, Connections
from tmas.serve.errors import ApiError
from tmas.serve.requests import MODEL, read_question, read_request
from tmas.serve.responses import Responses
from tmas.serve.service import Job, Service
from tmas.serve.settings import is_loopback
from tmas.settings import RunSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
EVENTS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""``X-Accel-Buffering`` turns off the buffering of nginx."""
KEEP_ALIVE = 15.0
"""Seconds without an event after which a comment is sent. Proxies and clients close streams without traffic."""


def create_app(service: Service, default: RunSettings, key: str | None, connections: Connections) -> web.Application:
    """The aiohttp application.

    ``default``: the run settings for a request without overrides. ``key``: the API key that clients must send. Without
    a key, the ``Host`` header must be a loopback name, which keeps out web pages that use DNS rebinding.
    ``connections``: the connections that requests come from.
    """
    api = _Api(service, default, connections)
    app = web.Application(
        client_max_size=service.settings.max_request_bytes,
        middlewares=[_openai_errors, _access_control(key)],
    )
    app.add_routes(
        [
            web.get("/health", api.health),
            web.get("/v1/models", api.models),
            web.post("/v1/chat/completions", api.chat),
        ]
    )
    return app


class _Api:
    def __init__(self, service: Service, default: RunSettings, connections: Connections) -> None:
        self._service, self._default, self._started = service, default, int(time.time())
        self._connections = connections

    async def health(self, _: web.Request) -> web.Response:
        return _json({"status": "ok", "running": self._service.running, "waiting": self._service.waiting})

    async def models(self, _: web.Request) -> web.Response:
        model = {"id": MODEL, "object": "model", "created": self._started, "owned_by": "tmas"}
        return _json({"object": "list", "data": [model]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        if request.content_type != "application/json":  # browsers do not let pages of other sites send this type
            raise ApiError(415, "unsupported_media_type", "Content-Type must be application/json")
        server = self._service.settings
        body = read_request(await _body(request, server.body_seconds))
        question = read_question(body.messages, server.max_question_characters)
        job = Job(f"chatcmpl-{secrets.token_hex(12)}", question, body.options.settings(self._default, server.most))
        with self._connections.protect(request):
            if body.stream:
                return await self._stream(request, job, body.include_usage)
            async with self._service.submit(job, lambda _: None) as task:
                return _json(Responses(job).completion(await task))

    async def _stream(self, request: web.Request, job: Job, include_usage: bool) -> web.StreamResponse:
        lines: asyncio.Queue[str | None] = asyncio.Queue()
        async with self._service.submit(job, lines.put_nowait) as task:
            task.add_done_callback(lambda _: lines.put_nowait(None))
            response = web.StreamResponse(headers=EVENTS)
            with contextlib.suppress(ConnectionError):  # the client has disconnected
                await response.prepare(request)
                async for event in _events(Responses(job), lines, task, include_usage):
                    await response.write(event)
        return response


async def _body(request: web.Request, seconds: float) -> bytes:
    """Read the body of a request. Raises :class:`ApiError` if that takes too long or the body is not valid HTTP.

    Raises ``ConnectionResetError`` if the connection was closed.
    """
    try:
        async with asyncio.timeout(seconds):
            return await request.read()
    except TimeoutError:
        raise ApiError(408, "request_timeout", f"the body did not arrive within {seconds:g} seconds") from None
    except (web.RequestPayloadError, ClientPayloadError):
        raise ApiError(400, "invalid_http", "the body of the request is not valid HTTP") from None
    except RuntimeError:  # what aiohttp raises if the connection was closed before
        if request.transport is None:
            raise ConnectionResetError from None
        raise


async def _events(
    responses: Responses, lines: asyncio.Queue[str | None], task: asyncio.Task[Result], include_usage: bool
) -> AsyncIterator[bytes]:
    """The events of one stream: progress lines as reasoning while ``task`` runs, then the answer or an error.

    ``lines``: the progress lines; None marks the end of ``task``.
    """
    yield _event(responses.chunk({"role": "assistant", "content": ""}))
    while True:
        try:
            line = await asyncio.wait_for(lines.get(), KEEP_ALIVE)
        except TimeoutError:
            yield b": keep-alive\n\n"
            continue
        if line is None:
            break
        yield _event(responses.chunk({"reasoning_content": f"{line}\n"}))
    try:
        for chunk in responses.chunks(await task, include_usage):
            yield _event(chunk)
    except ApiError as error:
        yield _event(error.body)
    yield b"data: [DONE]\n\n"


@web.middleware
async def _openai_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a response in OpenAI's format."""
    if isinstance(request.protocol, ClientConnection):
        request.protocol.header_received()
    try:
        return await handler(request)
    except ApiError as error:
        return _json(error.body, error.status, error.headers)
    except web.HTTPException as error:  # raised by aiohttp, for an unknown path, for example
        converted = ApiError(error.status, error.reason.lower().replace(" ", "_"), str(error.text))
        return _json(converted.body, converted.status)


def _access_control(key: str | None) -> Any:
    @web.middleware
    async def require_key(request: web.Request, handler: Handler) -> web.StreamResponse:
        header = request.headers.get("Authorization", "")
        if request.path != "/health" and not _is_equal(header, f"Bearer {key}"):
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


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, headers=headers, content_type="application/json")


def _event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"
