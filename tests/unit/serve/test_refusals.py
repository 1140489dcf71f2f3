"""tmas/serve: what is refused, how, and what a client hears when its request comes to nothing."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.serving import QUESTION, runs_in, served
from tmas.records import Result, Trajectory
from tmas.serve.errors import ApiError
from tmas.serve.requests import read_request
from tmas.serve.responses import Responses
from tmas.serve.service import Job
from tmas.serve.settings import ServerSettings
from tmas.settings import RunSettings
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer

pytestmark = pytest.mark.usefixtures("answers_as_text")
SECRET = "sk-canary-7315"


def message(content: Any = QUESTION, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": "gpt-5"}, 404, "model_not_found", "model"),
        ({"model": None}, 400, "invalid_value", "model"),
        ({"temperature": 0.5}, 400, "unsupported_field", "temperature"),
        ({"temperature": 0}, 400, "unsupported_field", "temperature"),
        ({"top_p": 0.9}, 400, "unsupported_field", "top_p"),
        ({"max_tokens": 100}, 400, "unsupported_field", "max_tokens"),
        ({"n": 2}, 400, "unsupported_field", "n"),
        ({"tools": [{"type": "function"}]}, 400, "unsupported_field", "tools"),
        ({"response_format": {"type": "json_object"}}, 400, "unsupported_field", "response_format"),
        ({"stream": "yes"}, 400, "invalid_value", "stream"),
        ({"stream_options": {"include_usage": True}}, 400, "invalid_value", "stream_options"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": [message("Be brief.", "system"), message()]}, 400, "invalid_value", "messages"),
        ({"messages": [message(role="system")]}, 400, "invalid_value", "messages"),
        ({"messages": [message(" \n")]}, 400, "invalid_value", "messages.0.content"),
        ({"messages": [message(None)]}, 400, "invalid_value", "messages.0.content"),
        ({"messages": [message([{"type": "image_url"}])]}, 400, "invalid_value", "messages.0.content"),
        ({"messages": [message() | {"name": "me"}]}, 400, "unsupported_field", "messages.0.name"),
        ({"messages": [message() | {"tool_calls": []}]}, 400, "unsupported_field", "messages.0.tool_calls"),
        (
            {"messages": [message([{"type": "text", "text": "Hi", "cache_control": {}}])]},
            400,
            "unsupported_field",
            "messages.0.content.0.cache_control",
        ),
        ({"messages": [message("?" * 101)]}, 413, "question_too_long", "messages.0.content"),
        ({"seed": -1}, 400, "invalid_value", "seed"),
        ({"seed": 1, "tmas": {"seed": 1}}, 400, "invalid_value", "seed"),
        ({"tmas": 5}, 400, "invalid_value", "tmas"),
        ({"tmas": {"n_candidats": 4}}, 400, "unsupported_field", "tmas.n_candidats"),
        ({"tmas": {"n_candidates": 4}}, 400, "over_limit", "tmas.n_candidates"),
        ({"tmas": {"n_verifications": 0}}, 400, "invalid_value", "tmas.n_verifications"),
        ({"tmas": {"max_iterations": 6}}, 400, "over_limit", "tmas.max_iterations"),
        ({"tmas": {"epsilon": 1.5}}, 400, "invalid_value", "tmas.epsilon"),
        ({"tmas": {"tokens_per_problem": 100_001}}, 400, "over_limit", "tmas.tokens_per_problem"),
        ({"tmas": {"output_dir": "/tmp/mine"}}, 400, "unsupported_field", "tmas.output_dir"),
    ],
)
async def test_what_has_no_meaning_here_is_refused_with_the_field_at_fault(
    tmp_path: Path, fields: dict[str, Any], status: int, code: str, param: str
):
    limits: dict[str, Any] = {"strict": True, "max_question_characters": 100}
    limits["most"] = {"max_iterations": 5, "tokens_per_problem": 100_000}
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url, **limits) as server:
        reply = await server.ask(**fields)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (status, code, param)
    assert reply.error["type"] == "invalid_request_error"
    assert reply.error["message"].startswith(param) or code == "model_not_found"
    assert engine.requests == []
    assert runs_in(tmp_path) == []


async def test_fields_that_ask_for_nothing_may_be_there(tmp_path: Path):
    nothing: dict[str, Any] = {"n": 1, "temperature": None, "tools": [], "response_format": {"type": "text"}}
    nothing["messages"] = [message([{"type": "text", "text": QUESTION, "cache_control": None}]) | {"name": None}]
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url) as server:
        reply = await server.ask(**nothing, user="me", tmas=None, stop=None)
    assert reply.status == 200


async def test_a_wish_that_the_method_does_not_know_is_refused(tmp_path: Path):
    method = team.small("majority_vote")
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url, method=method) as server:
        reply = await server.ask(tmas={"epsilon": 0.5})
    assert (reply.status, reply.error["param"]) == (400, "tmas.epsilon")
    assert "majority_vote" in reply.error["message"]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_json"),
        (b"[1]", "application/json", 400, "invalid_json"),
        (b'"\\ud800"', "application/json", 400, "invalid_json"),
        (b"[" * 5000, "application/json", 400, "invalid_json"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b" " * 2001, "application/json", 413, "request_entity_too_large"),
    ],
)
async def test_a_body_that_is_no_request_is_refused(
    tmp_path: Path, body: bytes, content_type: str, status: int, code: str
):
    small: dict[str, Any] = {"max_request_bytes": 2000} if status == 413 else {}
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url, **small) as server:
        reply = await server.send("POST", "/chat/completions", data=body, headers={"Content-Type": content_type})
    assert (reply.status, reply.error["code"]) == (status, code)
    if status == 413:
        assert "2000" in reply.error["message"]


@pytest.mark.parametrize(
    ("verb", "path", "status"), [("GET", "/chat/completions", 405), ("POST", "/completions", 404), ("GET", "/x", 404)]
)
async def test_other_paths_and_verbs_are_errors_in_the_same_shape(tmp_path: Path, verb: str, path: str, status: int):
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url) as server:
        reply = await server.send(verb, path)
    assert reply.status == status
    assert reply.error["type"] == "invalid_request_error"


# --- who may ask


def written_in(folder: Path) -> str:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file()).decode()


async def test_only_those_who_send_the_key_are_answered_and_it_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("MY_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    given = [None, {"Authorization": f"Bearer {SECRET}x"}, {"Authorization": f"Basic {SECRET}"}]
    given.append({"Authorization": "Bearer \N{SNOWMAN}"})
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url, api_key_env="MY_KEY") as server:
        refused = [await server.ask(headers=headers) for headers in given]
        models = await server.send("GET", "/models")
        health = await server.send("GET", "/../health")
        right = await server.ask(headers={"Authorization": f"Bearer {SECRET}"})
    for reply in [*refused, models]:
        assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
        assert reply.error["type"] == "authentication_error"
    assert (health.status, right.status) == (200, 200)
    assert all("Authorization" not in exchange.headers for exchange in engine.exchanges)
    assert SECRET not in written_in(tmp_path) + caplog.text + right.body.decode()


@pytest.mark.parametrize(("host", "status"), [("localhost:80", 200), ("[::1]", 200), ("evil.example", 403), ("", 403)])
async def test_without_a_key_no_web_page_gets_in_under_a_name_of_its_own(tmp_path: Path, host: str, status: int):
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url) as server:
        reply = await server.send("GET", "/models", headers={"Host": host})
    assert reply.status == status


# --- what comes to nothing


def failing(body: Body) -> Script | list[str]:
    cut_short = team.role_of(body) == "solution"
    return Script(("I begin with",), finish_reason="length") if cut_short else team.reply(body)


async def test_where_every_candidate_failed_there_is_an_error_with_the_reasons_and_no_empty_answer(tmp_path: Path):
    async with ScriptedServer(failing) as engine, served(tmp_path, engine.base_url) as server:
        reply = await server.ask()
    assert (reply.status, reply.error["code"], reply.error["type"]) == (422, "no_answer", "no_answer_error")
    assert reply.error["message"].startswith("no candidate has a solution: 9 of 9 failed: 9 truncated (the last: ")
    assert reply.json["tmas"]["failures"]["truncated"] >= 9
    assert reply.json["usage"]["completion_tokens"] > 0
    assert (tmp_path / reply.json["tmas"]["request_id"] / "failures.jsonl").stat().st_size


def test_a_result_without_any_candidate_is_an_error_as_well():
    settings = RunSettings(model=team.model("http://h/v1"), method=team.method())
    job = Job("chatcmpl-1", QUESTION, settings, "tmas")
    nothing = Result(
        problem=job.problem, method="tmas", trajectory=Trajectory(iterations=(), stop="max_iterations"), usage=()
    )
    with pytest.raises(ApiError) as refused:
        Responses(job).completion(nothing)
    assert refused.value.code == "no_answer"
    assert refused.value.message == "no candidate has a solution: 0 of 0 failed"


async def test_a_stream_that_comes_to_nothing_ends_in_an_error_that_the_official_client_raises(tmp_path: Path):
    openai = pytest.importorskip("openai")
    heard: list[Any] = []

    def ask(base_url: str) -> None:
        client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
        heard.extend(client.chat.completions.create(model="tmas", messages=[message()], stream=True))

    async with ScriptedServer(failing) as engine, served(tmp_path, engine.base_url) as server:
        reply = await server.ask(stream=True)
        with pytest.raises(openai.APIError, match="9 of 9 failed: 9 truncated") as raised:
            await asyncio.to_thread(ask, server.base_url)
    assert reply.status == 200
    assert len(reply.progress) == 3
    assert reply.events[-1]["error"] == raised.value.body
    assert all(not event["choices"][0]["delta"].get("content") for event in reply.events[:-1])


async def test_a_question_that_does_not_fit_the_model_is_an_error_that_says_so(tmp_path: Path):
    small = {"context_length": 1100}
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url, model=small) as server:
        reply = await server.ask("long " * 500)
    assert (reply.status, reply.error["code"]) == (422, "no_answer")
    assert "context" in reply.error["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_dead_engine_is_told_and_the_next_request_is_answered(tmp_path: Path, stream: bool):
    async with ScriptedServer(team.reply, key="not ours") as engine, served(tmp_path, engine.base_url) as server:
        reply = await server.ask(stream=stream)
        engine.key = None
        after = await server.ask()
    if stream:
        assert reply.events[-1]["error"]["code"] == "engine_down"
    else:
        assert (reply.status, reply.error["code"]) == (503, "engine_down")
        assert int(reply.headers["Retry-After"]) > 0
    assert engine.base_url not in reply.body.decode()
    assert after.status == 200


async def test_what_happens_to_one_request_does_not_end_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = tmp_path / "runs"
    async with ScriptedServer(team.reply) as engine, served(folder, engine.base_url) as server:
        shutil.rmtree(folder)
        folder.write_text("no folder")
        broken = await server.ask()
        folder.unlink()
        well = await server.ask()
    assert (broken.status, broken.error["code"]) == (500, "internal_error")
    assert str(folder) not in broken.body.decode()
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage().partition(" ")[0] in broken.error["message"]
    assert well.status == 200


def test_a_request_with_200_000_unknown_fields_is_read_in_linear_time(tmp_path: Path):
    # Quadratic reading takes longer than a test may, and nothing else is served meanwhile.
    fields = {f"field {number}": 1 for number in range(200_000)}
    body = orjson.dumps({"model": "tmas", "messages": [message()], **fields})
    assert read_request(body, ServerSettings(output_dir=tmp_path)).ignored == tuple(fields)
