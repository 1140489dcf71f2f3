"""The scripts in examples/ run as they stand, with a scripted server in the place of a model."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.serving import served
from tmas.testing import team
from tmas.testing.chat_server import ScriptedServer

EXAMPLES = Path(__file__).parents[2] / "examples"


async def run(name: str, *arguments: str, **variables: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLES / name), *arguments),
        env=os.environ | {"MODEL_NAME": "model"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


async def test_a_trace_can_be_inspected(tmp_path: Path):
    async with ScriptedServer(team.reply) as engine:
        printed = await run("inspect_trace.py", str(tmp_path / "run"), MODEL_URL=engine.base_url)
    roles = ("solution 0:", "verification 1:", "summary 0:", "experience 0:", "guideline 0:")
    assert all(f"iteration {t} {role}" in printed for t in (0, 1) for role in roles)
    assert "answer: " in printed


async def test_a_harness_evaluates_the_team_as_it_evaluates_the_model(tmp_path: Path):
    pytest.importorskip("openai")
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url) as server:
        printed = await run("evaluate_like_any_model.py", MODEL_URL=engine.base_url, TMAS_URL=server.base_url)
    assert printed.count("model: What is") == printed.count("tmas: What is") == 2
    assert "bare model " in printed


def test_every_example_is_listed():
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"({script.name})" in listed for script in EXAMPLES.iterdir() if script.suffix in (".py", ".sh"))
