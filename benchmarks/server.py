"""A chat server in its own process with almost no CPU cost per request, for benchmarks of clients."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import orjson

from tmas.testing import team

PROSE = "Let n be the least such integer; then it divides the sum, and each step that follows is checked in turn. " * 12
"""Padding of replies in prose: about as long as a solution or a critique without its reasoning."""
IN_JSON = ("experience", "guideline")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def replies(body: dict[str, Any]) -> list[str]:
    """A well-formed reply of realistic length for each requested choice. ``body``: of the request."""
    role = team.role_of(body)
    return [text if role in IN_JSON else f"{PROSE}{text}" for text in team.reply(body)]


@contextmanager
def chat_server(delay: float, pieces: int = 8) -> Iterator[str]:
    """Start a server and yield its base URL. ``delay``: seconds for each request. ``pieces``: of each reply."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(delay, pieces, sender), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{receiver.recv()}/v1"
    finally:
        process.terminate()
        process.join()


def _serve(delay: float, pieces: int, port: Connection) -> None:
    """Serve until the process is terminated. Sends the port number through ``port``."""

    async def forever() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Exchange(delay, pieces), "127.0.0.1", 0, backlog=8192)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(forever())


class _Exchange(asyncio.Protocol):
    """One HTTP/1.1 connection, whose requests arrive one after the other."""

    def __init__(self, delay: float, pieces: int) -> None:
        self._delay, self._pieces = delay, pieces
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, rest = self._data.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if end and length and len(rest) >= int(length[1]):
            self._data = b""
            self._answer(orjson.loads(rest))

    def _answer(self, body: dict[str, Any]) -> None:
        loop, events = asyncio.get_running_loop(), list(_events(body, self._pieces))
        for number, event in enumerate(events):
            loop.call_later(self._delay * (number + 1) / len(events), self._transport.write, event)


def _events(body: dict[str, Any], pieces: int) -> Iterator[bytes]:
    """The response in ``pieces`` writes. The first contains the headers, and each contains a piece of every choice."""
    texts = replies(body)
    for piece in range(pieces):
        last = piece == pieces - 1
        data = b""
        for index, text in enumerate(texts):
            delta = {"content": text[len(text) * piece // pieces : len(text) * (piece + 1) // pieces]}
            choice = {"index": index, "delta": delta, "finish_reason": "stop" if last else None}
            data += _event({"id": "scripted", "object": "chat.completion.chunk", "choices": [choice]})
        if last:
            completion = 100 * len(texts)
            usage = {"prompt_tokens": 1000, "completion_tokens": completion, "total_tokens": 1000 + completion}
            data += _event({"id": "scripted", "object": "chat.completion.chunk", "choices": [], "usage": usage})
            data += b"data: [DONE]\n\n"
        chunk = b"%x\r\n%b\r\n" % (len(data), data)
        yield (b"" if piece else HEAD) + chunk + (b"0\r\n\r\n" if last else b"")


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"
