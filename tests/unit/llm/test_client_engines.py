"""llm/client.py on several servers of one model: routing, failures that another server makes good, priorities."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from tests.support.waiting import LIMIT, until
from tmas.llm import client
from tmas.llm.chat_model import RoutingHint
from tmas.llm.client import OpenAIChat
from tmas.llm.connection import Connection
from tmas.llm.endpoint import EndpointDown, EndpointSettings
from tmas.records import Failure, FailureReason, Message, Reply, Request, Sampling
from tmas.testing.chat_server import Fault, Script, ScriptedServer

DOWN = Fault("reset", after=None)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CHECK_INTERVAL", 0.05)


def chat_of(*servers: ScriptedServer, slots: int = 10**6, **changes: Any) -> OpenAIChat:
    patience = {"backoff_base": 0.01, "max_attempts": 3}
    return OpenAIChat(EndpointSettings(base_url=tuple(s.base_url for s in servers), **patience | changes), slots=slots)


def ask(seed: int, n: int = 1) -> Request:
    return Request(model="m", messages=(Message(role="user", content="2 + 2?"),), sampling=Sampling(), n=n, seed=seed)


async def started(stack: AsyncExitStack, count: int, **given: Any) -> list[ScriptedServer]:
    return [await stack.enter_async_context(ScriptedServer(**given)) for _ in range(count)]


def seeds(servers: list[ScriptedServer], what: str = "finished") -> list[int]:
    return sorted(body["seed"] for server in servers for body in getattr(server, what))


async def test_calls_of_one_problem_go_to_one_server():
    async with AsyncExitStack() as stack:
        servers = await started(stack, 3)
        async with chat_of(*servers) as chat:
            for seed in range(30):
                await chat.complete(ask(seed), hint=RoutingHint(f"p{seed % 10}"))
        at = [{body["seed"] % 10 for body in server.requests} for server in servers]
        assert sum(map(len, at)) == 10  # no problem is at two servers
        assert len(set().union(*at)) == 10


async def test_a_server_gets_no_more_than_its_share():
    async with AsyncExitStack() as stack:
        servers = await started(stack, 2, reply=lambda _: Script(("a",), first_delay=3600))
        async with chat_of(*servers, slots=8) as chat:
            calls = [asyncio.create_task(chat.complete(ask(seed), hint=RoutingHint("p"))) for seed in range(8)]
            await until(lambda: sum(len(server.requests) for server in servers) == 8)
            assert [len(server.requests) for server in servers] == [4, 4]
            for call in calls:
                call.cancel()


async def test_a_server_that_dies_loses_no_call_and_none_is_answered_twice():
    slow = Script(("word " * 20,), chunk_delay=0.01)
    async with AsyncExitStack() as stack:
        servers = await started(stack, 2, reply=lambda _: slow)
        mortal = ScriptedServer(lambda _: slow)
        await mortal.__aenter__()
        async with chat_of(*servers, mortal, backoff_base=30) as chat:  # any pause would be too long for this test
            calls = [asyncio.create_task(chat.complete(ask(seed), hint=RoutingHint(f"p{seed}"))) for seed in range(60)]
            await until(lambda: len(mortal.requests) >= 5)
            await mortal.__aexit__()
            replies = await asyncio.gather(*calls)
            assert all(isinstance(reply, Reply) for reply in replies)
            assert seeds(servers) == list(range(60))
            before = len(mortal.requests)
            await asyncio.gather(*(chat.complete(ask(seed), hint=RoutingHint(f"p{seed}")) for seed in range(60)))
            assert len(mortal.requests) == before  # nothing is tried there while it is gone


async def test_a_server_that_comes_back_gets_its_problems_again():
    asked = 0
    async with AsyncExitStack() as stack:
        [other] = await started(stack, 1)
        ailing = await stack.enter_async_context(ScriptedServer(faults=[DOWN]))
        async with chat_of(other, ailing) as chat:

            async def ask_on(until: Callable[[], Any], problem: str | None = None) -> None:
                nonlocal asked
                async with asyncio.timeout(LIMIT):
                    while not until():
                        await chat.complete(ask(asked), hint=RoutingHint(problem or f"p{asked}"))
                        asked += 1

            await ask_on(lambda: ailing.requests)  # which is reset: the problem asked for last is at home there
            assert not ailing.finished
            await ask_on(lambda: ailing.finished, f"p{asked - 1}")
    assert seeds([other, ailing]) == list(range(asked))


async def test_an_answer_that_breaks_off_is_asked_for_elsewhere_at_once():
    asked: list[Any] = []

    def reply(body: dict[str, Any]) -> Script:
        asked.append(body)
        return Script(("a b c",), fault=Fault("truncate", after=1) if len(asked) == 1 else None)

    async with AsyncExitStack() as stack:
        servers = await started(stack, 2, reply=reply)
        async with chat_of(*servers, backoff_base=30) as chat:
            answer = await chat.complete(ask(7, n=2), hint=RoutingHint("p"))
    assert isinstance(answer, Reply)
    assert [len(server.requests) for server in servers] == [1, 1]


async def test_only_when_all_have_failed_there_is_a_pause():
    async with AsyncExitStack() as stack:
        servers = await started(stack, 2, faults=[Fault("status", status=503)])
        begun = time.monotonic()
        async with chat_of(*servers, backoff_base=0.4) as chat:
            reply = await chat.complete(ask(1))
    assert isinstance(reply, Reply)
    assert time.monotonic() - begun > 0.2
    assert sum(len(server.requests) for server in servers) == 3


async def test_a_server_that_asks_to_be_left_alone_is():
    async with AsyncExitStack() as stack:
        [other] = await started(stack, 1)
        full = Fault("status", status=429, headers={"Retry-After": "60"})
        busy = await stack.enter_async_context(ScriptedServer(faults=[full]))
        async with chat_of(other, busy) as chat:
            for seed in range(20):
                await chat.complete(ask(seed), hint=RoutingHint(f"p{seed}"))
    assert len(busy.requests) == 1
    assert seeds([other]) == list(range(20))


async def test_a_server_that_keeps_refusing_gets_no_calls_while_another_serves():
    refusals = [None] + [Fault("status", status=401)] * 99
    async with AsyncExitStack() as stack:
        [other] = await started(stack, 1)
        revoked = await stack.enter_async_context(ScriptedServer(faults=refusals))
        async with chat_of(other, revoked) as chat:
            for seed in range(200):
                assert isinstance(await chat.complete(ask(seed), hint=RoutingHint(f"p{seed}")), Reply)
            assert not chat.router.engines[revoked.base_url].is_healthy
    assert len(revoked.requests) == 1 + client.REFUSALS
    assert len(other.finished) == 199


@pytest.mark.parametrize("status", [302, 401, 404])
async def test_a_server_that_refuses_its_first_call_does_not_end_a_run_that_another_serves(
    status: int, caplog: pytest.LogCaptureFixture
):
    refusal = Fault("status", status=status)
    async with AsyncExitStack() as stack:
        [other] = await started(stack, 1)
        wrong = await stack.enter_async_context(ScriptedServer(faults=[refusal] * 99))
        async with chat_of(other, wrong) as chat:
            homes = {seed: chat.router.choose(f"p{seed}") for seed in range(200)}
            first = next(seed for seed, home in homes.items() if home and home.base_url == other.base_url)
            for seed in (first, *homes):
                assert isinstance(await chat.complete(ask(seed), hint=RoutingHint(f"p{seed}")), Reply)
            assert not chat.router.engines[wrong.base_url].is_healthy
    assert len(wrong.requests) == client.REFUSALS
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{wrong.base_url} has refused {client.REFUSALS} calls in a row. It gets calls only every 30 seconds until it"
        f" accepts one: HTTP {status}: {refusal.body}"
    ]


async def test_it_is_down_when_all_servers_are():
    async with AsyncExitStack() as stack:
        servers = await started(stack, 3, faults=[DOWN] * 99)
        async with chat_of(*servers) as chat:
            with pytest.raises(EndpointDown):
                await chat.complete(ask(1))
    assert [len(server.requests) for server in servers] == [3, 3, 3]  # max_attempts on each


async def test_a_call_that_no_server_can_answer_is_its_own_failure():
    def reply(body: dict[str, Any]) -> Script:
        return Script(("a",), fault=Fault("status") if body["seed"] == 13 else None)

    async with AsyncExitStack() as stack:
        servers = await started(stack, 2, reply=reply)
        async with chat_of(*servers) as chat:
            begun = asyncio.Event()

            async def others() -> None:
                for seed in range(100, 200):
                    await chat.complete(ask(seed), hint=RoutingHint(f"p{seed}"))
                    begun.set()

            task = asyncio.create_task(others())
            await begun.wait()
            failure = await chat.complete(ask(13))
            task.cancel()
    assert isinstance(failure, Failure)
    assert failure.reason is FailureReason.ENDPOINT


@pytest.mark.parametrize("told", [["not an object"], "not an object either"])
async def test_a_server_that_tells_nonsense_of_its_models_gets_calls_again(told: Any):
    async with AsyncExitStack() as stack:
        servers = await started(stack, 2, faults=[DOWN])
        for server in servers:
            server.models = told
        async with chat_of(*servers) as chat:
            await chat.complete(ask(0), hint=RoutingHint("p"))
            await until(lambda: all(engine.is_healthy for engine in chat.router.engines.values()))
            with pytest.raises(EndpointDown, match="models"):
                await chat.context_length("scripted")


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [(200, "[]", True), (200, "ready", True), (401, "", True), (404, "", True), (500, "", False), (503, "", False)],
)
async def test_a_server_is_reachable_if_it_answers_with_any_status_below_500(status: int, body: str, expected: bool):
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(status=status, text=body)

    async with RawTestServer(answer) as server, asyncio.timeout(LIMIT):
        connection = Connection(EndpointSettings(base_url=str(server.make_url("/v1"))))
        assert await connection.is_reachable(connection.settings.base_urls[0]) is expected
        await connection.close()


async def test_a_server_that_is_gone_for_good_is_no_longer_looked_after():
    async with AsyncExitStack() as stack:
        [server] = await started(stack, 1)
        gone = ScriptedServer()
        await gone.__aenter__()
        await gone.__aexit__()
        async with chat_of(server, gone) as chat:
            for seed in range(8):
                await chat.complete(ask(seed), hint=RoutingHint(f"p{seed}"))
            assert chat._probes
            chat.router.update([server.base_url])
            await until(lambda: not chat._probes)


async def test_the_context_length_is_told_by_whichever_server_is_there():
    async with AsyncExitStack() as stack:
        servers = await started(stack, 2, context_length=4096)
        gone = ScriptedServer()
        async with gone:
            pass
        async with chat_of(gone, *servers) as chat:
            assert await chat.context_length("scripted") == 4096


@pytest.mark.parametrize("sent", [True, False])
async def test_priorities_are_sent_where_the_server_takes_them(sent: bool):
    async with ScriptedServer() as server, chat_of(server, send_priority=sent) as chat:
        await chat.complete(ask(1), hint=RoutingHint("p", 77))
    assert server.requests[0].get("priority") == (77 if sent else None)


async def test_a_server_without_priorities_is_asked_without():
    async with ScriptedServer(refuses=["priority"]) as server, chat_of(server, send_priority=True) as chat:
        replies = [await chat.complete(ask(seed), hint=RoutingHint("p", 77)) for seed in range(2)]
    assert all(isinstance(reply, Reply) and not reply.notes for reply in replies)
    assert ["priority" in body for body in server.requests] == [True, False, False]
