"""tmas/serve over real HTTP, as the official client and curl use it: the answer, its progress, and what it leaves."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.commands import tmas
from tests.support.serving import QUESTION, runs_in, served
from tmas.files import read_lines
from tmas.methods import METHODS
from tmas.serve import app
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer

pytestmark = pytest.mark.usefixtures("answers_as_text")


async def test_the_answer_is_the_selected_solution_and_the_usage_that_of_all_calls(tmp_path: Path):
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url) as server:
        reply = await server.ask()
    assert reply.status == 200
    [run] = runs_in(tmp_path)
    [line] = read_lines(run / "predictions.jsonl")
    completion = reply.json
    assert (completion["id"], completion["object"], completion["model"]) == (run.name, "chat.completion", "tmas")
    [choice] = completion["choices"]
    assert choice["message"] == {"role": "assistant", "content": line["solution"], "refusal": None}
    assert choice["finish_reason"] == "stop"
    assert line["solution"]
    assert line["answer"] == completion["tmas"]["answer"]
    assert completion["tmas"]["iterations"] == len(line["iterations"]) == 3
    totals = orjson.loads((run / "metrics.json").read_bytes())["usage"].values()
    for name in ("prompt_tokens", "completion_tokens"):
        assert completion["usage"][name] == sum(role[name] for role in totals) > 0
    assert completion["usage"]["total_tokens"] == sum(
        completion["usage"][name] for name in ("prompt_tokens", "completion_tokens")
    )
    assert len(team.recorded_calls(run)) == len(engine.requests)


async def test_the_official_client_gets_the_answer_whole_and_streamed(tmp_path: Path):
    openai = pytest.importorskip("openai")

    def ask(base_url: str) -> tuple[Any, list[Any], list[str]]:
        client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
        asked: Any = {"model": "tmas", "messages": [{"role": "user", "content": QUESTION}], "seed": 5}
        whole = client.chat.completions.create(**asked)
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        return whole, chunks, [model.id for model in client.models.list()]

    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url) as server:
        whole, chunks, models = await asyncio.to_thread(ask, server.base_url)
    assert models == ["tmas"]
    *told, last, cost = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == whole.choices[0].message.content
    assert whole.choices[0].message.content
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert (cost.choices, cost.usage) == ([], whole.usage)
    assert last.tmas["answer"] == whole.tmas["answer"]
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_tells_of_each_iteration_in_order_and_then_gives_the_answer(tmp_path: Path):
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url) as server:
        reply = await server.ask(stream=True)
    assert reply.headers["Content-Type"] == "text/event-stream"
    kinds = [next(iter(event["choices"][0]["delta"]), "end") for event in reply.events]
    assert kinds == ["role", *["reasoning_content"] * 3, "content", "end"]
    assert reply.progress[0].startswith("iteration 1/3: 3 candidates, best mean grade ")
    assert "exploit" in "".join(reply.progress[1:])
    assert [line.partition(":")[0] for line in reply.progress] == [f"iteration {t}/3" for t in (1, 2, 3)]
    assert all("bank " in line and line.endswith("\n") for line in reply.progress)


async def test_curl_gets_the_answer_whole_and_streamed(tmp_path: Path):
    curl = shutil.which("curl") or pytest.skip("curl is not installed")

    def ask(base_url: str, **fields: Any) -> bytes:
        body = orjson.dumps({"model": "tmas", "messages": [{"role": "user", "content": QUESTION}], "seed": 5} | fields)
        given = ["-sSfN", f"{base_url}/chat/completions", "-H", "Content-Type: application/json", "-d", "@-"]
        return subprocess.run([curl, *given], input=body, capture_output=True, check=True).stdout

    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url) as server:
        whole = await asyncio.to_thread(ask, server.base_url)
        streamed = await asyncio.to_thread(ask, server.base_url, stream=True)
    events = [line.removeprefix("data: ") for line in streamed.decode().splitlines() if line]
    assert events[-1] == "[DONE]"
    deltas = [orjson.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    content = orjson.loads(whole)["choices"][0]["message"]["content"]
    assert content == "".join(delta.get("content", "") for delta in deltas)


@pytest.mark.parametrize("name", METHODS)
async def test_every_method_can_be_served_and_tells_of_its_iterations(tmp_path: Path, name: str):
    method = team.small(name)
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url, method=method) as server:
        reply = await server.ask(stream=True)
    facts = reply.events[-1]["tmas"]
    assert facts["answer"] is not None
    assert len(reply.progress) == facts["iterations"] > 0


async def test_a_request_sets_the_method_for_itself_alone(tmp_path: Path):
    most = {"n_candidates": 5, "max_iterations": 4}
    options = {"n_candidates": 5, "n_verifications": 1, "max_iterations": 1, "epsilon": 0}
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url, most=most) as server:
        first = await server.ask(tmas=options)
        asked = len(engine.requests)
        second = await server.ask(tmas={"seed": 1})
    assert asked == 5 + 5 + 5 + 2  # candidates, their verifications and summaries, the two banks
    assert (first.json["tmas"]["iterations"], second.json["tmas"]["iterations"]) == (1, 3)


async def test_question_and_seed_make_the_answer_and_a_seed_is_drawn_where_none_is_given(tmp_path: Path):
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url) as server:
        replies = [await server.ask(seed=3), await server.ask(tmas={"seed": 3}), await server.ask(), await server.ask()]
    same, again, drawn, other = (reply.json for reply in replies)
    assert (same["choices"], same["usage"]) == (again["choices"], again["usage"])
    assert same["id"] != again["id"]
    seeds = [reply["tmas"]["seed"] for reply in (same, again, drawn, other)]
    assert seeds[:2] == [3, 3]
    assert seeds[2] != seeds[3]


async def test_a_message_of_text_parts_is_one_question(tmp_path: Path):
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "1 + 1?"}]
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url) as server:
        assert (await server.ask(parts)).status == 200
    assert all("What is\n1 + 1?" in team.prompt(body) for body in engine.requests)


@pytest.mark.parametrize("limit", ["of the request", "of the server"])
async def test_a_token_budget_ends_a_request_with_what_there_is(tmp_path: Path, limit: str):
    most, options = (
        ({"tokens_per_problem": 2000}, {}) if limit == "of the server" else ({}, {"tokens_per_problem": 2000})
    )
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url, most=most) as server:
        reply = await server.ask(tmas=options)
    assert reply.json["choices"][0]["finish_reason"] == "length"
    assert reply.json["tmas"]["stop"] == "budget"
    assert reply.json["tmas"]["failures"]["budget"] > 0
    assert reply.text


async def test_silence_is_broken_by_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(app, "KEEP_ALIVE", 0.02)

    def slow(body: Body) -> Script:
        return Script(tuple(team.reply(body)), first_delay=0.1)

    async with ScriptedServer(slow) as engine, served(tmp_path, engine.base_url) as server:
        reply = await server.ask(stream=True)
    assert reply.body.count(b": keep-alive\n\n") > 3
    assert reply.events[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("keep", [True, False])
async def test_a_run_directory_is_named_by_the_server_and_kept_only_if_it_is_to_be(tmp_path: Path, keep: bool):
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url, keep_runs=keep) as server:
        reply = await server.ask("../../etc/passwd?", user="../me")
    assert [run.name for run in runs_in(tmp_path)] == ([reply.json["id"]] if keep else [])


async def test_a_request_can_be_evaluated_and_reported_as_any_run(tmp_path: Path):
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url) as server:
        reply = await server.ask()
    [run] = runs_in(tmp_path)
    page = tmp_path / "report.html"
    done = await asyncio.to_thread(tmas, "report", f"runs=[{run}]", f"output={page}")
    assert done.returncode == 0, done.stderr
    assert reply.json["id"] in page.read_text()
