"""tmas/serve and the requests that clients send as they come: what is applied, what is ignored, and what is context.

``recorded/`` has request bodies. Those of inspect_ai and lm-evaluation-harness were recorded by
tests/e2e/test_serve_clients.py, and that of a chat interface from gradio 6.31 (``gr.load_chat``). That of Open WebUI is
written from its source (routers/openai.py, utils/payload.py); Open WebUI was not run.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.serving import QUESTION, served
from tmas.testing import team
from tmas.testing.chat_server import Body, ScriptedServer

pytestmark = pytest.mark.usefixtures("answers_as_text")
RECORDED = Path(__file__).parent / "recorded"


def sent(role: str, content: Any = QUESTION) -> dict[str, Any]:
    return {"role": role, "content": content}


def sampling(requests: list[Body], role: str) -> set[tuple[float, float]]:
    """Temperature and top_p of the calls of ``role``."""
    return {(body["temperature"], body["top_p"]) for body in requests if team.role_of(body) == role}


@pytest.mark.parametrize(
    ("client", "ignored", "of_candidates"),
    [
        ("inspect_ai", ["max_tokens"], (0.7, 0.95)),
        ("lm_eval", ["max_tokens", "stop", "temperature"], (1.0, 0.95)),
        ("gradio", [], (1.0, 0.95)),
        ("open_webui", ["frequency_penalty", "max_tokens", "reasoning_effort", "stop"], (0.8, 0.9)),
    ],
)
async def test_the_request_of_a_client_is_answered(
    tmp_path: Path, client: str, ignored: list[str], of_candidates: tuple[float, float]
):
    body = orjson.loads((RECORDED / f"{client}.json").read_bytes())
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url) as server:
        reply = await server.send("POST", "/chat/completions", json=body)
    assert reply.status == 200
    details = next(e for e in reply.events if "tmas" in e)["tmas"] if body.get("stream") else reply.json["tmas"]
    assert sorted(details["ignored"]) == ignored
    assert sampling(engine.requests, "solution") == {of_candidates}
    assert sampling(engine.requests, "verification") == {(1.0, 0.95)}
    assert all("stop" not in call and call["max_tokens"] == 1000 for call in engine.requests)


async def test_the_official_client_with_sampling_and_a_system_message_is_answered(tmp_path: Path):
    openai = pytest.importorskip("openai")

    def ask(base_url: str) -> Any:
        client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
        messages: Any = [sent("system", "Be brief."), sent("user")]
        given: Any = {"temperature": 0.3, "top_p": 0.5, "max_completion_tokens": 5, "stop": ["."], "n": 1}
        return client.chat.completions.create(model="tmas", messages=messages, **given)

    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url) as server:
        completion = await asyncio.to_thread(ask, server.base_url)
    assert completion.choices[0].message.content.endswith("}.")  # not cut at the first stop
    assert sorted(completion.tmas["ignored"]) == ["max_completion_tokens", "stop"]
    assert sampling(engine.requests, "solution") == {(0.3, 0.5)}


@pytest.mark.parametrize(
    ("settings", "fields", "ignored"),
    [
        ({}, {"temperature": 0}, ["temperature"]),
        ({"min_temperature": 0}, {"temperature": 0}, []),
        ({"apply_sampling": False}, {"temperature": 0.5, "top_p": 0.5}, ["temperature", "top_p"]),
        ({}, {"tools": [{"type": "function"}], "tool_choice": "auto"}, ["tools"]),
        ({}, {"stream_options": {"include_usage": None}}, []),
        ({}, {"stream_options": {"include_usage": True, "new": 1}, "user": {"id": 7}, "logit_bias": None}, []),
        (
            {},
            {"messages": [sent("user") | {"name": "me"}, sent("assistant", "It")]},
            ["messages.name", "messages.after_question"],
        ),
        (
            {"conversation": "last"},
            {"messages": [sent("system", "S"), sent("user", "A"), sent("user")]},
            ["messages.system", "messages.earlier"],
        ),
    ],
)
async def test_what_is_ignored_is_named_in_the_response(
    tmp_path: Path, settings: dict[str, Any], fields: dict[str, Any], ignored: list[str]
):
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url, **settings) as server:
        reply = await server.ask(**fields)
    assert reply.json["tmas"]["ignored"] == ignored
    assert sampling(engine.requests, "solution") == {(0.0 if settings.get("min_temperature") == 0 else 1.0, 0.95)}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"logprobs": True}, "logprobs"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"messages": [sent("system")]}, "messages"),
        ({"messages": [sent("robot")]}, "messages.0.role"),
        ({"messages": [sent("user", [{"type": "image_url"}])]}, "messages.0.content"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages.0.role"),
        ({"messages": [sent("system", "x" * 60), sent("user", "x" * 60)]}, "messages"),
    ],
)
async def test_what_changes_the_form_or_the_meaning_of_a_reply_is_refused(
    tmp_path: Path, fields: dict[str, Any], param: str
):
    async with (
        ScriptedServer(team.reply) as engine,
        served(tmp_path, engine.base_url, max_question_characters=100) as server,
    ):
        reply = await server.ask(**fields)
    assert (reply.status, reply.error["param"]) == (413 if "x" * 60 in str(fields) else 400, param)
    assert engine.requests == []


async def test_a_conversation_is_context_of_its_last_question_for_every_agent(tmp_path: Path):
    messages = [sent("developer", "Be brief."), sent("user", "Hi."), sent("assistant", "Hello."), sent("user")]
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url) as server:
        reply = await server.ask(messages=[*messages, sent("system", "In English.")])
    assert reply.status == 200
    shown = (
        "Instructions that come with the problem:\n\nBe brief.\n\nIn English.\n\nThe conversation before the problem:"
        f"\n\nUser: Hi.\n\nAssistant: Hello.\n\nThe problem:\n\n{QUESTION}"
    )
    assert {team.role_of(body) for body in engine.requests if shown in team.prompt(body)} == {
        *("solution", "verification", "summary", "experience", "guideline")
    }


async def test_the_log_names_an_ignored_field_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING, "tmas.serve")
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url) as server:
        for _ in range(2):
            await server.ask(max_tokens=1)
        await server.ask(max_tokens=1, stop="x")
    named = [record.getMessage().rpartition(": ")[2] for record in caplog.records]
    assert named == ["max_tokens", "stop"]


async def test_progress_is_reasoning_if_a_request_asks_for_it(tmp_path: Path):
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url) as server:
        whole, asked = await server.ask(), await server.ask(include_reasoning=True)
        silent = await server.ask(stream=True, include_reasoning=False)
    assert "reasoning_content" not in whole.json["choices"][0]["message"]
    lines = asked.json["choices"][0]["message"]["reasoning_content"].splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"iteration {t}/3" for t in (1, 2, 3)]
    assert silent.progress == []
    assert silent.events[-1]["tmas"]["answer"] is not None
