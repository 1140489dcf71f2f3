"""tmas/serve: places and the line before them, clients that leave, one limit for all, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.support.serving import RunningServer, served
from tests.support.waiting import until
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer

pytestmark = pytest.mark.usefixtures("answers_as_text")


class Gate:
    """An engine that answers when it is told to, and knows the most that it had to do at once."""

    def __init__(self) -> None:
        self.seconds, self.now, self.most = 0.0, 0, 0

    def reply(self, body: Body) -> Script:
        self.now += body.get("n", 1)
        self.most = max(self.most, self.now)
        return Script(tuple(team.reply(body)), first_delay=self.seconds)


@asynccontextmanager
async def stuck(folder: Path, **settings: object) -> AsyncIterator[tuple[RunningServer, ScriptedServer, Gate]]:
    """A server whose engine does not answer, until its ``seconds`` are set to 0."""
    gate = Gate()
    gate.seconds = 3600.0
    async with ScriptedServer(gate.reply) as engine, served(folder, engine.base_url, **settings) as server:  # type: ignore[arg-type]
        yield server, engine, gate


async def leave(task: asyncio.Task[object]) -> None:
    """Close the client's connection."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_beyond_those_that_run_and_wait_a_request_is_asked_to_come_again(tmp_path: Path):
    async with stuck(tmp_path, max_running=1, max_waiting=1) as (server, engine, gate):
        first = asyncio.create_task(server.ask())
        await until(lambda: bool(engine.requests))
        second = asyncio.create_task(server.ask(stream=True))
        await until(lambda: server.service.waiting == 1)
        health = await server.send("GET", "/../health")
        third = await server.ask()
        gate.seconds = 0.0
        await leave(first)
        line = (await second).progress[0]
    assert health.json == {"status": "ok", "running": 1, "waiting": 1}
    assert (third.status, third.error["code"], third.error["type"]) == (429, "server_busy", "rate_limit_error")
    assert int(third.headers["Retry-After"]) > 0
    assert line.startswith("waiting for a slot (running requests: 1,")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_its_run_and_gives_its_place_to_the_next(tmp_path: Path, stream: bool):
    async with stuck(tmp_path, max_running=1, max_waiting=0) as (server, engine, gate):
        gone = asyncio.create_task(server.ask(stream=stream))
        await until(lambda: len(engine.requests) == 3)
        await leave(gone)
        await until(lambda: len(engine.aborted) == 3)
        await until(lambda: server.service.running == 0)
        gate.seconds = 0.0
        assert (await server.ask()).status == 200
    assert engine.finished == engine.requests[3:]


async def test_a_client_that_leaves_the_line_is_not_solved_for(tmp_path: Path):
    async with stuck(tmp_path, max_running=1, max_waiting=1) as (server, engine, gate):
        first = asyncio.create_task(server.ask())
        await until(lambda: len(engine.requests) == 3)
        waiting = asyncio.create_task(server.ask("Never mind?"))
        await until(lambda: server.service.waiting == 1)
        await leave(waiting)
        await until(lambda: server.service.waiting == 0)
        gate.seconds = 0.0
        await leave(first)
        assert (await server.ask()).status == 200
    assert not any("Never mind?" in team.prompt(body) for body in engine.requests)


async def test_all_requests_share_one_limit_of_completions_in_flight(tmp_path: Path):
    gate = Gate()
    gate.seconds = 0.02
    engine = ScriptedServer(gate.reply, on_end=lambda ended: setattr(gate, "now", gate.now - ended.body.get("n", 1)))
    method = team.method(n_verifications=1)
    async with engine, served(tmp_path, engine.base_url, method=method, concurrency=4) as server:
        replies = await asyncio.gather(*(server.ask(f"What is {i}?") for i in range(6)))
    assert [reply.status for reply in replies] == [200] * 6
    assert gate.most == 4
    assert len({reply.json["id"] for reply in replies}) == 6


async def test_shutting_down_lets_those_that_run_end_and_takes_no_more(tmp_path: Path):
    async with stuck(tmp_path, drain_seconds=10.0) as (server, engine, gate):
        gate.seconds = 0.2
        running = asyncio.create_task(server.ask())
        await until(lambda: len(engine.requests) == 3)
        draining = asyncio.create_task(server.service.drain())
        await until(lambda: server.service.is_closing)
        refused = await server.ask()
        reply = await running
        await draining
    assert (refused.status, refused.error["code"]) == (503, "shutting_down")
    assert int(refused.headers["Retry-After"]) > 0
    assert reply.status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_those_that_take_longer_than_that_are_told_and_ended(tmp_path: Path, stream: bool):
    async with stuck(tmp_path, drain_seconds=0.05) as (server, engine, _):
        running = asyncio.create_task(server.ask(stream=stream))
        await until(lambda: len(engine.requests) == 3)
        await server.service.drain()
        reply = await running
        await until(lambda: len(engine.aborted) == 3)
    error = reply.events[-1]["error"] if stream else reply.error
    assert error["code"] == "shutting_down"
    assert reply.status == (200 if stream else 503)


async def test_the_port_is_closed_when_the_server_has_ended(tmp_path: Path):
    async with ScriptedServer(team.reply) as engine:
        async with served(tmp_path, engine.base_url) as server:
            assert (await server.ask()).status == 200
        async with aiohttp.ClientSession() as http:
            with pytest.raises(aiohttp.ClientConnectorError):
                await http.get(f"{server.base_url}/models")
