"""/metrics of tmas/serve: what it counts, and who may read it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from tests.support.serving import RunningServer, served
from tests.support.waiting import until
from tmas.serve import app
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer

pytestmark = pytest.mark.usefixtures("answers_as_text")
SECRET = "sk-canary-9911"


async def metrics(server: RunningServer, headers: dict[str, str] | None = None) -> dict[tuple[str, ...], float]:
    """The values by name and labels, in the order of the labels' names."""
    reply = await server.send("GET", "/../metrics", headers=headers)
    assert reply.status == 200
    families = text_string_to_metric_families(reply.body.decode())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


async def test_requests_tokens_failures_and_times_are_counted(tmp_path: Path):
    def failing(body: Body) -> Script | list[str]:
        if "Fail" in team.prompt(body) and team.role_of(body) == "solution":
            return Script(("I begin with",), finish_reason="length")
        return team.reply(body)

    async with ScriptedServer(failing) as engine, served(tmp_path, engine.base_url) as server:
        answered = await server.ask()
        before = await metrics(server)
        await server.ask(stream=True)
        failed = [await server.ask("Fail?"), await server.ask("Fail?", stream=True)]
        await server.ask(model="gpt-5")
        after = await metrics(server)
    usage = answered.json["usage"]
    for kind in ("prompt", "completion"):
        counted = [value for key, value in before.items() if key[:2] == ("tmas_tokens_total", kind)]
        assert len(counted) == 5  # roles
        assert sum(counted) == usage[f"{kind}_tokens"] > 0
    outcomes = {key[1:3]: value for key, value in after.items() if key[0] == "tmas_requests_total"}
    assert outcomes == {("tmas", "answered"): 2, ("tmas", "no_answer"): 2, ("unknown", "model_not_found"): 1}
    assert after["tmas_failures_total", "tmas", "truncated"] == 2 * failed[0].json["tmas"]["failures"]["truncated"]
    assert after["tmas_time_to_first_byte_seconds_count", "true"] == 2
    assert after["tmas_time_to_first_byte_seconds_count", "false"] == 1
    assert after["tmas_time_to_first_content_seconds_count", "tmas"] == 2


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RuntimeError("a bug"), "internal_error"),
        (ConnectionResetError("not the client's"), "internal_error"),
        (web.HTTPInternalServerError(), "internal_server_error"),
    ],
)
async def test_a_request_on_which_the_server_fails_is_not_one_whose_client_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, outcome: str
):
    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(app, "read_question", fail)
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url) as server:
        reply = await server.ask()
        counted = await metrics(server)
    assert reply.status == 500
    assert {key[1:3] for key in counted if key[0] == "tmas_requests_total"} == {("tmas", outcome)}


async def test_running_and_waiting_requests_and_those_whose_client_left(tmp_path: Path):
    def stuck(body: Body) -> Script:
        return Script(tuple(team.reply(body)), first_delay=3600.0)

    async with ScriptedServer(stuck) as engine, served(tmp_path, engine.base_url, max_running=1) as server:
        asking = [asyncio.create_task(server.ask(stream=stream)) for stream in (True, False)]
        await until(lambda: server.service.waiting == 1)
        busy = await metrics(server)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await until(lambda: server.service.running == 0)
        left = await metrics(server)
    assert (busy["tmas_requests_running",], busy["tmas_requests_waiting",]) == (1, 1)
    assert left["tmas_requests_total", "tmas", "client_left"] == 2


@pytest.mark.parametrize("needs_key", [True, False])
async def test_the_metrics_need_the_key_unless_the_server_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needs_key: bool
):
    monkeypatch.setenv("MY_KEY", SECRET)
    locked = {"api_key_env": "MY_KEY", "metrics_key": needs_key}
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url, **locked) as server:
        without = await server.send("GET", "/../metrics")
        assert await metrics(server, {"Authorization": f"Bearer {SECRET}"})
    assert without.status == (401 if needs_key else 200)
