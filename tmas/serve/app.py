"""The HTTP application of ``tmas serve``: routes and server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import orjson
from aiohttp import ClientPayloadError, web

from tmas.records import Result
from tmas.redaction import clean_logger
from tmas.serve.connections import Connections
from tmas.serve.conversation import read_question
from tmas.serve.errors import ApiError
from tmas.serve.metrics import CONTENT_TYPE
from tmas.serve.middlewares import (
    ANSWERED,
    CHAT,
    REQUEST_METRICS,
    RequestMetrics,
    access_control,
    count_requests,
    json_response,
    openai_errors,
)
from tmas.serve.models import RequestLimits, settings_of
from tmas.serve.requests import ChatRequest, read_request
from tmas.serve.responses import Responses
from tmas.serve.service import Job, Service
from tmas.settings import RunSettings

log = clean_logger(__name__)
MAX_LOGGED = 100
"""Maximum number of ignored fields in one warning. Once as many have been logged, there are no more warnings."""
EVENT_STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Response headers of a stream of events. ``X-Accel-Buffering`` turns off the buffering of nginx."""
KEEP_ALIVE = 15.0
"""Seconds without an event after which a comment is sent. Proxies and clients close streams without traffic."""


def create_app(
    service: Service, models: Mapping[str, RunSettings], key: str | None, connections: Connections
) -> web.Application:
    """The aiohttp application.

    ``models``: the run settings for a request without overrides, by the name of its model. ``key``: the API key that
    clients must send. Without a key, the ``Host`` header must be a loopback name, which keeps out web pages that use
    DNS rebinding. ``connections``: the connections that requests come from.
    """
    api = _Api(service, models, connections)
    public_paths = {"/health"} if service.settings.metrics_key else {"/health", "/metrics"}
    app = web.Application(
        client_max_size=service.settings.max_request_bytes,
        middlewares=[count_requests(service.metrics), openai_errors, access_control(key, public_paths)],
    )
    app.add_routes(
        [
            web.get("/health", api.health),
            web.get("/metrics", api.metrics),
            web.get("/v1/models", api.models),
            web.get("/v1/models/{name}", api.model),
            web.post(CHAT, api.chat),
        ]
    )
    return app


class _Api:
    def __init__(self, service: Service, models: Mapping[str, RunSettings], connections: Connections) -> None:
        self._service, self._models, self._started = service, models, int(time.time())
        self._connections = connections
        self._logged: set[str] = set()

    async def health(self, _: web.Request) -> web.Response:
        return json_response({"status": "ok", "running": self._service.running, "waiting": self._service.waiting})

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._service.metrics.page(), headers={"Content-Type": CONTENT_TYPE})

    async def models(self, _: web.Request) -> web.Response:
        return json_response({"object": "list", "data": [self._model(name) for name in self._models]})

    async def model(self, request: web.Request) -> web.Response:
        return json_response(self._model(request.match_info["name"]))

    def _model(self, name: str) -> dict[str, Any]:
        method = settings_of(name, self._models).method
        return {
            "id": name,
            "object": "model",
            "created": self._started,
            "owned_by": "tmas",
            "tmas": {"method": method.name}
            | {size: getattr(method, size) for size in RequestLimits.model_fields if hasattr(method, size)},
        }

    async def chat(self, request: web.Request) -> web.StreamResponse:
        if request.content_type != "application/json":  # browsers do not let pages of other sites send this type
            raise ApiError(415, "unsupported_media_type", "Content-Type must be application/json")
        if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise ApiError(415, "unsupported_encoding", "the body must not be compressed: leave out Content-Encoding")
        server_settings = self._service.settings
        body = read_request(await _body(request, server_settings.body_seconds), server_settings)
        request_limits = server_settings.most
        settings = body.settings(self._models, request_limits)
        request_metrics = request[REQUEST_METRICS]
        request_metrics.model = body.model
        question = read_question(body.messages, server_settings, settings.prompts)
        ignored = (*body.ignored, *question.ignored)
        self._log_once(ignored)
        job = Job(f"chatcmpl-{secrets.token_hex(12)}", question.text, settings, body.model, ignored)
        with self._connections.protect(request):
            if body.stream:
                return await self._stream(request, job, body)
            progress: list[str] = []
            async with self._service.submit(job, progress.append) as task:
                completion = Responses(job).completion(await task, progress if body.include_reasoning else ())
        self._service.metrics.first_byte.labels("false").observe(request_metrics.seconds)
        self._service.metrics.first_content.labels(job.model).observe(request_metrics.seconds)
        request_metrics.outcome = ANSWERED
        return json_response(completion)

    async def _stream(self, request: web.Request, job: Job, body: ChatRequest) -> web.StreamResponse:
        lines: asyncio.Queue[str | None] = asyncio.Queue()
        on_line = lines.put_nowait if body.include_reasoning is not False else lambda _: None
        async with self._service.submit(job, on_line) as task:
            task.add_done_callback(lambda _: lines.put_nowait(None))
            response = web.StreamResponse(headers=EVENT_STREAM_HEADERS)
            with contextlib.suppress(ConnectionError):  # the client has disconnected
                await response.prepare(request)
                async for event in self._events(request[REQUEST_METRICS], job, lines, task, body.include_usage):
                    await response.write(event)
        return response

    async def _events(
        self,
        request_metrics: RequestMetrics,
        job: Job,
        lines: asyncio.Queue[str | None],
        task: asyncio.Task[Result],
        include_usage: bool,
    ) -> AsyncIterator[bytes]:
        """The events of one stream: progress lines as reasoning while ``task`` runs, then the answer or an error.

        ``lines``: the progress lines; None marks the end of ``task``.
        """
        responses = Responses(job)
        yield _event(responses.chunk({"role": "assistant", "content": ""}))
        self._service.metrics.first_byte.labels("true").observe(request_metrics.seconds)
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE):
                    line = await lines.get()
            except TimeoutError:
                yield b": keep-alive\n\n"
                continue
            if line is None:
                break
            yield _event(responses.chunk({"reasoning_content": f"{line}\n"}))
        outcome = ANSWERED
        try:
            chunks = list(responses.chunks(await task, include_usage))
            self._service.metrics.first_content.labels(job.model).observe(request_metrics.seconds)
            for chunk in chunks:
                yield _event(chunk)
        except ApiError as error:
            outcome = error.code
            yield _event(error.body)
        yield b"data: [DONE]\n\n"
        # Set the outcome only now: if the client disconnects earlier, it stays CLIENT_LEFT.
        request_metrics.outcome = outcome

    def _log_once(self, ignored: Iterable[str]) -> None:
        """Log each ignored field only once. :data:`MAX_LOGGED` limits the log, as clients can send any name."""
        new = [name for name in dict.fromkeys(ignored) if name not in self._logged]
        if new and len(self._logged) < MAX_LOGGED:
            self._logged.update(new)
            shown = ", ".join(name[:100] for name in new[:MAX_LOGGED])
            log.warning("requests set fields that are ignored (see docs/serve.md): %s", shown)


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
    except RuntimeError:  # aiohttp raises this if the connection is already closed
        if request.transport is None:
            raise ConnectionResetError from None
        raise


def _event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"
