"""The HTTP side of ``tmas serve``: routes, the key, errors in OpenAI's shape, and server-sent events."""

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
from aiohttp import web

from tmas.records import Result
from tmas.serve.errors import ApiError
from tmas.serve.requests import MODEL, read_question, read_request
from tmas.serve.responses import Responses
from tmas.serve.service import Job, Service
from tmas.serve.settings import is_loopback
from tmas.settings import RunSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
EVENTS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""The last one keeps nginx from holding events back."""
KEEP_ALIVE = 15.0
"""Seconds of silence after which a comment is sent: proxies and clients hang up on streams that stand still."""


def application(service: Service, default: RunSettings, key: str | None) -> web.Application:
    """``default``: the run of a request that sets nothing. ``key``: what clients must send.

    Without a key only programs of this machine get in: no web page, which could reach a loopback address under a name
    of its own.
    """
    api = _Api(service, default)
    app = web.Application(client_max_size=service.settings.max_request_bytes, middlewares=[_in_shape, _guarded(key)])
    app.add_routes(
        [
            web.get("/health", api.health),
            web.get("/v1/models", api.models),
            web.post("/v1/chat/completions", api.chat),
        ]
    )
    return app


class _Api:
    def __init__(self, service: Service, default: RunSettings) -> None:
        self._service, self._default, self._started = service, default, int(time.time())

    async def health(self, _: web.Request) -> web.Response:
        return _json({"status": "ok", "running": self._service.running, "waiting": self._service.waiting})

    async def models(self, _: web.Request) -> web.Response:
        model = {"id": MODEL, "object": "model", "created": self._started, "owned_by": "tmas"}
        return _json({"object": "list", "data": [model]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        if request.content_type != "application/json":  # a browser lets no foreign page send that
            raise ApiError(415, "unsupported_media_type", "Content-Type must be application/json")
        asked = read_request(await request.read())
        server = self._service.settings
        question = read_question(asked.messages, server.max_question_characters)
        job = Job(f"chatcmpl-{secrets.token_hex(12)}", question, asked.options.settings(self._default, server.most))
        if asked.stream:
            return await self._streamed(request, job, asked.include_usage)
        async with self._service.solving(job, lambda _: None) as task:
            return _json(Responses(job).completion(await task))

    async def _streamed(self, request: web.Request, job: Job, include_usage: bool) -> web.StreamResponse:
        told: asyncio.Queue[str | None] = asyncio.Queue()
        async with self._service.solving(job, told.put_nowait) as task:
            task.add_done_callback(lambda _: told.put_nowait(None))
            response = web.StreamResponse(headers=EVENTS)
            with contextlib.suppress(ConnectionError):  # the client has left
                await response.prepare(request)
                async for event in _events(Responses(job), told, task, include_usage):
                    await response.write(event)
        return response


async def _events(
    responses: Responses, told: asyncio.Queue[str | None], task: asyncio.Task[Result], include_usage: bool
) -> AsyncIterator[bytes]:
    """Progress as reasoning while ``task`` runs (None in ``told`` is its end), then the answer, or an error."""
    yield _event(responses.chunk({"role": "assistant", "content": ""}))
    while True:
        try:
            line = await asyncio.wait_for(told.get(), KEEP_ALIVE)
        except TimeoutError:
            yield b": still at it\n\n"
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
async def _in_shape(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as OpenAI's."""
    try:
        return await handler(request)
    except ApiError as error:
        return _json(error.body, error.status, error.headers)
    except web.HTTPException as error:
        refused = ApiError(error.status, error.reason.lower().replace(" ", "_"), str(error.text))
        return _json(refused.body, refused.status)


def _guarded(key: str | None) -> Any:
    @web.middleware
    async def locked(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        if request.path != "/health" and not _equal(given, f"Bearer {key}"):
            raise ApiError(401, "invalid_api_key", "the API key is missing or wrong")
        return await handler(request)

    @web.middleware
    async def private(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not is_loopback(re.sub(r":\d+$", "", request.host).strip("[]")):
            raise ApiError(403, "host_not_allowed", "a server without an API key answers to loopback names alone")
        return await handler(request)

    return private if key is None else locked


def _equal(given: str, expected: str) -> bool:
    """In a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode(errors="surrogateescape"), expected.encode(errors="surrogateescape"))


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, headers=headers, content_type="application/json")


def _event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"
