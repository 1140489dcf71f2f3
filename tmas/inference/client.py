"""The chat client: one shared session to an OpenAI-compatible server, streamed, retried and counted in one place."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

import aiohttp
import orjson

from tmas.inference.endpoint import MISCONFIGURED, OPTIONAL, EndpointDown, EndpointSettings, Trouble, parse_retry_after
from tmas.inference.sse import Answer, EventLines, Payloads, PlainBody
from tmas.records import Failure, FailureReason, Reply, Request, Usage

log = logging.getLogger(__name__)

LINGER = 1.0
"""Seconds given to a finished answer's connection to end its body, so that it can be used again."""
MESSAGE_LENGTH = len("HTTP 400: ") + 300

Report = Callable[[int], None]
PartReport = Callable[[int, int], None]


class ChatModel(Protocol):
    """Whatever answers requests. A failure it returns has no key yet: that is the caller's to set."""

    async def complete(self, request: Request, on_progress: Report | None = None) -> Reply | Failure: ...


class OpenAIChat:
    """A :class:`ChatModel` over HTTP, meant to be shared by thousands of concurrent calls.

    What the server refuses of :data:`OPTIONAL` is learned on the way and no longer sent.
    """

    def __init__(self, settings: EndpointSettings, session: aiohttp.ClientSession | None = None) -> None:
        self.settings = settings
        self._key = settings.read_key()
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            self._headers["Authorization"] = f"Bearer {self._key}"
        self._session, self._owns_session = session, session is None
        self._refused: set[str] = set()
        self._streaming = 0  # answers that have begun and are not complete
        self._last_served = 0.0  # when the latest request that was served had been sent
        self._jitter = random.Random()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session and self._owns_session:
            await self._session.close()

    async def complete(self, request: Request, on_progress: Report | None = None) -> Reply | Failure:
        """Ask for all ``request.n`` completions; raises :class:`EndpointDown` where no other call gets through either.

        ``on_progress`` is told the completion tokens streamed so far for this request; an attempt that is retried
        starts again from nothing. Cancelling closes the connections at once, so that the server stops generating.
        """
        running: dict[int, int] = {}

        def report(index: int, tokens: int) -> None:
            if on_progress:
                running[index] = tokens
                on_progress(sum(running.values()))

        answers = await self._ask_all(request, report)
        return _reply(answers, request.n)

    async def context_length(self, model: str) -> int | None:
        """The context of ``model`` in tokens where the server's list of models tells it, as vLLM's does; else None.

        Raises :class:`EndpointDown` where the list cannot be had within the patience of ``settings``.
        """
        failed = 0
        while True:
            try:
                return await self._listed_context_length(model)
            except Trouble as trouble:
                failed += 1
                if failed == self.settings.max_attempts or not trouble.may_pass:
                    raise EndpointDown(self.settings.base_url, self._clean(trouble)) from None
                await asyncio.sleep(self._pause(failed, trouble.retry_after))

    async def _listed_context_length(self, model: str) -> int | None:
        try:
            async with self._open().get(f"{self.settings.base_url}/models", headers=self._headers) as response:
                if response.status != 200:
                    raise _http_trouble(response, await response.read())
                listed = (await response.json()).get("data", [])
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _broken(error) from None
        return next((entry.get("max_model_len") for entry in listed if entry.get("id") == model), None)

    async def _ask_all(self, request: Request, report: PartReport) -> list[Answer | Failure]:
        """One answer with all choices; or else the first alone, so that its prompt is cached, then each of the rest."""
        first = await self._ask(request, 1 if "n" in self._refused else request.n, 0, report)
        if isinstance(first, Failure) or len(first.completions) >= request.n:
            return [first]
        self._learn({"n"})
        first.notes.append("n_refused")
        missing = range(len(first.completions), request.n)
        try:
            async with asyncio.TaskGroup() as group:
                rest = [group.create_task(self._ask(request, 1, index, report)) for index in missing]
        except ExceptionGroup as raised:
            raise raised.exceptions[0] from None
        return [first, *(task.result() for task in rest)]

    async def _ask(self, request: Request, n: int, index: int, report: PartReport) -> Answer | Failure:
        """``n`` choices (from the choice ``index`` on) in one answer, asked for until it comes or patience ends."""
        body = _body(request, n, index)
        first_failed, failed = 0.0, 0
        while True:
            outcome = await self._attempt(body, partial(report, index))
            if isinstance(outcome, Answer):
                return outcome
            if not failed:
                first_failed = time.monotonic()
            failed += 1
            if failed == self.settings.max_attempts or not outcome.may_pass:
                return self._give_up(outcome, first_failed)
            log.info("attempt %d failed, asking again: %s", failed, self._clean(outcome))
            await asyncio.sleep(self._pause(failed, outcome.retry_after))

    async def _attempt(self, body: dict[str, Any], report: Report) -> Answer | Trouble:
        """Post ``body`` less what the server refuses; a refusal is learned once asking without has helped."""
        dropped: set[str] = set()
        while True:
            refused = self._refused | dropped
            started = time.monotonic()
            sent = {name: value for name, value in body.items() if name not in refused}
            try:
                answer = await self._post(sent, report)
            except Trouble as trouble:
                field = trouble.refused_field(sent)
                if field is None:
                    return trouble
                dropped.add(field)
            else:
                self._last_served = max(self._last_served, started)
                self._learn(dropped)
                answer.notes += [note for name in body.keys() - sent.keys() if (note := OPTIONAL[name][1])]
                return answer

    async def _post(self, body: dict[str, Any], report: Report) -> Answer:
        answer, started, loop = Answer(), time.monotonic(), asyncio.get_running_loop()
        begun = 0
        try:
            async with asyncio.timeout(self.settings.first_token_timeout) as deadline, self._send(body) as response:
                if response.status != 200:
                    raise _http_trouble(response, await response.read())
                payloads: Payloads = PlainBody() if response.content_type == "application/json" else EventLines()
                async for data in response.content.iter_any():
                    _take(answer, payloads.feed(data), report)
                    self._streaming += 1 - begun
                    begun = 1
                    deadline.reschedule(loop.time() + (LINGER if answer.done else self.settings.idle_timeout))
                _take(answer, payloads.close(), report)
        except (aiohttp.ClientError, TimeoutError) as error:
            if not answer.done:
                raise _broken(error) from None
        finally:
            self._streaming -= begun
        answer.finish(time.monotonic() - started)
        return answer

    def _send(self, body: dict[str, Any]) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._open().post(
            f"{self.settings.base_url}/chat/completions",
            data=orjson.dumps(body),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.settings.connect_timeout),
            allow_redirects=False,
        )

    def _open(self) -> aiohttp.ClientSession:
        self._session = self._session or _new_session()
        return self._session

    def _learn(self, refused: set[str]) -> None:
        for name in refused - self._refused:
            log.warning("%s takes no %s: going on without", self.settings.base_url, name)
        self._refused |= refused

    def _pause(self, failed: int, retry_after: float) -> float:
        backoff = min(self.settings.backoff_max, self.settings.backoff_base * 2 ** (failed - 1))
        return max(backoff * self._jitter.uniform(0.5, 1), min(retry_after, self.settings.retry_after_max))

    def _give_up(self, trouble: Trouble, first_failed: float) -> Failure:
        """This call's own failure; or :class:`EndpointDown` if the server answers nobody else either."""
        message = self._clean(trouble)
        if trouble.is_context:
            return Failure(reason=FailureReason.CONTEXT, message=message)
        never_served = not self._last_served  # what refuses the first call would refuse them all
        silent = never_served or (trouble.may_pass and self._last_served < first_failed)
        if trouble.status in MISCONFIGURED or (silent and not self._streaming):
            raise EndpointDown(self.settings.base_url, message)
        return Failure(reason=FailureReason.TIMEOUT if trouble.hung else FailureReason.ENDPOINT, message=message)

    def _clean(self, trouble: Trouble) -> str:
        """The message without the key, should the server have echoed it, and not too long."""
        message = trouble.message.replace(self._key, "***") if self._key else trouble.message
        return message[:MESSAGE_LENGTH]


def _new_session() -> aiohttp.ClientSession:
    # vLLM closes idle connections after 5 s: be quicker, or a request may be sent into a closing one.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def _body(request: Request, n: int, index: int) -> dict[str, Any]:
    """The JSON to post; a choice asked for singly gets the seed that vLLM gives to it among ``n``: seed + index."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if clash := sampling.extra.keys() & (body.keys() | OPTIONAL.keys()):
        raise ValueError(f"sampling.extra may not set {sorted(clash)}")
    if n > 1:
        body["n"] = n
    if request.seed is not None:
        body["seed"] = request.seed + index
    if request.output_schema is not None:
        schema = {"name": "reply", "schema": request.output_schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body | sampling.extra


def _take(answer: Answer, payloads: list[bytes], report: Report) -> None:
    for payload in payloads:
        answer.add(payload)
    report(answer.tokens)


def _reply(answers: list[Answer | Failure], n: int) -> Reply | Failure:
    """All answers as one, or the first failure among them."""
    completions, usage, notes = [], Usage(), set()
    for answer in answers:
        if isinstance(answer, Failure):
            return answer
        completions += answer.completions
        usage += answer.usage
        notes.update(answer.notes)
    return Reply(completions=tuple(completions[:n]), usage=usage, notes=tuple(sorted(notes)))


def _broken(error: Exception) -> Trouble:
    if isinstance(error, aiohttp.ClientError):
        return Trouble(f"{type(error).__name__}: {error}")
    return Trouble("the server stopped making progress", hung=True)


def _http_trouble(response: aiohttp.ClientResponse, body: bytes) -> Trouble:
    message = f"HTTP {response.status}: {body.decode(errors='replace')}"
    return Trouble(message, response.status, parse_retry_after(response.headers.get("Retry-After", "")))
