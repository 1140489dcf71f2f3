"""HTTP requests to the engines of an endpoint, over one shared session with one key."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import aiohttp
import orjson

from tmas.llm.descriptors import EXHAUSTED, TooManyFiles
from tmas.llm.endpoint import EndpointSettings, RequestError, parse_retry_after
from tmas.llm.limits import ReplyLimits, reply_limits
from tmas.llm.stream import EventLines, PayloadSplitter, PlainBody, StreamedReply, too_long
from tmas.redaction import add_secret, clean

LINGER = 1.0
"""Seconds to wait for the end of the body after a finished reply, so that the connection can be reused."""
SLACK = 0.01
"""Fraction by which ``idle_timeout`` may fire late. The deadline is not moved for each of thousands of chunks."""
LIST_TIMEOUT, PROBE_TIMEOUT = 300.0, 10.0
"""Seconds in which a server must answer with its model list: for a request, and for a health probe."""
ERROR_TIMEOUT = 10.0
"""Seconds to wait for the body of an error."""
MAX_ERROR_BYTES, MAX_LIST_BYTES = 2**16, 2**22
"""Maximum size of the part of an error's body that is read, and of a list of models."""


class StreamProgress(NamedTuple):
    """The progress of a request: tokens streamed so far, and the number of completions that have ended."""

    tokens: int
    ended: int


ProgressCallback = Callable[[StreamProgress], None]


class Connection:
    """Sends requests to any engine of an endpoint. ``streaming``: number of replies that have started but not ended."""

    def __init__(
        self, settings: EndpointSettings, session: aiohttp.ClientSession | None = None, key: str | None = None
    ) -> None:
        self.settings = settings
        self.streaming = 0
        named = settings.read_key()
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if key := key or named:
            add_secret(key)
            self._headers["Authorization"] = f"Bearer {key}"
        self._session, self._owns_session = session, session is None

    async def close(self) -> None:
        if self._session and self._owns_session:
            await self._session.close()

    async def post(self, base_url: str, body: dict[str, Any], report: ProgressCallback) -> StreamedReply:
        """Post ``body`` and return the complete reply. Raises :class:`RequestError` if there is none."""
        n, max_tokens = body.get("n", 1), body[self.settings.token_limit_field]
        limits = reply_limits(max_tokens, n, self.settings.max_bytes_per_token)
        sent, started = orjson.dumps(body), time.monotonic()
        characters = sum(len(message["content"]) for message in body["messages"])
        reply = StreamedReply(n, max_tokens, len(sent), limits, characters)
        try:
            async with (
                asyncio.timeout(self.settings.first_token_timeout) as deadline,
                self._send(base_url, sent) as response,
            ):
                await _check(response)
                await self._receive(response, reply, limits, deadline, report)
        except (aiohttp.ClientError, TimeoutError) as error:
            if not reply.has_end_mark:
                raise _connection_error(error) from None
        reply.build(time.monotonic() - started)
        # No await follows, so the reply is not lost if this report makes a budget cancel the call.
        report(StreamProgress(reply.tokens, reply.complete_choices))
        return reply

    async def _receive(
        self,
        response: aiohttp.ClientResponse,
        reply: StreamedReply,
        limits: ReplyLimits,
        deadline: asyncio.Timeout,
        report: ProgressCallback,
    ) -> None:
        """Add the body of ``response`` to ``reply``. Text and finished choices are progress; comments are not."""
        is_plain = response.content_type == "application/json"
        splitter: PayloadSplitter = PlainBody(limits.line) if is_plain else EventLines(limits.line)
        loop, idle_timeout = asyncio.get_running_loop(), self.settings.idle_timeout
        received, begun, deadline_moved_at, last_progress = 0, 0, -math.inf, None
        try:
            while data := await response.content.readany():
                received += len(data)
                if received > limits.stream:
                    raise too_long(f"{limits.stream:,} bytes")
                payloads = splitter.feed(data)
                reply.add_all(payloads)
                if reply.has_end_mark:
                    if not response.content.is_eof():
                        deadline.reschedule(loop.time() + LINGER)
                        while not response.content.is_eof() and await response.content.readany():
                            pass
                    return
                progress = StreamProgress(reply.tokens, reply.complete_choices)
                if not payloads or progress == last_progress:
                    continue
                last_progress, now = progress, loop.time()
                self.streaming += 1 - begun
                begun = 1
                if any(progress) and now - deadline_moved_at > SLACK * idle_timeout:
                    deadline_moved_at = now
                    deadline.reschedule(now + (1 + SLACK) * idle_timeout)
                if progress.ended < reply.n:
                    report(progress)
            reply.add_all(splitter.close())
        finally:
            self.streaming -= begun

    async def models(self, base_url: str, timeout: float = LIST_TIMEOUT) -> list[dict[str, Any]]:
        """The engine's list of models, whose names are in ``id``. Entries without a name are left out.

        Raises :class:`RequestError` if there is no list within ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout), self._list_models(base_url) as response:
                await _check(response)
                content = await _read(response, MAX_LIST_BYTES + 1)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _connection_error(error) from None
        try:
            listed = orjson.loads(content)["data"] if len(content) <= MAX_LIST_BYTES else None
        except (KeyError, TypeError, ValueError):
            listed = None
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
            raise RequestError("the list of models is not JSON in OpenAI's format")
        # A server can repeat the key in a name, and commands print the names.
        return [{**entry, "id": clean(str(entry["id"]))} for entry in listed if "id" in entry]

    async def is_reachable(self, base_url: str) -> bool:
        """Whether the engine answers a request for its models with any status below 500, whatever the content.

        A server without a list of models answers with 404, and some servers use another format. True only means that
        the engine gets calls again. Calls that it cannot answer, for example because its URL is wrong, still fail.
        """
        try:
            async with asyncio.timeout(PROBE_TIMEOUT), self._list_models(base_url) as response:
                return response.status < 500
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _send(self, base_url: str, body: bytes) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._open_session().post(
            f"{base_url}/chat/completions",
            data=body,
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.settings.connect_timeout),
            allow_redirects=False,
            auto_decompress=False,
        )

    def _list_models(self, base_url: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._open_session().get(
            f"{base_url}/models",
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.settings.connect_timeout),
            allow_redirects=False,
            auto_decompress=False,
        )

    def _open_session(self) -> aiohttp.ClientSession:
        self._session = self._session or _new_session()
        return self._session


def _new_session() -> aiohttp.ClientSession:
    # vLLM closes idle connections after 5 s. Close them earlier, or a request may go to a closing connection.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


async def _check(response: aiohttp.ClientResponse) -> None:
    """Raise :class:`RequestError` for a status other than 200, and for a compressed body.

    A compressed body is never read, because a few kilobytes can unpack to gigabytes.
    """
    encoding = response.headers.get("Content-Encoding", "")
    is_compressed = encoding.strip().lower() not in ("", "identity")
    if response.status != 200:
        body = b"(a compressed body)" if is_compressed else await _error_body(response)
        message = f"HTTP {response.status}: {body.decode(errors='replace')}"
        raise RequestError(message, response.status, parse_retry_after(response.headers.get("Retry-After", "")))
    if is_compressed:
        raise RequestError(f"the reply is compressed ({encoding}), but the request forbids it", is_final=True)


async def _error_body(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of the body of an error. An error whose body is late or broken is still that error."""
    try:
        async with asyncio.timeout(ERROR_TIMEOUT):
            return await _read(response, MAX_ERROR_BYTES)
    except (aiohttp.ClientError, TimeoutError):
        return b"(the body is incomplete)"


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The first ``limit`` bytes of the body."""
    body = bytearray()
    while len(body) < limit and (data := await response.content.readany()):
        body += data
    return bytes(body[:limit])


def _connection_error(error: Exception) -> RequestError:
    if isinstance(error, OSError) and error.errno in EXHAUSTED:
        raise TooManyFiles.now() from error
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = error.os_error.strerror
        if error.os_error.errno and error.os_error.errno > 0:  # otherwise the host's name could not be resolved
            reason = os.strerror(error.os_error.errno)
        return RequestError(f"cannot connect ({reason})", is_unreachable=True)
    if isinstance(error, aiohttp.ClientError):
        return RequestError(f"{type(error).__name__}: {error}")
    return RequestError("the server stopped making progress", hung=True)
