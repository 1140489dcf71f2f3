"""Replies of a broken or hostile server: sizes and times are bounded, token counts are checked, keys stay secret."""

from __future__ import annotations

import asyncio
import base64
import gzip
import itertools
import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.raw_server import DONE, EVENTS, GOOD, HEAD, PLAIN, event, raw_server, text_event
from tmas.llm.client import OpenAIChat
from tmas.llm.endpoint import EndpointDown, EndpointSettings, RequestError
from tmas.llm.limits import reply_limits
from tmas.llm.stream import EventLines
from tmas.records import Failure, FailureReason, Message, Reply, Request, Sampling, Usage

KEY = "sk-very+secret/0123456789=="
MAX_TOKENS = 100
LIMITS = reply_limits(MAX_TOKENS, 1, EndpointSettings(base_url="http://h/v1").max_bytes_per_token)
ASK = Request(model="m", messages=(Message(role="user", content="2 + 2?"),), sampling=Sampling(max_tokens=MAX_TOKENS))


class Sender:
    """A response that counts the bytes that the client has taken."""

    def __init__(self, head: bytes, pieces: Iterable[bytes]) -> None:
        self.sent, self._head, self._pieces = 0, head, pieces

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        for piece in self._pieces:
            self.sent += len(piece)
            yield piece


async def outcome(response: Iterable[bytes], pause: float = 0.0, **changes: Any) -> Reply | Failure:
    """The outcome of a call on a server that has served one before and now sends ``response``."""
    responses = itertools.chain([[GOOD]], itertools.repeat(response))
    async with raw_server(lambda path, body: next(responses), pause) as base_url:
        settings = EndpointSettings.model_validate({"base_url": base_url, "max_attempts": 1} | changes)
        async with OpenAIChat(settings) as chat:
            await chat.complete(ASK)
            return await chat.complete(ASK)


def forever(piece: bytes) -> Iterator[bytes]:
    while True:
        yield piece


# --- sizes

ENDLESS = {
    "text": (EVENTS, text_event("word ") * 100),
    "line": (EVENTS, b"a" * 2**14),
    "comments": (EVENTS, b": still here\n\n" * 1000),
    "empty chunks": (EVENTS, event({"choices": []}) * 100),
    "JSON": (PLAIN, b"[" * 2**14),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_an_endless_reply_is_ended_and_recorded_with_its_reason(name: str):
    head, piece = ENDLESS[name]
    sender = Sender(head, forever(piece))
    failure = await outcome(sender, max_attempts=3)
    assert isinstance(failure, Failure)
    assert failure.reason is FailureReason.ENDPOINT
    assert "ignores max_tokens" in failure.message
    in_buffers = 2**23  # of the operating system
    assert sender.sent < LIMITS.stream + in_buffers


async def test_a_reply_of_the_full_length_is_accepted():
    text = "w" * (MAX_TOKENS * 64)
    reply = await outcome([EVENTS + text_event(text, "stop") + DONE])
    assert isinstance(reply, Reply)
    assert reply.completions[0].text == text


async def test_the_limit_on_a_reply_is_a_setting():
    text = "w" * (MAX_TOKENS * 1000)
    assert isinstance(await outcome([EVENTS + text_event(text, "stop") + DONE]), Failure)
    assert isinstance(await outcome([EVENTS + text_event(text, "stop") + DONE], max_bytes_per_token=1000), Reply)


async def test_a_chunk_with_thousands_of_choices_is_malformed():
    with pytest.raises(EndpointDown, match="malformed chunk"):
        await outcome([EVENTS + event({"choices": [{"delta": {"content": "4"}}] * 1000}) + DONE])


def test_only_the_beginning_of_a_long_error_is_kept():
    assert len(RequestError("a" * 10**7).message) < 10**5


@pytest.mark.parametrize("head", [PLAIN, EVENTS])
async def test_a_compressed_reply_is_refused_unread(head: bytes):
    body = gzip.compress(b'{"choices": [{"message": {"content": "' + b"0" * 2**24 + b'"}}]}')
    failure = await outcome([head.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"), body])
    assert isinstance(failure, Failure)
    assert "compressed (gzip)" in failure.message


async def test_a_compressed_error_keeps_its_status():
    error = b"HTTP/1.1 400 X\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + gzip.compress(b"0" * 2**24)
    failure = await outcome([error])
    assert isinstance(failure, Failure)
    assert failure.message == "HTTP 400: (a compressed body)"


def test_the_pieces_of_a_long_line_are_joined_once():
    lines = EventLines()
    copied = 0
    for _ in range(2**12):
        lines.feed(b"a" * 2**10)
        copied += isinstance(lines._rest, bytes)  # immutable: each piece would copy all pieces before
    assert copied == 0
    assert lines.feed(b"\ndata: 1\n") == [b"1"]


# --- times


@pytest.mark.parametrize("begin", [b"", text_event("4")])
async def test_comments_are_no_progress(begin: bytes):
    def response() -> Iterator[bytes]:
        yield EVENTS + begin
        yield from forever(b": still here\n\n")

    with pytest.raises(EndpointDown, match="stopped making progress"):
        await outcome(response(), pause=0.01, first_token_timeout=0.5, idle_timeout=0.5)


async def test_a_stream_that_goes_on_after_its_end_mark_is_complete(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tmas.llm.connection.LINGER", 0.1)

    def response() -> Iterator[bytes]:
        yield GOOD
        yield from forever(b"data: more\n\n")

    reply = await outcome(response(), pause=0.01)
    assert isinstance(reply, Reply)
    assert reply.completions[0].text == "4"


async def test_tokens_of_broken_attempts_are_all_counted():
    broken = EVENTS + text_event("a") + text_event("b")
    responses = iter([[broken], [broken], [EVENTS + text_event("a") + text_event("b", "stop") + DONE]])
    seen: list[int] = []
    async with (
        raw_server(lambda path, body: next(responses)) as base_url,
        OpenAIChat(EndpointSettings(base_url=base_url, backoff_base=0)) as chat,
    ):
        await chat.complete(ASK, lambda progress: seen.append(progress.tokens))
    falls = [before - after for before, after in itertools.pairwise(seen) if after < before]
    assert falls == [2, 2]  # the session counts what progress loses


# --- token counts


def reply_with(usage: str) -> list[bytes]:
    chunk = text_event("four it is", "stop").strip()[:-1] + b', "usage": ' + usage.encode() + b"}\n\n"
    return [EVENTS + chunk + DONE]


@pytest.mark.parametrize("count", ["-1", "-100000", "18446744073709551615", "1e999", "NaN", "1.5", '"7"', "true"])
@pytest.mark.parametrize("field", ["prompt_tokens", "completion_tokens", "cached_tokens"])
async def test_a_count_that_cannot_be_true_is_not_believed(field: str, count: str):
    counts = {"prompt_tokens": "9", "completion_tokens": "3", "cached_tokens": "0", field: count}
    usage = (
        f'{{"prompt_tokens": {counts["prompt_tokens"]}, "completion_tokens": {counts["completion_tokens"]}, '
        f'"prompt_tokens_details": {{"cached_tokens": {counts["cached_tokens"]}}}}}'
    )
    reply = await outcome(reply_with(usage))
    assert isinstance(reply, Reply)
    assert reply.notes == ("usage_implausible",)
    assert reply.usage == Usage(calls=1, seconds=reply.usage.seconds)


@pytest.mark.parametrize(
    "usage",
    ['{"completion_tokens": 3}', "7", '"none"', '{"prompt_tokens": 9, "completion_tokens": 0}', "[1]"],
)
async def test_an_incomplete_usage_is_not_believed(usage: str):
    reply = await outcome(reply_with(usage))
    assert isinstance(reply, Reply)
    assert reply.notes == ("usage_implausible",)


async def test_a_prompt_without_tokens_is_not_believed():
    usage = json.dumps({"prompt_tokens": 0, "completion_tokens": 3})
    reply = await outcome(reply_with(usage))
    assert isinstance(reply, Reply)
    assert reply.notes == ("usage_implausible",)


async def test_more_tokens_than_the_request_allows_are_not_believed():
    for counts in ({"prompt_tokens": 10**6, "completion_tokens": 3}, {"prompt_tokens": 9, "completion_tokens": 10**6}):
        reply = await outcome(reply_with(json.dumps(counts)))
        assert isinstance(reply, Reply)
        assert reply.notes == ("usage_implausible",)


@pytest.mark.parametrize(("cached", "found"), [("5", 5), ("null", 0), ("10", None), ("-1", None)])
async def test_cached_tokens_may_have_the_name_that_deepseek_gives_them(cached: str, found: int | None):
    usage = f'{{"prompt_tokens": 9, "completion_tokens": 3, "prompt_cache_hit_tokens": {cached}}}'
    reply = await outcome(reply_with(usage))
    assert isinstance(reply, Reply)
    assert reply.usage.cached_prompt_tokens == (found or 0)
    assert reply.notes == (("usage_implausible",) if found is None else ())


async def test_plausible_counts_are_believed():
    reply = await outcome(reply_with('{"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": null}'))
    assert isinstance(reply, Reply)
    assert reply.notes == ()
    assert reply.usage.total_tokens == 12


# --- lists of models


@pytest.mark.parametrize("length", ["null", '"4096"', "4096.5", "-1", "0", "true", "1e30", "10" * 20, "[]"])
async def test_a_context_length_that_is_no_count_is_not_reported(length: str):
    listed = PLAIN + b'{"data": [{"id": "m", "max_model_len": ' + length.encode() + b"}]}"
    async with (
        raw_server(lambda path, body: [listed]) as base_url,
        OpenAIChat(EndpointSettings(base_url=base_url)) as chat,
    ):
        assert await chat.context_length("m") is None


@pytest.mark.parametrize(
    "body",
    [b"null", b'"x"', b"7", b"[" * 200_000, b"{}", b'{"data": null}', b'{"data": "x"}', b'{"data": ["m"]}', b"[null]"],
)
async def test_a_list_of_models_in_another_format_is_an_error(body: bytes):
    async with (
        raw_server(lambda path, _: [PLAIN + body]) as base_url,
        OpenAIChat(EndpointSettings(base_url=base_url, max_attempts=1)) as chat,
    ):
        with pytest.raises(EndpointDown, match="not JSON in OpenAI's format"):
            await chat.context_length("m")


async def test_names_of_models_are_clean(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_KEY", KEY)
    listed = PLAIN + json.dumps({"data": [{"id": f"a {KEY}"}, {"id": "\x1b[2Jb\u202e"}, {"id": {"c": KEY}}]}).encode()
    async with (
        raw_server(lambda path, body: [listed]) as base_url,
        OpenAIChat(EndpointSettings(base_url=base_url, api_key_env="MY_KEY")) as chat,
    ):
        assert list(await chat.models()) == ["a ***", "b", "{'c': '***'}"]


async def test_redirects_are_not_followed_for_the_list_of_models():
    asked: list[str] = []

    def listen(path: str, body: Any) -> list[bytes]:
        asked.append(path)
        return [PLAIN + b'{"data": [{"id": "m", "max_model_len": 4096}]}']

    async with raw_server(listen) as elsewhere:
        location = f"HTTP/1.1 302 X\r\nLocation: {elsewhere}/models\r\nConnection: close\r\n\r\n".encode()
        async with (
            raw_server(lambda path, body: [location]) as base_url,
            OpenAIChat(EndpointSettings(base_url=base_url)) as chat,
        ):
            with pytest.raises(EndpointDown, match="HTTP 302"):
                await chat.context_length("m")
    assert asked == []


# --- keys

LEAKS = {
    "status line": b"HTTP/1.1 %s\r\n\r\n",
    "version": b"HTTP/9.%s 200 OK\r\n\r\n",
    "header": b"HTTP/1.1 200 OK\r\n%s\r\n\r\n",
    "length": HEAD + b"Content-Length: %s\r\n\r\n",
    "chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n%s\r\n\r\n",
    "error": b"HTTP/1.1 400 X\r\nConnection: close\r\n\r\nwrong key %s",
    "error event": EVENTS + b'data: {"error": "wrong key %s"}\n\n',
    "malformed chunk": EVENTS + b"data: %s\n\n",
    "text": EVENTS + b'data: {"choices": [{"delta": {"content": "my key is %s"}, "finish_reason": "%s"}]}\n\n',
    "reasoning": EVENTS + b'data: {"choices": [{"delta": {"reasoning": "%s"}, "finish_reason": "stop"}]}\n\n',
    "encoding": HEAD + b"Content-Encoding: %s\r\n\r\n",
}
FORMS = {
    "raw": KEY,
    "URL-encoded": quote(KEY, safe=""),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 in a text": base64.b64encode(f"Bearer {KEY}!".encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(f"key {KEY}".encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", LEAKS)
async def test_a_key_that_the_server_repeats_goes_nowhere(
    place: str,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level(logging.INFO)
    asyncio.get_running_loop().set_debug(True)
    response = [LEAKS[place].replace(b"%s", FORMS[form].encode())]
    try:
        said = str(await outcome(response, api_key_env="MY_KEY", max_attempts=2, backoff_base=0))
    except EndpointDown as down:
        said = f"{down!r} {down.__context__!r} {down.__cause__!r}"
    told = said + caplog.text + "".join(capfd.readouterr())
    core = FORMS[form][12:24]  # the characters of base64 around it also hold bits of the text around the key
    assert core not in told
    assert "***" in told


async def test_escape_sequences_of_a_server_are_removed_from_messages():
    error = b"HTTP/1.1 400 X\r\nConnection: close\r\n\r\n\x1b]0;title\x07\x1b[31mred\x1b[0m\x9b2J\xe2\x80\xaetxt\x00"
    failure = await outcome([error])
    assert isinstance(failure, Failure)
    assert failure.message == "HTTP 400: red\ufffd2Jtxt"
