"""The chat client: routes, retries and counts requests to one or several OpenAI-compatible servers.

An *endpoint* is one or several servers of one model. An *engine* is the client's view of one of these servers
(:class:`~tmas.llm.router.Engine`).
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp

from tmas.llm.chat_model import NO_HINT, RoutingHint
from tmas.llm.connection import PROBE_TIMEOUT, Connection, ProgressCallback, StreamProgress
from tmas.llm.endpoint import OPTIONAL_FIELDS, EndpointDown, EndpointSettings, RequestError, UnknownModel
from tmas.llm.payload import chat_body, joined
from tmas.llm.refusals import RefusedFields
from tmas.llm.router import Engine, Router
from tmas.llm.stream import StreamedReply
from tmas.records import Failure, FailureReason, Reply, Request
from tmas.redaction import clean_logger

log = clean_logger(__name__)

CHECK_INTERVAL = 1.0
"""Seconds between two health checks of an engine, and between two checks whether any engine can be used."""
REFUSALS, COOLDOWN = 3, 30.0
"""After this many consecutive refusals (401, 404, ...), an engine gets no calls for ``COOLDOWN`` seconds if there are
other engines."""
MAX_CONTEXT_TOKENS = 10**9
"""A larger context length that a server reports is ignored: it cannot be a number of tokens."""

T = TypeVar("T")

RequestProgressCallback = Callable[[int, StreamProgress], None]
"""Called with the index of the first completion that an HTTP request asks for, and the progress of that request."""
RetryCallback = Callable[[str, str], None]
"""Called with a server's base URL and why calls to it are retried. The reason is empty once a call has succeeded."""


class OpenAIChat:
    """A :class:`ChatModel` over HTTP, meant to be shared by thousands of concurrent calls.

    A request that fails on one engine is retried on another immediately; the client pauses only after all engines have
    failed. A failed engine is probed until it is healthy again. The client learns which of the
    :data:`OPTIONAL_FIELDS` a server refuses, and leaves these out, except for an occasional attempt.

    ``slots``: maximum number of completions in flight on all engines together; each engine has a share of them.
    ``key``: API key to use instead of the one that the settings name. Set the attribute ``on_retry`` to be notified of
    retries, for progress displays.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        session: aiohttp.ClientSession | None = None,
        *,
        slots: int = sys.maxsize,
        key: str | None = None,
    ) -> None:
        self.settings = settings
        self.router = Router(settings.base_urls, slots)
        self._connection = Connection(settings, session, key)
        self._refused_fields = RefusedFields()
        self._probes: dict[Engine, asyncio.Task[None]] = {}
        self._newest_success_sent_at = 0.0  # when the newest successful request was sent; 0 if none succeeded
        self._calls_in_flight = 0  # calls whose outcome is not known yet
        self._jitter = random.Random()
        # Whether any server has answered any request, including requests for the list of models.
        self._has_answered = False
        self._retried: set[str] = set()  # base URLs of the servers whose calls are being retried
        self.on_retry: RetryCallback = lambda *_: None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        for probe in self._probes.values():
            probe.cancel()
        await asyncio.gather(*self._probes.values(), return_exceptions=True)
        await self._connection.close()

    async def complete(
        self, request: Request, on_progress: ProgressCallback | None = None, hint: RoutingHint = NO_HINT
    ) -> Reply | Failure:
        """Request ``request.n`` completions. Returns a failure if only this request fails.

        Raises :class:`EndpointDown` if the whole endpoint is down: the URL, key or model is wrong, or all calls fail.

        A retried attempt reports its progress from zero again. Cancelling closes the connections at once, so that the
        server stops generating.
        """
        progress_by_request: dict[int, StreamProgress] = {}

        def report(index: int, progress: StreamProgress) -> None:
            progress_by_request[index] = progress
            if on_progress:
                if len(progress_by_request) > 1:  # the sum over all requests of this call
                    progress = StreamProgress(*map(sum, zip(*progress_by_request.values(), strict=True)))
                on_progress(progress)

        replies = await self._ask_all(request, hint, report)
        return joined(replies, request.n)

    async def context_length(self, model: str) -> int | None:
        """Return the context length of ``model`` in tokens.

        None if the server does not state it; vLLM does. Raises :class:`UnknownModel` if the server lists other
        models, but not ``model``, and :class:`EndpointDown` if the list cannot be read after all retries.
        """
        base_url, listed = await self._read_models()
        if listed and model not in listed:
            raise UnknownModel(base_url, model, list(listed))
        length = listed.get(model, {}).get("max_model_len")
        return length if type(length) is int and 0 < length <= MAX_CONTEXT_TOKENS else None

    async def models(self) -> dict[str, dict[str, Any]]:
        """The models that a server lists, by name. Raises :class:`EndpointDown` if the list cannot be read."""
        return (await self._read_models())[1]

    async def _read_models(self) -> tuple[str, dict[str, dict[str, Any]]]:
        """The address of the server that answered, and the models that it lists."""

        async def read(engine: Engine) -> tuple[str, list[dict[str, Any]]]:
            return engine.base_url, await self._connection.models(engine.base_url)

        try:
            base_url, listed = await self._with_retries("", read)
        except RequestError as error:
            raise EndpointDown(error.base_url, error.brief, error.remedy) from None
        return base_url, {entry["id"]: entry for entry in listed}

    async def _ask_all(
        self, request: Request, hint: RoutingHint, report: RequestProgressCallback
    ) -> list[StreamedReply | Failure]:
        """Request all completions at once. If the server refuses ``n``, request the first, then the others."""
        refused_fields = self._refused_fields.for_call()
        n = 1 if "n" in refused_fields else request.n
        first = await self._ask(request, n, 0, refused_fields, hint, report)
        if isinstance(first, Failure):
            return [first]
        is_short = len(first.completions) < request.n
        # Some servers ignore n without an error. After several short replies in a row, n counts as refused.
        if request.n > 1 and "n" not in refused_fields | set(first.dropped):
            self._warn_refused_fields(self._refused_fields.count_reply(is_short))
        if not is_short:
            return [first]
        first.notes.append("n_refused")
        missing = range(len(first.completions), request.n)
        try:
            async with asyncio.TaskGroup() as group:
                rest = [group.create_task(self._ask(request, 1, i, refused_fields, hint, report)) for i in missing]
        except ExceptionGroup as raised:
            raise raised.exceptions[0] from None
        return [first, *(task.result() for task in rest)]

    async def _ask(
        self,
        request: Request,
        n: int,
        index: int,
        refused_fields: frozenset[str],
        hint: RoutingHint,
        report: RequestProgressCallback,
    ) -> StreamedReply | Failure:
        """Request ``n`` completions, starting with number ``index``, in one reply, with retries.

        ``refused_fields``: fields that are not sent.
        """
        priority = hint.priority if self.settings.send_priority else None
        body = chat_body(request, n, index, self.settings.token_limit_field, priority)
        if not self.settings.stream:
            del body["stream"], body["stream_options"]
        elif not self.settings.base_urls:  # the run's own vLLM servers, whose chunks hold several tokens
            body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        self._calls_in_flight += 1
        try:
            return await self._with_retries(
                hint.problem, lambda engine: self._attempt(engine, body, refused_fields, partial(report, index)), n
            )
        except RequestError as error:
            failed = error
        finally:
            self._calls_in_flight -= 1
        # After ``finally``: _give_up() may wait for the other calls in flight, and this call must not count as one.
        return await self._give_up(failed, request.model)

    async def _with_retries(self, problem: str, attempt: Callable[[Engine], Awaitable[T]], count: int = 1) -> T:
        """Run ``attempt`` on one engine after another until one succeeds. Raises the last :class:`RequestError`.

        A round makes one attempt on each engine. After a round in which all engines failed, the client pauses and
        begins another round. The maximum number of rounds, and so of attempts on each engine, is
        :meth:`~tmas.llm.endpoint.EndpointSettings.most_attempts`.
        """
        rounds, tried, first_failed_at = 0, set[Engine](), 0.0
        while True:
            engine = await self._engine(problem, tried, count)
            try:
                result = await attempt(engine)
                self._has_answered = True
                if engine.base_url in self._retried:
                    self._retried.discard(engine.base_url)
                    self.on_retry(engine.base_url, "")
                return result
            except RequestError as error:
                first_failed_at = first_failed_at or time.monotonic()
                error.has_served = bool(self._newest_success_sent_at)
                if error.looks_misconfigured:
                    self._count_refusal(engine, error.brief)
                tried.add(engine)
                if self.router.choose(problem, tried) is None:
                    rounds += 1
                    tried.clear()
                limit = self.settings.most_attempts(never_ran=error.is_unreachable and not self._has_answered)
                if rounds >= limit or not error.is_retryable:
                    error.base_url, error.since = engine.base_url, first_failed_at
                    raise
                log.info("%s failed, retrying: %s", engine.base_url, error.brief)
                self._retried.add(engine.base_url)
                self.on_retry(engine.base_url, f"{error.brief}, attempt {rounds + 1} of {limit}")
                self._start_probe(engine, error.retry_after)
                if not tried:
                    await asyncio.sleep(self._pause(rounds, error.retry_after))

    def _count_refusal(self, engine: Engine, reason: str) -> None:
        engine.refusals += 1
        if engine.refusals == REFUSALS and len(self.router.engines) > 1:
            message = "%s has refused %d calls in a row. It gets calls only every %g seconds until it accepts one: %s"
            log.warning(message, engine.base_url, REFUSALS, COOLDOWN, reason)

    async def _engine(self, problem: str, tried: Collection[Engine], count: int) -> Engine:
        """Choose the next engine to try. Waits if there is none, for example while all of them restart."""
        # Poll: the router is synchronous and cannot signal a change.
        while (engine := self.router.choose(problem, tried, count)) is None:  # noqa: ASYNC110
            await asyncio.sleep(CHECK_INTERVAL)
        return engine

    def _start_probe(self, engine: Engine, retry_after: float) -> None:
        """Mark ``engine`` as unhealthy until a probe succeeds. A single engine is never marked."""
        if engine.refusals >= REFUSALS:  # a probe would succeed at once, because a refusal is an answer
            retry_after = max(retry_after, COOLDOWN)
        if len(self.router.engines) > 1 and engine not in self._probes:
            probe = asyncio.create_task(
                self._probe_until_healthy(engine, min(retry_after, self.settings.retry_after_max))
            )
            self._probes[engine] = probe
            probe.add_done_callback(lambda _: self._probes.pop(engine))

    async def _probe_until_healthy(self, engine: Engine, pause: float) -> None:
        engine.is_healthy = False
        await asyncio.sleep(pause)
        while not await self._connection.is_reachable(engine.base_url):
            await asyncio.sleep(CHECK_INTERVAL)
            if self.router.engines.get(engine.base_url) is not engine:
                return  # this engine was removed; another one may use its address now
        engine.is_healthy = True

    async def _attempt(
        self, engine: Engine, body: dict[str, Any], refused_fields: frozenset[str], report: ProgressCallback
    ) -> StreamedReply:
        """Post ``body`` without the ``refused_fields``.

        If the server refuses another field, the body is posted again without that field. The client remembers the field
        once such a request succeeds.
        """
        dropped: set[str] = set()

        def count_and_report(progress: StreamProgress) -> None:
            count(*progress)
            report(progress)

        with engine.call(body.get("n", 1)) as count:
            while True:
                started = time.monotonic()
                left_out = refused_fields | dropped
                sent = {name: value for name, value in body.items() if name not in left_out}
                try:
                    reply = await self._connection.post(engine.base_url, sent, count_and_report)
                except RequestError as error:
                    field = error.refused_field(sent)
                    if field is None:
                        report(StreamProgress(0, 0))  # the caller then counts the tokens of this attempt as aborted
                        raise
                    dropped.add(field)
                else:
                    engine.refusals = 0
                    self._newest_success_sent_at = max(self._newest_success_sent_at, started)
                    self._warn_refused_fields(self._refused_fields.add(dropped))
                    self._refused_fields.accept(sent.keys() - {"n"})  # _ask_all() counts completions to decide about n
                    reply.dropped = frozenset(dropped)
                    reply.notes += [note for name in body.keys() - sent.keys() if (note := OPTIONAL_FIELDS[name].note)]
                    return reply

    async def _wait_for_first_success(self) -> None:
        """Wait until a call has succeeded, a reply streams, or no other call is in flight.

        A refusal arrives faster than the first reply. Without the wait, one refused call would look like an endpoint
        that refuses all calls.
        """
        while not self._newest_success_sent_at and self._calls_in_flight and not self._connection.streaming:  # noqa: ASYNC110
            await asyncio.sleep(CHECK_INTERVAL)

    def _warn_refused_fields(self, new_fields: list[str]) -> None:
        for name in new_fields:
            message = "the endpoint (%s) does not accept the field %s: requests are sent without it"
            log.warning(message, ", ".join(self.router.engines), name)

    def _pause(self, rounds: int, retry_after: float) -> float:
        backoff = min(self.settings.backoff_max, self.settings.backoff_base * 2 ** (rounds - 1))
        return max(backoff * self._jitter.uniform(0.5, 1), min(retry_after, self.settings.retry_after_max))

    async def _give_up(self, error: RequestError, model: str) -> Failure:
        """Return this call's failure. Raises :class:`EndpointDown` if the whole endpoint is down."""
        message = error.brief
        if error.is_prompt_too_long:
            return Failure(reason=FailureReason.CONTEXT, message=message)
        if error.may_mean_unknown_model and not error.has_served:
            await self._raise_if_unknown(model, error.base_url)
        if error.looks_misconfigured and not error.has_served:
            raise EndpointDown(error.base_url, message, error.remedy)
        if not error.is_retryable:
            await self._wait_for_first_success()
        # The endpoint counts as down if no call has ever succeeded. After a retryable error, it also counts as down if
        # no call that was sent after this call's first failure has succeeded.
        no_success = not self._newest_success_sent_at or (
            error.is_retryable and self._newest_success_sent_at < error.since
        )
        # Replies that still stream show that the server is alive, but not that it accepts another call.
        if no_success and (error.looks_misconfigured or not self._connection.streaming):
            raise EndpointDown(error.base_url, message, error.remedy)
        return Failure(reason=FailureReason.TIMEOUT if error.hung else FailureReason.ENDPOINT, message=message)

    async def _raise_if_unknown(self, model: str, base_url: str) -> None:
        """Raise :class:`UnknownModel` if the server lists its models and ``model`` is not among them."""
        try:
            listed = await self._connection.models(base_url, PROBE_TIMEOUT)
        except RequestError:  # the server has no such list, or its URL is wrong
            return
        names = [entry["id"] for entry in listed]
        if names and model not in names:
            raise UnknownModel(base_url, model, names)
