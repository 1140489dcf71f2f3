"""That the soak test of ``tmas serve`` notices good clients without answers."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks import serve_soak
from benchmarks.serve_soak import Client, Soak, evaluate
from tests.support.waiting import until

FLAT = [80.0] * 301
ALL_ANSWERED = {"asks: 200": 5, "streams: 200": 5, "leaves: 200": 5, "has no key: 401": 5}


def test_flat_memory_and_answers_for_all_good_clients_meet_the_goal():
    met, summary = evaluate(FLAT, ALL_ANSWERED)
    assert met
    assert summary.endswith(
        "failed visits: 0 (goal: 0); answered visits of good clients: asks 5, streams 5 (goal: some of each); met"
    )


@pytest.mark.parametrize(
    ("memory", "outcomes"),
    [
        (FLAT, {}),
        (FLAT, {"asks: 200": 5, "leaves: 200": 5}),
        (FLAT, ALL_ANSWERED | {"asks: 503": 1}),
        (FLAT, ALL_ANSWERED | {"streams: 200 without an answer": 1}),
        (FLAT, ALL_ANSWERED | {"sends slowly: no reply in time": 1}),
        (FLAT, ALL_ANSWERED | {"sends slowly: crashed, IndexError": 1}),
        ([80.0] * 200 + [100.0] * 101, ALL_ANSWERED),
    ],
)
def test_the_goal_is_missed(memory: list[float], outcomes: dict[str, int]):
    met, summary = evaluate(memory, outcomes)
    assert not met
    assert summary.endswith("missed")


async def outcomes_of(client: Client, base_url: str = "") -> Counter[str]:
    """The outcomes of a client that visits for a moment."""
    async with aiohttp.ClientSession() as http:
        soak = Soak(base_url, http)
        visits = asyncio.create_task(soak.repeat("client", client))
        await until(lambda: soak.outcomes or visits.done())
        assert not visits.done()
        soak.is_ending = True
        await visits
        return soak.outcomes


async def test_a_client_that_hangs_or_crashes_is_counted(monkeypatch: pytest.MonkeyPatch):
    async def hang(_: Soak) -> str:
        await asyncio.sleep(1000)
        return "200"

    async def crash(_: Soak) -> str:
        raise IndexError

    monkeypatch.setattr(serve_soak, "VISIT_SECONDS", 0.01)
    assert set(await outcomes_of(hang)) == {"client: no reply in time"}
    assert set(await outcomes_of(crash)) == {"client: crashed, IndexError"}


def event(value: object) -> str:
    return f"data: {json.dumps(value)}\n\n"


PART = event({"choices": [{"delta": {"content": "2"}, "finish_reason": None}]})
FINISH = event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
ERROR = event({"error": {"code": "engine_failed"}})
END = "data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (PART + FINISH + END, "200"),
        (PART + ": keep-alive\n\n" + FINISH + END, "200"),
        (PART + FINISH, "200 without an answer"),
        (PART + END, "200 without an answer"),
        (END, "200 without an answer"),
        (PART + ERROR + END, "200 without an answer"),
        ("", "200 without an answer"),
        ("no JSON", "crashed, JSONDecodeError"),
        (json.dumps({"choices": [{"message": {"content": "2"}, "finish_reason": "stop"}]}), "200"),
        (json.dumps({"choices": []}), "200 without an answer"),
    ],
)
async def test_an_answer_must_reach_its_end(body: str, outcome: str):
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=body)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    async with TestServer(app) as server:
        found = await outcomes_of(lambda soak: soak.ask(stream=True), str(server.make_url("/v1")))
    assert set(found) == {f"client: {outcome}"}
