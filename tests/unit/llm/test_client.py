import asyncio
import json
import logging
import pickle
import re
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from tests.support.waiting import LIMIT, until
from tmas.errors import UserError
from tmas.llm.client import OpenAIChat
from tmas.llm.connection import StreamProgress
from tmas.llm.endpoint import EndpointDown, EndpointSettings, RequestError, UnknownModel, parse_retry_after
from tmas.llm.refusals import SHORT_REPLIES, TRY_AGAIN
from tmas.llm.stream import EventLines
from tmas.records import Failure, FailureReason, Message, Reply, Request, Sampling, Usage
from tmas.run.garbage import rare_collections
from tmas.testing.chat_server import Body, Fault, Script, ScriptedServer, default_reply, run_in_thread

KEY = "sk-very-secret-0123456789"
SCHEMA = {"type": "object", "properties": {"grade": {"enum": [0, 0.5, 1]}}, "required": ["grade"]}
DONE = b"data: [DONE]\n\n"
CALLS = 1000


def settings(base_url: str | tuple[()], **changes: Any) -> EndpointSettings:
    return EndpointSettings(base_url=base_url, **{"backoff_base": 0.01, "max_attempts": 3} | changes)


def ask(text: str = "What is 2 + 2?", **changes: Any) -> Request:
    return Request(
        **{"model": "scripted", "messages": (Message(role="user", content=text),), "sampling": Sampling()} | changes
    )


async def complete(server: ScriptedServer, request: Request | None = None, **changes: Any) -> Reply | Failure:
    async with OpenAIChat(settings(server.base_url, **changes)) as chat:
        return await chat.complete(request or ask())


async def complete_second(server: ScriptedServer) -> Reply | Failure:
    """The outcome of a call on a server that has served one before: it is known to work."""
    async with OpenAIChat(settings(server.base_url)) as chat:
        await chat.complete(ask())
        return await chat.complete(ask())


def texts(reply: Reply | Failure) -> list[str]:
    assert isinstance(reply, Reply), reply
    return [completion.text for completion in reply.completions]


# --- settings


@pytest.mark.parametrize(
    "url",
    ["ftp://h/v1", "h:8000/v1", "http:///v1", "http://h:8000", "http://h/v1?key=1", "http://h/v1/chat/completions"],
)
def test_odd_base_urls_are_refused(url: str):
    with pytest.raises(ValidationError, match="base_url"):
        EndpointSettings(base_url=url)


def test_a_password_in_the_url_is_refused_and_not_repeated():
    with pytest.raises(ValidationError, match="user, password or query") as raised:
        EndpointSettings(base_url=f"http://user:{KEY}@h/v1")
    assert KEY not in str(raised.value)


def test_a_key_in_place_of_its_variable_is_refused_and_not_repeated():
    with pytest.raises(ValidationError, match="api_key_env") as raised:
        EndpointSettings(base_url="http://h/v1", api_key_env=KEY)
    assert KEY not in str(raised.value)


def test_a_trailing_slash_makes_no_difference():
    assert EndpointSettings(base_url="http://h/v1/") == EndpointSettings(base_url="http://h/v1")


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(UserError, match="MY_KEY"):
        OpenAIChat(EndpointSettings(base_url="http://h/v1", api_key_env="MY_KEY"))


def test_endpoint_down_survives_pickling():
    copy = pickle.loads(pickle.dumps(EndpointDown("http://h/v1", "refused")))
    assert str(copy) == "the endpoint http://h/v1 is down: refused"


# --- what is sent, and what comes back


async def test_the_request_on_the_wire():
    sampling = Sampling(temperature=0.6, top_p=0.9, max_tokens=77, extra={"top_k": 20})
    request = ask("Hi", sampling=sampling, n=2, seed=5, output_schema=SCHEMA)
    async with ScriptedServer() as server:
        assert len(texts(await complete(server, request))) == 2
    assert server.requests == [
        {
            "model": "scripted",
            "messages": [{"role": "user", "content": "Hi"}],
            "temperature": 0.6,
            "top_p": 0.9,
            "max_tokens": 77,
            "top_k": 20,
            "stream": True,
            "stream_options": {"include_usage": True},
            "n": 2,
            "seed": 5,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": SCHEMA, "strict": True},
            },
        }
    ]


async def test_the_token_limit_goes_into_the_field_that_the_server_takes():
    async with ScriptedServer() as server:
        await complete(server, ask(sampling=Sampling(max_tokens=77)), token_limit_field="max_completion_tokens")
    [body] = server.requests
    assert body["max_completion_tokens"] == 77
    assert "max_tokens" not in body


async def test_n_seed_and_schema_are_only_sent_when_asked_for():
    async with ScriptedServer() as server:
        await complete(server)
    assert not server.requests[0].keys() & {"n", "seed", "response_format"}


@pytest.mark.parametrize("field", ["model", "n", "seed", "stream"])
async def test_extra_may_not_override(field: str):
    async with ScriptedServer() as server:
        with pytest.raises(UserError, match=field):
            await complete(server, ask(sampling=Sampling(extra={field: 1})))


@pytest.mark.parametrize("stream", [True, False])
async def test_choices_reasoning_and_usage(stream: bool):
    script = Script(("four it is", "five"), "two plus two", stream=stream, cached_tokens=3, comments=True)
    async with ScriptedServer(lambda _: script) as server:
        reply = await complete(server, ask("a b c d", n=2))
    assert texts(reply) == ["four it is", "five"]
    assert isinstance(reply, Reply)
    assert [(part.reasoning, part.thinking) for part in reply.completions] == [("two plus two", "server")] * 2
    expected = Usage(
        calls=1, prompt_tokens=4, cached_prompt_tokens=3, completion_tokens=10, seconds=reply.usage.seconds
    )
    assert reply.usage == expected
    assert reply.usage.seconds > 0
    assert reply.notes == ()


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
async def test_both_names_of_the_reasoning_field(field: str):
    async with ScriptedServer(lambda _: Script(("4",), "so 4", reasoning_field=field)) as server:
        reply = await complete(server)
    assert isinstance(reply, Reply)
    assert reply.completions[0].reasoning == "so 4"


async def test_thinking_in_tags_and_the_finish_reason():
    script = Script(("<think>it is</think> 4", "<think>it is"), finish_reason="length")
    async with ScriptedServer(lambda _: script) as server:
        reply = await complete(server, ask(n=2))
    assert texts(reply) == ["4", ""]
    assert isinstance(reply, Reply)
    assert {(part.thinking, part.finish_reason) for part in reply.completions} == {("tags", "length")}


async def test_missing_usage_is_noted_and_nothing_is_invented():
    async with ScriptedServer(lambda _: Script(("four",), usage="none")) as server:
        reply = await complete(server)
    assert isinstance(reply, Reply)
    assert reply.notes == ("usage_missing",)
    assert reply.usage == Usage(calls=1, seconds=reply.usage.seconds)


async def test_bytes_may_be_cut_anywhere():
    stream = (
        ': hello\r\n\r\ndata: {"choices": [{"index": 0, "delta": {"content": "√2 ≠ "}}]}\r\n\r\n'
        'event: message\r\ndata:{"choices": [{"index": 0, "delta": {"content": "3"}, "finish_reason": "stop"}]}\r\n\r\n'
        "data: [DONE]\r\n\r\n"
    ).encode()
    raw = tuple(stream[start : start + 7] for start in range(0, len(stream), 7))
    async with ScriptedServer(lambda _: Script(raw=raw, chunk_delay=0.001)) as server:
        assert texts(await complete(server)) == ["√2 ≠ 3"]


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8")), max_size=5), st.data())
def test_any_cut_of_an_event_stream_gives_the_same_payloads(lines: list[str], data: st.DataObject):
    payloads = [line.strip().encode() for line in lines]
    stream = b"".join(b"data: " + payload + b"\r\n: ping\n\n" for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = EventLines()
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [payload for piece in pieces for payload in reader.feed(piece)] + reader.close() == [
        payload.strip() for payload in payloads
    ]


async def test_an_answer_is_whole_once_done_is_said_though_the_body_never_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tmas.llm.connection.LINGER", 0.05)
    chunk = b'data: {"choices": [{"index": 0, "delta": {"content": "4"}}]}\n\n'
    script = Script(raw=(chunk, DONE, b""), fault=Fault("hang", after=2))
    async with ScriptedServer(lambda _: script) as server:
        assert texts(await complete(server)) == ["4"]
    assert len(server.requests) == 1


async def test_progress_is_told_as_it_comes():
    seen: list[StreamProgress] = []
    script = Script(("b c d e", "f"), "a", chunk_delay=0.005)
    async with ScriptedServer(lambda _: script) as server, OpenAIChat(settings(server.base_url)) as chat:
        await chat.complete(ask(n=2), seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == StreamProgress(tokens=7, ended=2)


async def test_choices_end_one_by_one():
    def piece(index: int, finish_reason: str | None) -> bytes:
        choice = {"index": index, "delta": {"content": "a"}, "finish_reason": finish_reason}
        return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"

    seen: list[StreamProgress] = []
    pieces = (piece(0, None), piece(1, None), piece(1, "stop"), piece(0, None), piece(0, "length") + DONE)
    script = Script(raw=pieces, chunk_delay=0.02)
    async with ScriptedServer(lambda _: script) as server, OpenAIChat(settings(server.base_url)) as chat:
        await chat.complete(ask(n=2), seen.append)
    assert seen == [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)]


async def test_progress_adds_up_over_choices_asked_for_singly():
    seen: list[StreamProgress] = []
    async with ScriptedServer(refuses=["n"]) as server, OpenAIChat(settings(server.base_url)) as chat:
        reply = await chat.complete(ask(n=3), seen.append)
    assert isinstance(reply, Reply)
    assert seen[-1] == (reply.usage.completion_tokens, 3) == (9, 3)


async def test_progress_follows_the_servers_own_counts():
    seen: list[StreamProgress] = []
    script = Script(("a b c d e f",), usage="every", words_per_chunk=3, chunk_delay=0.01)
    async with ScriptedServer(lambda _: script) as server, OpenAIChat(settings(server.base_url)) as chat:
        await chat.complete(ask(), seen.append)
    assert {0, 3, 6} <= {progress.tokens for progress in seen}


async def test_cancelling_closes_the_connection():
    script = Script(("word " * 1000,), chunk_delay=0.01)
    streaming = asyncio.Event()
    async with ScriptedServer(lambda _: script) as server, OpenAIChat(settings(server.base_url)) as chat:
        task = asyncio.create_task(chat.complete(ask(), lambda progress: streaming.set() if progress.tokens else None))
        await streaming.wait()
        task.cancel()
        await until(lambda: server.aborted)
        assert task.cancelled()
    assert server.finished == []


async def test_a_borrowed_session_is_left_open():
    async with ScriptedServer() as server, aiohttp.ClientSession() as session:
        async with OpenAIChat(settings(server.base_url), session) as chat:
            assert texts(await chat.complete(ask())) == default_reply(server.requests[0])
        assert not session.closed


async def test_the_scripted_server_fills_in_a_schema():
    class Item(BaseModel):
        kind: Literal["pitfall", "conclusion"]
        note: str | None

    class Items(BaseModel):
        items: list[Item]
        grade: float

    async with ScriptedServer() as server:
        reply = await complete(server, ask(output_schema=Items.model_json_schema()))
    items = Items.model_validate_json(texts(reply)[0])
    assert items.items == [Item(kind="pitfall", note="scripted")]


# --- what a server will not take


@pytest.mark.parametrize(
    ("field", "note"),
    [("response_format", "schema_refused"), ("seed", "seed_refused"), ("stream_options", "usage_missing")],
)
async def test_a_refused_field_is_left_out_from_then_on(field: str, note: str):
    request = ask(seed=1, output_schema=SCHEMA)
    async with ScriptedServer(refuses=[field]) as server, OpenAIChat(settings(server.base_url)) as chat:
        replies = [await chat.complete(request) for _ in range(2)]
    assert [reply.notes for reply in replies if isinstance(reply, Reply)] == [(note,)] * 2
    assert [field in body for body in server.requests] == [True, False, False]


async def test_refusals_add_up():
    async with ScriptedServer(refuses=["n", "seed", "response_format", "stream_options"]) as server:
        reply = await complete(server, ask(n=2, seed=1, output_schema=SCHEMA))
    assert len(texts(reply)) == 2
    assert isinstance(reply, Reply)
    assert reply.notes == ("n_refused", "schema_refused", "seed_refused", "usage_missing")


@pytest.mark.parametrize(("how", "sent"), [({"refuses": ["n"]}, 1), ({"max_choices": 1}, 2)])
async def test_missing_choices_are_asked_for_singly(how: dict[str, Any], sent: int):
    request = ask(n=4, seed=10)
    async with ScriptedServer(**how) as server, OpenAIChat(settings(server.base_url)) as chat:
        first, second = await chat.complete(request), await chat.complete(request)
    assert texts(first) == texts(second)
    assert texts(first) == default_reply({"messages": server.requests[0]["messages"], "n": 4, "seed": 10})
    assert isinstance(first, Reply)
    assert isinstance(second, Reply)
    assert (first.notes, second.notes) == (("n_refused",), ("n_refused",))
    assert (first.usage.calls, first.usage.completion_tokens) == (4, 12)
    assert ["n" in body for body in server.requests].count(True) == sent


async def test_one_short_reply_is_no_refusal_of_n():
    async with ScriptedServer(max_choices=1) as server, OpenAIChat(settings(server.base_url)) as chat:
        await chat.complete(ask(n=2))
        server.max_choices = None
        replies = [await chat.complete(ask(n=2)) for _ in range(2)]
    assert [reply.notes for reply in replies if isinstance(reply, Reply)] == [(), ()]
    assert ["n" in body for body in server.requests] == [True, False, True, True]


async def test_n_is_left_out_after_repeated_short_replies():
    async with ScriptedServer(max_choices=1) as server, OpenAIChat(settings(server.base_url)) as chat:
        for _ in range(SHORT_REPLIES + 2):
            await chat.complete(ask(n=2))
    assert ["n" in body for body in server.requests].count(True) == SHORT_REPLIES


@pytest.mark.parametrize("field", ["n", "seed"])
async def test_a_refused_field_is_sent_again_later(field: str, monkeypatch: pytest.MonkeyPatch):
    async with ScriptedServer(refuses=[field]) as server, OpenAIChat(settings(server.base_url)) as chat:
        await chat.complete(ask(n=2, seed=1))
        server.refuses = frozenset()
        monkeypatch.setattr(chat._refused_fields, "_now", lambda: time.monotonic() + TRY_AGAIN)
        reply = await chat.complete(ask(n=2, seed=1))
    assert isinstance(reply, Reply)
    assert reply.notes == ()


async def test_the_first_choice_goes_ahead_of_the_others():
    # A whole reply, not a stream: the server marks it as finished before it sends it.
    script = Script(("4",), first_delay=0.02, stream=False)
    async with ScriptedServer(lambda _: script, refuses=["n"]) as server:
        finished_at_arrival: list[int] = []
        reply = server.reply
        server.reply = lambda body: (finished_at_arrival.append(len(server.finished)), reply(body))[1]
        await complete(server, ask(n=3))
    refusal = 1
    assert finished_at_arrival == [refusal, refusal + 1, refusal + 1]


async def test_a_complaint_that_is_not_mended_is_not_remembered():
    faults = [None, *[Fault("status", status=400, body="your seed is fine, your tone is not")] * 2]
    async with ScriptedServer(faults=faults) as server, OpenAIChat(settings(server.base_url)) as chat:
        await chat.complete(ask(seed=1))
        failure = await chat.complete(ask(seed=1))
        reply = await chat.complete(ask(seed=1))
    assert isinstance(failure, Failure)
    assert "your tone" in failure.message
    assert isinstance(reply, Reply)
    assert ["seed" in body for body in server.requests] == [True, True, False, True]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ('{"error": {"message": "Invalid n value (currently only n = 1 is supported)"}}', "n"),
        ('{"detail": [{"loc": ["body", "n"], "msg": "less than or equal to 1"}]}', "n"),
        ("Only one completion choice is allowed", "n"),
        ("n must be 1 when using greedy sampling, got 4.", "n"),
        ("response_format is unavailable now", "response_format"),
        ("extra fields not permitted: 'seed'", "seed"),
        (r'{"message": "bad\nthing, can\u0027t"}', None),
        ("This model's maximum context length is 4096 tokens; seed, n, schema", None),
    ],
)
def test_what_complaints_mean(message: str, field: str | None):
    assert RequestError(message, 400).refused_field({"n", "seed", "response_format", "stream_options"}) == field


# --- failures that pass

RETRYABLE = [
    Fault("status", status=429, headers={"Retry-After": "0"}),
    Fault("status", status=408),
    Fault("status", status=503),
    Fault("reset", after=None),
    Fault("reset", after=0),
    Fault("reset", after=2),
    Fault("truncate", after=3),
    Fault("malformed", after=2),
    Fault("empty"),
    Fault("error", after=2),
    Fault("hang", after=None),
    Fault("hang", after=2),
]


@pytest.mark.parametrize("fault", RETRYABLE, ids=lambda fault: f"{fault.kind}-{fault.after}-{fault.status}")
async def test_a_passing_fault_is_retried(fault: Fault):
    async with ScriptedServer(lambda _: "four it is", faults=[fault, fault]) as server:
        if fault.kind == "hang":  # on a busy machine the reply after the faults may take too long as well, once or more
            reply = await complete(server, first_token_timeout=0.2, idle_timeout=0.2, max_attempts=1000)
            assert len(server.requests) >= 3
        else:
            reply = await complete(server, first_token_timeout=LIMIT, idle_timeout=LIMIT)
            assert len(server.requests) == 3
    assert texts(reply) == ["four it is"]
    assert isinstance(reply, Reply)
    assert reply.usage.calls == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"data: 5\n\n" + DONE,
        b'data: {"choices": 1}\n\n' + DONE,
        b'data: {"choices": [{"index": 0, "delta": {"content": ["a"]}}]}\n\n' + DONE,
        b'data: {"choices": [{"index": [], "delta": {}}]}\n\n' + DONE,
        b'data: {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "abort"}]}\n\n' + DONE,
        b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": ["stop"]}]}\n\n' + DONE,
        b"data: \xff\xfe\n\n" + DONE,
        b"<html>a proxy's page</html>",
        b"",
    ],
)
async def test_odd_bytes_are_retried_too(raw: bytes):
    scripts = iter([Script(raw=(raw,)), Script(("4",))])
    async with ScriptedServer(lambda _: next(scripts)) as server:
        assert texts(await complete(server)) == ["4"]


async def test_a_finished_stream_needs_no_done():
    chunk = b'data: {"choices": [{"index": 0, "delta": {"content": "4"}, "finish_reason": "stop"}]}\n\n'
    async with ScriptedServer(lambda _: Script(raw=(chunk,))) as server:
        assert texts(await complete(server)) == ["4"]


async def test_retry_after_is_honoured_up_to_its_limit():
    fault = Fault("status", status=429, headers={"Retry-After": "1000"})
    async with ScriptedServer(faults=[fault]) as server:
        started = time.monotonic()
        await complete(server, backoff_base=0, retry_after_max=0.3)
        assert 0.3 <= time.monotonic() - started < 20
    assert len(server.finished) == 2


def test_retry_after_in_its_forms():
    assert parse_retry_after("7") == 7
    assert parse_retry_after("0.5") == 0.5
    assert parse_retry_after("soon") == parse_retry_after("") == parse_retry_after("nan") == 0
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < parse_retry_after(date) <= 30


async def test_back_off_doubles_up_to_its_maximum():
    chat = OpenAIChat(EndpointSettings(base_url="http://h/v1", backoff_base=1, backoff_max=60))
    for failed, full in [(1, 1), (2, 2), (4, 8), (7, 60), (50, 60)]:
        assert full / 2 <= chat._pause(failed, 0) <= full


# --- failures that stay


@pytest.mark.parametrize("status", [400, 403, 413, 422])
async def test_a_refused_request_is_a_failure_at_once(status: int):
    body = "bad request: " + "x" * 1000
    async with ScriptedServer(faults=[None, Fault("status", status=status, body=body)]) as server:
        failure = await complete_second(server)
    message = f"HTTP {status}: {body[:300]}"
    assert failure == Failure(reason=FailureReason.ENDPOINT, message=message)
    assert len(server.requests) == 2


async def test_a_server_that_refuses_the_first_call_would_refuse_them_all():
    async with ScriptedServer(faults=[Fault("status", status=400, body="no such temperature")]) as server:
        with pytest.raises(EndpointDown, match="no such temperature"):
            await complete(server)
    assert len(server.requests) == 1


MISCONFIGURED = [301, 401, 402, 404]


def refusal(status: int) -> Fault:
    return Fault("status", status=status, headers={"Location": "/v1/chat/completions"})


@pytest.mark.parametrize("status", MISCONFIGURED)
async def test_a_wrong_key_model_or_url_stops_everything(status: int):
    async with ScriptedServer(faults=[refusal(status)] * 3) as server:
        with pytest.raises(EndpointDown, match=f"{server.base_url} is down: HTTP {status}"):
            await complete(server)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", MISCONFIGURED)
async def test_a_stray_refusal_of_a_server_that_has_served_is_retried(status: int):
    faults = [None, *[refusal(status)] * 2]
    async with ScriptedServer(faults=faults) as server, OpenAIChat(settings(server.base_url)) as chat:
        replies = [await chat.complete(ask()) for _ in range(2)]
    assert all(isinstance(reply, Reply) for reply in replies)
    assert len(server.requests) == 4


@pytest.mark.parametrize("status", MISCONFIGURED)
async def test_a_server_that_has_served_and_keeps_refusing_stops_everything(status: int):
    faults = [None, *[refusal(status)] * 3]
    async with ScriptedServer(faults=faults) as server, OpenAIChat(settings(server.base_url)) as chat:
        await chat.complete(ask())
        with pytest.raises(EndpointDown, match=f"{server.base_url} is down: HTTP {status}"):
            await chat.complete(ask())
    assert len(server.requests) == 4


@pytest.mark.parametrize("status", [400, 403])
async def test_a_refusal_that_comes_before_the_first_reply_waits_for_it(status: int):
    def reply(body: dict[str, Any]) -> Script:
        if body["messages"][0]["content"] == "rude":
            return Script(fault=Fault("status", status=status, body="mind your language"))
        return Script(("4",), first_delay=0.5)

    async with ScriptedServer(reply) as server, OpenAIChat(settings(server.base_url)) as chat:
        polite, rude = await asyncio.gather(chat.complete(ask("polite")), chat.complete(ask("rude")))
    assert texts(polite) == ["4"]
    assert isinstance(rude, Failure)
    assert rude.reason == FailureReason.ENDPOINT


async def test_a_server_that_refuses_all_who_come_at_once_is_down():
    faults = [Fault("status", status=400, body="no such temperature")] * 3
    async with ScriptedServer(faults=faults) as server, OpenAIChat(settings(server.base_url)) as chat:
        outcomes = await asyncio.gather(*(chat.complete(ask(str(i))) for i in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EndpointDown] * 3


async def test_an_error_in_the_stream_counts_by_its_code():
    async with ScriptedServer(faults=[None, Fault("error", after=2, status=400)]) as server:
        failure = await complete_second(server)
    assert isinstance(failure, Failure)
    assert "scripted error" in failure.message
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=400, body="This model's maximum context length is 4096 tokens."),
        Fault("status", status=400, body='{"error": {"code": "context_length_exceeded"}}'),
        Fault("status", status=400, body="The prompt is longer than the maximum model length of 10 (max_model_len)"),
    ],
)
async def test_a_prompt_that_is_too_long(fault: Fault):
    async with ScriptedServer(faults=[fault]) as server:
        failure = await complete(server)
    assert isinstance(failure, Failure)
    assert failure.reason == FailureReason.CONTEXT


@pytest.mark.parametrize("after", [None, 2])
async def test_one_hanging_call_among_healthy_ones_ends_as_a_timeout(after: int | None):
    def reply(body: Body) -> Script:
        return Script(("4",), fault=Fault("hang", after=after) if "bad" in body["messages"][0]["content"] else None)

    impatient = {"first_token_timeout": 0.5, "idle_timeout": 0.5}
    async with ScriptedServer(reply) as server, OpenAIChat(settings(server.base_url, **impatient)) as chat:
        sick = asyncio.create_task(chat.complete(ask("bad")))
        while not sick.done():
            await chat.complete(ask("good"))
        failure = await sick
        bad = [one for one in server.exchanges if one.body["messages"][0]["content"] == "bad"]
        await until(lambda: all(one.state == "aborted" for one in bad))
    assert 1 <= len(bad) <= 3  # a busy machine may give one up before it has come
    assert isinstance(failure, Failure)
    assert failure.reason == FailureReason.TIMEOUT


async def test_an_answer_that_streams_shows_that_the_server_lives():
    def reply(body: Body) -> Script:
        if "bad" in body["messages"][0]["content"]:
            return Script(fault=Fault("status", status=500))
        return Script(("word " * 40,), chunk_delay=0.05)

    begun = asyncio.Event()
    async with ScriptedServer(reply) as server, OpenAIChat(settings(server.base_url)) as chat:
        long = asyncio.create_task(chat.complete(ask("good"), lambda _: begun.set()))
        await begun.wait()
        failure = await chat.complete(ask("bad"))
        assert not long.done()
        await long
    assert isinstance(failure, Failure)
    assert failure.reason == FailureReason.ENDPOINT


async def test_a_server_that_only_hangs_is_down():
    async with ScriptedServer(faults=[Fault("hang", after=None)] * 3) as server:
        with pytest.raises(EndpointDown, match="stopped making progress"):
            await complete(server, first_token_timeout=0.1, idle_timeout=0.1)


async def test_context_length_is_what_the_list_of_models_tells():
    async with ScriptedServer(context_length=4096) as server, OpenAIChat(settings(server.base_url)) as chat:
        assert await chat.context_length("scripted") == 4096
        with pytest.raises(UnknownModel, match=r"has no model 'another'\. It serves scripted"):
            await chat.context_length("another")
    async with ScriptedServer() as server, OpenAIChat(settings(server.base_url)) as chat:
        assert await chat.context_length("scripted") is None
    async with OpenAIChat(settings(server.base_url)) as chat:
        with pytest.raises(EndpointDown):
            await chat.context_length("scripted")


async def test_the_server_whose_list_lacks_the_model_is_named():
    async with ScriptedServer() as stopped:
        pass
    async with ScriptedServer() as server:
        both = EndpointSettings(base_url=(stopped.base_url, server.base_url), backoff_base=0.01, max_attempts=3)
        async with OpenAIChat(both) as chat:
            with pytest.raises(UnknownModel, match=re.escape(f"the server {server.base_url} has no model 'm'")):
                await chat.context_length("m")


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, "The model `m` does not exist."), (400, '{"error": {"message": "Model Not Exist"}}')],
)
async def test_a_model_that_the_server_does_not_have_is_named_with_those_that_it_has(status: int, body: str):
    faults = [Fault("status", status=status, body=body)] * 2
    async with ScriptedServer(faults=faults) as server:
        with pytest.raises(UnknownModel) as unknown:
            await complete(server, ask(model="m"))
        assert str(unknown.value) == f"the server {server.base_url} has no model 'm'. It serves scripted."
        assert str(pickle.loads(pickle.dumps(unknown.value))) == str(unknown.value)
        with pytest.raises(EndpointDown, match=f"HTTP {status}"):  # it lists the model, so something else is wrong
            await complete(server, ask())


async def test_a_server_that_never_ran_is_given_up_sooner_than_one_that_stopped():
    retries: list[tuple[str, str]] = []
    async with ScriptedServer() as server:
        stopped = OpenAIChat(settings(server.base_url, max_attempts=6))
        await stopped.complete(ask())
    async with OpenAIChat(settings(server.base_url, max_attempts=6)) as never_ran, stopped:
        for chat in (never_ran, stopped):
            chat.on_retry = lambda url, reason: retries.append((url, reason))
            with pytest.raises(EndpointDown, match=r"cannot connect \(.+\)\. Check the server's URL"):
                await chat.complete(ask())
    assert {url for url, _ in retries} == {server.base_url}
    attempts = [reason.partition(", attempt ")[2] for _, reason in retries]
    assert attempts == ["2 of 3", "3 of 3", *(f"{i} of 6" for i in range(2, 7))]


async def test_a_retry_that_succeeds_is_reported_with_an_empty_reason():
    retries: list[tuple[str, str]] = []
    faults = [Fault("status", status=500)]
    async with ScriptedServer(faults=faults) as server, OpenAIChat(settings(server.base_url)) as chat:
        chat.on_retry = lambda url, reason: retries.append((url, reason))
        await chat.complete(ask())
    [(_, reason), last] = retries
    assert reason.startswith("HTTP 500")
    assert last == (server.base_url, "")


async def test_the_run_s_own_servers_report_tokens_with_each_chunk():
    async with ScriptedServer() as server, OpenAIChat(settings(())) as chat:
        chat.router.update((server.base_url,))
        await chat.complete(ask())
    assert server.requests[0]["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


async def test_slow_is_not_hanging():
    script = Script(("one two three four five six",), chunk_delay=0.5, comments=True)  # longer than both in all
    async with ScriptedServer(lambda _: script) as server:
        assert texts(await complete(server, first_token_timeout=2, idle_timeout=2)) == [script.texts[0]]
    assert len(server.requests) == 1


def sick_of(word: str) -> Any:
    """A reply function that fails whatever holds ``word``."""
    return lambda body: (
        Script(fault=Fault("status", status=500)) if word in body["messages"][0]["content"] else Script(("4",))
    )


async def test_one_sick_call_among_healthy_ones_is_its_own_failure():
    async with ScriptedServer(sick_of("bad")) as server, OpenAIChat(settings(server.base_url)) as chat:
        sick = asyncio.create_task(chat.complete(ask("bad")))
        while not sick.done():
            assert texts(await chat.complete(ask("good"))) == ["4"]
        failure = await sick
    assert isinstance(failure, Failure)
    assert failure.reason == FailureReason.ENDPOINT
    assert failure.key is None


async def test_without_any_success_since_it_began_the_endpoint_is_down():
    async with ScriptedServer(sick_of("bad")) as server, OpenAIChat(settings(server.base_url)) as chat:
        await chat.complete(ask("good"))
        with pytest.raises(EndpointDown, match="HTTP 500"):
            await chat.complete(ask("bad"))


async def test_an_outage_among_single_choices_is_raised_plainly():
    scripts = iter([Script(("4",))])
    down = Script(fault=Fault("status", status=500))
    async with ScriptedServer(lambda _: next(scripts, down), max_choices=1) as server:
        with pytest.raises(EndpointDown):
            await complete(server, ask(n=3))


async def test_a_dead_port_is_given_up_in_bounded_time():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
        started = time.monotonic()
        async with OpenAIChat(settings(url, max_attempts=4, backoff_base=0.05)) as chat:
            with pytest.raises(EndpointDown, match=url):
                await chat.complete(ask())
    assert time.monotonic() - started < 20


# --- secrets


@pytest.mark.parametrize("status", [400, 401, 500])
async def test_the_key_goes_to_the_server_and_nowhere_else(
    status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("MY_KEY", KEY + "\n")
    caplog.set_level(logging.DEBUG)
    cut_by_the_limit = "x" * (300 - 10 - len(f"{KEY} is wrong")) + KEY
    fault = Fault("status", status=status, body=f"{KEY} is wrong{cut_by_the_limit}")
    async with ScriptedServer(faults=[fault] * 3) as server:
        chat = OpenAIChat(settings(server.base_url, api_key_env="MY_KEY"))
        async with chat:
            try:
                said = repr(await chat.complete(ask()))
            except EndpointDown as down:
                said = f"{down} {down!r} {down.__context__!r} {down.__cause__!r}"
    assert server.exchanges[0].headers["Authorization"] == f"Bearer {KEY}"
    assert "*** is wrong" in said
    for place in (said, caplog.text, repr(chat), repr(chat.settings), str(vars(chat.settings))):
        assert KEY[:5] not in place


# --- load


async def test_a_thousand_calls_at_once_are_cheap(capsys: pytest.CaptureFixture[str]):
    def reply(body: Body) -> Script:
        return Script(("a reply of some twenty words " * 3,), words_per_chunk=3, first_delay=0.5)

    with run_in_thread(ScriptedServer(reply)) as server:
        async with OpenAIChat(settings(server.base_url)) as chat:
            with rare_collections():  # as in a run
                started = time.thread_time()
                replies = await asyncio.gather(*(chat.complete(ask(f"question {index}")) for index in range(CALLS)))
                cpu_ms = 1000 * (time.thread_time() - started) / CALLS
    with capsys.disabled():
        print(f"\n{CALLS} concurrent calls: {cpu_ms:.2f} ms of CPU each")
    assert all(isinstance(reply, Reply) for reply in replies)
    assert len(server.finished) == CALLS
    assert cpu_ms < 4
