"""`tmas serve` asked by real evaluation harnesses, which run in the environment of `make clients`.

tests/unit/serve/test_clients.py sends the requests that were recorded here, without the clients. Run this file with
RECORD=1 to record them again.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.serving import RunningServer, served
from tmas.serve import app
from tmas.serve.requests import ChatRequest
from tmas.serve.settings import ServerSettings
from tmas.testing import team
from tmas.testing.chat_server import ScriptedServer

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / ".venv-clients" / "bin"
RECORDED = ROOT / "tests" / "unit" / "serve" / "recorded"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (PROGRAMS / "inspect").exists(), reason="needs the environment of `make clients`"),
]


async def run(*command: str | Path, **environment: str) -> str:
    """The output of a command that must succeed."""
    paths = {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=ROOT,
        env={**os.environ, **paths, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    return output


@asynccontextmanager
async def recording(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[RunningServer, list[Any]]]:
    """A server on the scripted model, and the bodies of the requests that it gets."""
    bodies: list[Any] = []
    read_request = app.read_request

    def record(data: bytes, server: ServerSettings) -> ChatRequest:
        bodies.append(orjson.loads(data))
        return read_request(data, server)

    monkeypatch.setattr(app, "read_request", record)
    async with ScriptedServer(team.reply) as engine, served(folder, engine.base_url) as server:
        yield server, bodies


def compare(client: str, body: Mapping[str, Any]) -> None:
    """Fails unless ``body`` has the fields of the recorded request of ``client``."""
    file = RECORDED / f"{client}.json"
    if os.environ.get("RECORD"):
        file.write_bytes(orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n")
    assert body == orjson.loads(file.read_bytes())


def problems(folder: Path) -> Path:
    file = folder / "problems.jsonl"
    file.write_text('{"problem_id": "p1", "question": "What is 1 + 1?", "answer": "2"}\n')
    return file


async def test_inspect_ai_evaluates_the_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with recording(tmp_path / "served", monkeypatch) as (server, bodies):
        output = await run(
            *("inspect", "eval", "recipes/inspect/task.py", "--model", "openai-api/tmas/tmas", "--display", "plain"),
            *("-T", f"problems={problems(tmp_path)}", "--log-dir", tmp_path / "logs", "-M", "stream=true"),
            *("--temperature", "0.7", "--max-tokens", "100"),
            **{"TMAS_BASE_URL": server.base_url, "TMAS_API_KEY": "none"},
        )
    assert "accuracy" in output
    compare("inspect_ai", bodies[0])


async def test_lm_evaluation_harness_evaluates_the_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    task = (ROOT / "tests/e2e/clients/sums.yaml").read_text("utf-8")
    (tmp_path / "sums.yaml").write_text(task.replace("DATA_FILE", str(problems(tmp_path))))
    async with recording(tmp_path / "served", monkeypatch) as (server, bodies):
        address = f"model=tmas,base_url={server.base_url}/chat/completions,num_concurrent=1,max_retries=1,timeout=3600"
        output = await run(
            *("lm_eval", "run", "--model", "local-chat-completions", "--model_args", address, "--apply_chat_template"),
            *("--tasks", "sums", "--include_path", tmp_path, "--output_path", tmp_path / "results"),
            **{"HF_DATASETS_CACHE": str(tmp_path / "cache"), "OPENAI_API_KEY": "none"},
        )
    assert "exact_match" in output
    compare("lm_eval", bodies[0])


async def test_the_recipe_compares_the_method_with_the_bare_model(tmp_path: Path, unused_tcp_port: int):
    file = os.path.relpath(problems(tmp_path), ROOT)  # noqa: ASYNC240
    async with ScriptedServer(team.reply, context_length=100_000) as engine:
        output = await run(
            *("recipes/inspect/run.sh", "method.n_candidates=2", "method.n_verifications=1", "method.max_iterations=1"),
            *("model.sampling.max_tokens=1000",),
            **{"BASE_URL": engine.base_url, "NAME": "scripted", "OUT": str(tmp_path), "PORT": str(unused_tcp_port)},
            **{"PROBLEMS": file},
        )
    assert all(f"openai-api/{model} " in output for model in ("bare/scripted", "tmas/tmas"))
    assert len(re.findall(r"^accuracy +[\d.]+ *$", output, re.MULTILINE)) == 2, output
    assert [path.name for path in (tmp_path / "served").iterdir()]
