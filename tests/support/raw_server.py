"""An HTTP server that sends exact bytes as its responses, valid or not."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

Respond = Callable[[str, Any], Iterable[bytes]]
"""Returns the pieces of the response to a request with this path and JSON body (None if there is no body)."""

HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
EVENTS = HEAD + b"Content-Type: text/event-stream\r\n\r\n"
PLAIN = HEAD + b"Content-Type: application/json\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def event(chunk: Any) -> bytes:
    """A server-sent event. ``chunk``: its payload as bytes, or a value to write as JSON."""
    return b"data: " + (chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode()) + b"\n\n"


def text_event(text: str, finish_reason: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}]})


GOOD = EVENTS + text_event("4", "stop") + DONE


@asynccontextmanager
async def raw_server(respond: Respond, pause: float = 0.0) -> AsyncIterator[str]:
    """Yields the base URL. ``pause``: seconds between two pieces. A connection is closed after its first response."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
            body = json.loads(await reader.readexactly(int(length[1]))) if length else None
            for piece in respond(head.split(" ")[1], body):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
