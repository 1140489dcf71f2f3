"""A scripted OpenAI-compatible server over real HTTP on loopback, with exact replies and faults but without a model."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from aiohttp import web

Body = dict[str, Any]
HANG = 3600.0


@dataclass(frozen=True)
class Fault:
    """A fault in one request after ``after`` chunks (None: before the headers).

    ``status``: refuse with a status, headers and a body. ``reset``: reset the connection. ``hang``: send nothing more.
    ``truncate``: end the stream early. ``malformed``: send half a chunk's JSON. ``empty``: send no choices and end.
    ``error``: send an error event with ``status`` as its code.
    """

    kind: Literal["status", "reset", "hang", "truncate", "malformed", "empty", "error"]
    after: int | None = 0
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = '{"error": {"message": "scripted"}}'


@dataclass(frozen=True)
class Script:
    """One answer: a text per choice, its transmission, and an optional fault. Delays are in seconds.

    ``raw``: the body of the response as byte chunks, each written separately.
    """

    texts: tuple[str, ...] = ("",)
    reasoning: str = ""
    reasoning_field: str = "reasoning_content"
    finish_reason: str | None = "stop"
    cached_tokens: int | None = None
    usage: Literal["last", "every", "none"] = "last"
    stream: bool = True
    comments: bool = False
    first_delay: float = 0.0
    chunk_delay: float = 0.0
    words_per_chunk: int = 1
    raw: tuple[bytes, ...] | None = None
    fault: Fault | None = None


ReplyFunction = Callable[[Body], str | list[str] | Script]


def default_reply(body: Body) -> list[str]:
    """Return a text per choice that depends only on messages and seed, or an instance of the requested JSON schema."""
    if schema := body.get("response_format", {}).get("json_schema", {}).get("schema"):
        return [json.dumps(example(schema, schema))] * body.get("n", 1)
    asked = json.dumps(body["messages"])
    seeds = [body.get("seed", 0) + index for index in range(body.get("n", 1))]
    return [f"scripted reply {hashlib.sha256(f'{seed} {asked}'.encode()).hexdigest()[:12]}" for seed in seeds]


def example(schema: Body, root: Body) -> Any:
    """Return a small instance of a JSON schema in pydantic's form. ``root`` contains its ``$defs``."""
    if "$ref" in schema:
        return example(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return example(schema["anyOf"][0], root)
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else None):
        return choices[0]
    if schema["type"] == "object":
        return {name: example(part, root) for name, part in schema.get("properties", {}).items()}
    if schema["type"] == "array":
        return [example(schema["items"], root)] * schema.get("minItems", 1)
    return {"string": "scripted", "integer": 1, "number": 1.0, "boolean": True, "null": None}[schema["type"]]


@dataclass
class Exchange:
    """One request and its state. ``aborted``: the client or the server closed the connection early."""

    body: Body
    headers: Mapping[str, str]
    state: Literal["open", "finished", "aborted"] = "open"


class ScriptedServer:
    """A server that answers ``/v1/chat/completions`` with ``reply``. An async context manager.

    See also :func:`run_in_thread`.

    ``faults``: applied to the first requests, one each (None: no fault). ``refuses``: request fields that get a 400.
    ``max_choices``: maximum number of choices in a reply. ``context_length``: shown in the list of models. ``key``:
    requests without it get a 401. ``port``: 0 for any free port. ``on_end``: called when a request has ended.
    ``models``: replaces the list of models.
    """

    def __init__(
        self,
        reply: ReplyFunction = default_reply,
        *,
        faults: Iterable[Fault | None] = (),
        refuses: Iterable[str] = (),
        max_choices: int | None = None,
        context_length: int | None = None,
        key: str | None = None,
        port: int = 0,
        on_end: Callable[[Exchange], None] = lambda _: None,
    ) -> None:
        self.context_length, self.key, self.port, self.on_end = context_length, key, port, on_end
        self.reply, self.refuses, self.max_choices = reply, frozenset(refuses), max_choices
        self.exchanges: list[Exchange] = []
        self.models: Any = None
        self.base_url = ""
        self._faults = iter(faults)
        self._runner: web.AppRunner | None = None

    @property
    def requests(self) -> list[Body]:
        """Every request's body, in order of arrival."""
        return [exchange.body for exchange in self.exchanges]

    @property
    def finished(self) -> list[Body]:
        return [exchange.body for exchange in self.exchanges if exchange.state == "finished"]

    @property
    def aborted(self) -> list[Body]:
        return [exchange.body for exchange in self.exchanges if exchange.state == "aborted"]

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**30)
        app.add_routes([web.post("/v1/chat/completions", self._answer), web.get("/v1/models", self._models)])
        app.add_routes([web.get("/health", _health)])
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=4096)
        await site.start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner
        await self._runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        if self.models is not None:
            return web.json_response(self.models)
        model: dict[str, Any] = {"id": "scripted", "object": "model"}
        if self.context_length:
            model["max_model_len"] = self.context_length
        return web.json_response({"object": "list", "data": [model]})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        exchange = Exchange(await request.json(), dict(request.headers))
        if self.key and exchange.headers.get("Authorization") != f"Bearer {self.key}":
            return web.Response(status=401)
        self.exchanges.append(exchange)
        fault = next(self._faults, None)
        try:
            response = await self._respond(request, exchange.body, fault)
            exchange.state = "finished"
            return response
        except (asyncio.CancelledError, ConnectionError):
            exchange.state = "aborted"
            raise
        finally:
            self.on_end(exchange)

    async def _respond(self, request: web.Request, body: Body, fault: Fault | None) -> web.StreamResponse:
        refused = sorted(self.refuses & body.keys())
        if refused:
            return web.json_response({"error": {"message": f"{refused[0]} is not supported"}}, status=400)
        script = self._script(body)
        fault = fault or script.fault
        if fault and fault.kind == "status":
            return web.Response(status=fault.status, headers=fault.headers, text=fault.body)
        if fault and fault.after is None:
            await _apply_fault(fault, request)
        await asyncio.sleep(script.first_delay)
        if not (script.stream and body.get("stream")):
            return _plain(body, script)
        return await _stream(request, body, script, fault)

    def _script(self, body: Body) -> Script:
        said = self.reply(body)
        script = said if isinstance(said, Script) else Script((said,) if isinstance(said, str) else tuple(said))
        texts = script.texts * body.get("n", 1) if len(script.texts) == 1 else script.texts
        return replace(script, texts=texts[: min(body.get("n", 1), self.max_choices or len(texts))])


async def _health(_: web.Request) -> web.Response:
    return web.Response()


@contextmanager
def run_in_thread(server: ScriptedServer) -> Iterator[ScriptedServer]:
    """Run ``server`` with its own loop and thread, for clients in other processes or to time a client separately."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(server.__aexit__(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


BROKEN_ENDINGS = {
    "truncate": b"",
    "malformed": b'data: {"choices": [{"index": 0, "de\n\n',
    "empty": b'data: {"choices": []}\n\ndata: [DONE]\n\n',
}


async def _stream(request: web.Request, body: Body, script: Script, fault: Fault | None) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for count, data in enumerate(_events(body, script) if script.raw is None else script.raw):
        if fault and count == fault.after:
            await response.write(await _apply_fault(fault, request))
            break
        await response.write(data)
        await asyncio.sleep(script.chunk_delay)
    await response.write_eof()
    return response


async def _apply_fault(fault: Fault, request: web.Request) -> bytes:
    """Apply a fault. Returns the last bytes of a broken stream; a hanging or reset connection never returns."""
    if fault.kind == "error":
        return _event({"error": {"message": "scripted error", "code": fault.status}})
    if fault.kind in BROKEN_ENDINGS:
        return BROKEN_ENDINGS[fault.kind]
    if fault.kind == "reset":
        assert request.transport
        no_linger = struct.pack("ii", 1, 0)
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        request.transport.abort()
    await asyncio.sleep(HANG)
    raise AssertionError("nobody waits that long")


def _event(data: Body) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def _events(body: Body, script: Script) -> Iterator[bytes]:
    """The events of one answer, with its choices interleaved."""
    wants_usage = script.usage != "none" and body.get("stream_options", {}).get("include_usage")
    sent = 0
    for index in range(len(script.texts)):
        yield _event(_chunk(body, index, {"role": "assistant", "content": ""}))
    for index, delta in _deltas(script):
        sent += script.words_per_chunk
        every = {"usage": _usage(body, script, sent)} if wants_usage and script.usage == "every" else {}
        yield (b": ping\n\n" if script.comments else b"") + _event(_chunk(body, index, delta) | every)
    for index in range(len(script.texts)):
        yield _event(_chunk(body, index, {"content": None}, script.finish_reason))
    if wants_usage:
        yield _event(_envelope(body, ".chunk") | {"choices": [], "usage": _usage(body, script)})
    yield b"data: [DONE]\n\n"


def _chunk(body: Body, index: int, delta: Body, finish_reason: str | None = None) -> Body:
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
    return _envelope(body, ".chunk") | {"choices": [choice]}


def _envelope(body: Body, kind: str = "") -> Body:
    """The members of every answer, which some clients require."""
    return {"id": "scripted", "object": f"chat.completion{kind}", "created": 0, "model": body.get("model")}


def _deltas(script: Script) -> Iterator[tuple[int, Body]]:
    parts = [
        [{script.reasoning_field: piece} for piece in _pieces(script.reasoning, script.words_per_chunk)]
        + [{"content": piece} for piece in _pieces(text, script.words_per_chunk)]
        for text in script.texts
    ]
    for step in range(max(map(len, parts), default=0)):
        yield from ((index, deltas[step]) for index, deltas in enumerate(parts) if step < len(deltas))


def _pieces(text: str, words: int = 1) -> list[str]:
    """Split ``text`` after every ``words`` words. Joining the pieces gives ``text``."""
    cut = re.findall(r"\S+\s*|\s+", text)
    return ["".join(cut[start : start + words]) for start in range(0, len(cut), words)]


def _usage(body: Body, script: Script, completion_words: int | None = None) -> Body:
    """Token counts in words. Servers may omit ``cached_tokens``, as this one does by default."""
    prompt = sum(len(_pieces(message["content"])) for message in body["messages"])
    completion = sum(len(_pieces(script.reasoning)) + len(_pieces(text)) for text in script.texts)
    completion = completion if completion_words is None else completion_words
    details = None if script.cached_tokens is None else {"cached_tokens": script.cached_tokens}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": details,
    }


def _plain(body: Body, script: Script) -> web.Response:
    if script.raw is not None:
        return web.Response(body=b"".join(script.raw), content_type="application/json")
    reasoning = {script.reasoning_field: script.reasoning} if script.reasoning else {}
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text} | reasoning,
            "finish_reason": script.finish_reason,
        }
        for index, text in enumerate(script.texts)
    ]
    usage = {} if script.usage == "none" else {"usage": _usage(body, script)}
    return web.json_response(_envelope(body) | {"choices": choices} | usage)
