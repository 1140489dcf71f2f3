"""HTTP requests to the engines of an endpoint, over one shared session with one key."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import aiohttp
import orjson

from tmas.llm.descriptors import EXHAUSTED, TooManyFiles
from tmas.llm.endpoint import EndpointSettings, RequestError, parse_retry_after
from tmas.llm.stream import EventLines, PayloadSplitter, PlainBody, StreamedReply

LINGER = 1.0
"""Seconds to wait for the end of the body after a finished reply, so that the connection can be reused."""
SLACK = 0.01
"""Fraction by which ``idle_timeout`` may fire late. The deadline is not moved for each of thousands of chunks."""
LIST_TIMEOUT, PROBE_TIMEOUT = 300.0, 10.0
"""Seconds in which a server must answer with its model list: for a request, and for a health probe."""


class StreamProgress(NamedTuple):
    """StreamProgress of a request: tokens streamed so far, and the number of completions that have ended."""

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
        self._key = key or named
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            self._headers["Authorization"] = f"Bearer {self._key}"
        self._session, self._owns_session = session, session is None

    async def close(self) -> None:
        if self._session and self._owns_session:
            await self._session.close()

    async def post(self, base_url: str, body: dict[str, Any], report: ProgressCallback) -> StreamedReply:
        """Post ``body`` and return the complete reply. Raises :class:`RequestError` if there is none."""
        reply, started, loop, n = StreamedReply(), time.monotonic(), asyncio.get_running_loop(), body.get("n", 1)
        begun, moved = 0, -math.inf
        try:
            async with (
                asyncio.timeout(self.settings.first_token_timeout) as deadline,
                self._send(base_url, body) as response,
            ):
                if response.status != 200:
                    raise _http_error(response, await response.read())
                splitter: PayloadSplitter = PlainBody() if response.content_type == "application/json" else EventLines()
                while data := await response.content.readany():
                    reply.add_all(splitter.feed(data))
                    self.streaming += 1 - begun
                    begun, now = 1, loop.time()
                    if reply.has_end_mark:
                        if not response.content.is_eof():
                            deadline.reschedule(now + LINGER)
                        continue
                    if now - moved > SLACK * self.settings.idle_timeout:
                        moved = now
                        deadline.reschedule(now + (1 + SLACK) * self.settings.idle_timeout)
                    if reply.complete_choices < n:
                        report(StreamProgress(reply.tokens, reply.complete_choices))
                reply.add_all(splitter.close())
        except RequestError as error:
            raise self._without_key(error) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            if not reply.has_end_mark:
                raise _connection_error(error) from None
        finally:
            self.streaming -= begun
        reply.build(time.monotonic() - started)
        report(StreamProgress(reply.tokens, reply.complete_choices))  # no await from here on: a budget cannot cancel it
        return reply

    async def models(self, base_url: str, timeout: float = LIST_TIMEOUT) -> list[dict[str, Any]]:
        """The engine's list of models. Raises :class:`RequestError` if there is none within ``timeout`` seconds."""
        within = aiohttp.ClientTimeout(total=timeout)
        try:
            async with self._open().get(f"{base_url}/models", headers=self._headers, timeout=within) as response:
                if response.status != 200:
                    raise _http_error(response, await response.read())
                return (await response.json()).get("data", [])
        except RequestError as error:
            raise self._without_key(error) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _connection_error(error) from None
        except (AttributeError, ValueError):
            raise RequestError("the list of models is not JSON in OpenAI's format") from None

    async def is_reachable(self, base_url: str) -> bool:
        """Whether the engine answers, with any status below 500."""
        try:
            await self.models(base_url, PROBE_TIMEOUT)
        except TooManyFiles:
            return False
        except RequestError as error:
            return error.status is not None and error.status < 500
        return True

    def _without_key(self, error: RequestError) -> RequestError:
        """Remove the key from the message of ``error``, in case the server echoed it."""
        if self._key:
            error.message = error.message.replace(self._key, "***")
        return error

    def _send(self, base_url: str, body: dict[str, Any]) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._open().post(
            f"{base_url}/chat/completions",
            data=orjson.dumps(body),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.settings.connect_timeout),
            allow_redirects=False,
        )

    def _open(self) -> aiohttp.ClientSession:
        self._session = self._session or _new_session()
        return self._session


def _new_session() -> aiohttp.ClientSession:
    # vLLM closes idle connections after 5 s. Close them earlier, or a request may go to a closing connection.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def _connection_error(error: Exception) -> RequestError:
    if isinstance(error, OSError) and error.errno in EXHAUSTED:
        raise TooManyFiles.now() from error
    if isinstance(error, aiohttp.ClientError):
        return RequestError(f"{type(error).__name__}: {error}")
    return RequestError("the server stopped making progress", hung=True)


def _http_error(response: aiohttp.ClientResponse, body: bytes) -> RequestError:
    message = f"HTTP {response.status}: {body.decode(errors='replace')}"
    return RequestError(message, response.status, parse_retry_after(response.headers.get("Retry-After", "")))
