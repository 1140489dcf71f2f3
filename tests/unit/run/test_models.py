"""run/models.py: the schema and the window that each role is asked with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tmas import asolve
from tmas.llm.tokens import MERGED_TOKENS, chat_template_tokens, token_counter
from tmas.miniature import POLICY
from tmas.testing import team
from tmas.testing.chat_server import Body, ScriptedServer

MEMORY = ("experience", "guideline")


async def schemas(directory: Path, reply: Any = team.reply, **agents: Any) -> dict[str, list[bool]]:
    """Whether each call of the memory agents had a schema; the experience agent has another model than the others."""
    method = team.method(n_candidates=1, max_iterations=2, agents=agents)
    async with ScriptedServer(reply) as server:
        model = team.model(server.base_url, roles={"experience": {"name": "another"}})
        await asolve("1 + 1?", model, method, output_dir=directory)
        await asolve("1 + 1?", model, method, output_dir=directory)  # a replay makes the same requests, so no more
    found: dict[str, list[bool]] = {role: [] for role in MEMORY}
    for body in server.requests:
        if (role := team.role_of(body)) in MEMORY:
            found[role].append("response_format" in body)
    return found


async def test_another_model_than_the_candidates_is_asked_without_a_schema_first(tmp_path: Path):
    assert await schemas(tmp_path) == {"experience": [False, False], "guideline": [True, True]}


async def test_a_reply_of_it_that_could_not_be_read_is_asked_for_with_the_schema(tmp_path: Path):
    def reply(body: Body) -> list[str]:
        wrong = team.role_of(body) == "experience" and "response_format" not in body
        return ["no JSON"] if wrong else team.reply(body)

    assert await schemas(tmp_path, reply) == {"experience": [False, True] * 2, "guideline": [True, True]}


@pytest.mark.parametrize(("setting", "sent"), [("on", True), ("off", False)])
async def test_without_auto_every_model_is_treated_alike(tmp_path: Path, setting: str, sent: bool):
    assert await schemas(tmp_path, structured_outputs=setting) == {role: [sent, sent] for role in MEMORY}


async def test_no_schema_binds_a_model_that_thinks_between_tags(tmp_path: Path):
    def reply(body: Body) -> list[str]:
        return [f"<think>hm</think>{text}" for text in team.reply(body)]

    assert await schemas(tmp_path, reply) == {role: [False, False] for role in MEMORY}


# --- the window


def long_reply(body: Body) -> list[str]:
    return [f"{text} {'and so on ' * 400}" if team.role_of(body) == "solution" else text for text in team.reply(body)]


async def test_a_completion_gets_what_its_prompt_leaves_of_the_window(tmp_path: Path):
    template, count = chat_template_tokens(str(POLICY)), token_counter(str(POLICY))
    assert template > MERGED_TOKENS
    settings = {"tokenizer": str(POLICY), "context_length": 100_000, "sampling": {"max_tokens": 5000}}
    async with ScriptedServer(team.reply) as server:
        model = team.model(server.base_url, **settings, max_window_tokens=5200)
        await asolve("1 + 1?", model, team.method(n_candidates=1), output_dir=tmp_path)
        calls = len(server.requests)
        await asolve("1 + 1?", model, team.method(n_candidates=1), output_dir=tmp_path)
    assert len(server.requests) == calls
    asked = [
        (count("\n\n".join(m["content"] for m in body["messages"])), body["max_tokens"]) for body in server.requests
    ]
    assert {tokens for _, tokens in asked if tokens < 5000}
    assert all(tokens == min(5000, 5200 - template - prompt) for prompt, tokens in asked)


async def test_a_run_that_an_older_version_began_is_resumed_with_its_own_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It kept 64 tokens free for the chat template; prompts that are cut to fit are cut at the same place."""
    settings = {"tokenizer": str(POLICY), "context_length": 1900, "sampling": {"max_tokens": 500}}
    method = team.method(n_candidates=2, max_iterations=2)

    async def solved(server: ScriptedServer) -> int:
        model = team.model(server.base_url, **settings)
        return (await asolve("1 + 1?", model, method, output_dir=tmp_path / "run")).packed_prompts

    async with ScriptedServer(long_reply) as server:
        with monkeypatch.context() as older:
            older.setattr("tmas.run.runtime.counts_chat_template", lambda _: False)
            assert await solved(server)
        calls = len(server.requests)
        file = tmp_path / "run" / "manifest.json"
        manifest = orjson.loads(file.read_bytes())
        file.write_bytes(orjson.dumps({key: value for key, value in manifest.items() if key != "chat_template"}))
        (tmp_path / "run" / "predictions.jsonl").unlink()
        assert await solved(server)
    assert len(server.requests) == calls
