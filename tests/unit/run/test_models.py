"""run/models.py: what a role is asked with, where its model is not the one that writes the candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tmas import asolve
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
