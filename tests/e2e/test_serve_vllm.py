"""`tmas serve` on real vLLM with the shipped policy, asked by the official client and by curl, and stopped.

The vLLM server is the shared one. tests/unit/serve/test_command.py has servers that start their own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from recipes.miniature.language import blocks_in, read_answer
from tests.support.commands import TMAS
from tests.support.installed import needs_vllm
from tests.support.policy_server import PLAYED
from tmas.answers.extract import extract_boxed
from tmas.miniature import PROBLEMS
from tmas.problems.loader import load_problems
from tmas.testing import team

openai = pytest.importorskip("openai")
pytestmark = [pytest.mark.e2e, needs_vllm, pytest.mark.timeout(3600)]

KEY = "sk-of-this-test"
SETTINGS = [
    *("+experiment=miniature", *PLAYED),
    *("serve.port=0", "serve.api_key_env=SERVE_KEY"),
    *("method.n_candidates=4", "method.n_verifications=2", "method.max_iterations=3", "method.epsilon=0.5"),
]
PROBLEM = load_problems(PROBLEMS).problems[0]
QUESTION = [{"role": "user", "content": PROBLEM.question}]


@pytest.fixture
def server(tmp_path: Path, policy_server: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [*TMAS, "serve", f"serve.output_dir={tmp_path}", f"model.base_url={policy_server}", *SETTINGS]
    environment = {**os.environ, "SERVE_KEY": KEY, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout
        yield process, process.stdout.readline().partition(" ")[0]
    finally:
        process.kill()
        process.wait()


def curl(base_url: str, **fields: Any) -> dict[str, Any]:
    program = shutil.which("curl") or pytest.skip("curl is not installed")
    headers = ["-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {KEY}"]
    body = orjson.dumps({"model": "tmas", "messages": QUESTION} | fields)
    words = [program, "-sS", f"{base_url}/chat/completions", *headers, "-d", "@-"]
    return orjson.loads(subprocess.run(words, input=body, capture_output=True, check=True).stdout)


def candidate(text: str) -> None:
    """Fails unless ``text`` is a solution with one of the possible answers."""
    assert read_answer(extract_boxed(text) or "", len(blocks_in(PROBLEM.question))), text


def test_the_method_is_a_model_that_the_official_client_and_curl_can_ask(
    server: tuple[subprocess.Popen[str], str], tmp_path: Path
):
    process, base_url = server
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=base_url, api_key="wrong").chat.completions.create(model="tmas", messages=QUESTION)

    client = openai.OpenAI(base_url=base_url, api_key=KEY)
    with_usage: Any = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model="tmas", messages=QUESTION, seed=1, **with_usage))
    *told, last, cost = chunks
    progress = [getattr(chunk.choices[0].delta, "reasoning_content", "") for chunk in told]
    assert [line.partition(":")[0] for line in progress if line] == ["iteration 1/3", "iteration 2/3", "iteration 3/3"]
    candidate("".join(chunk.choices[0].delta.content or "" for chunk in told))
    assert last.choices[0].finish_reason == "stop"
    assert cost.usage.completion_tokens > 0
    calls = team.recorded_calls(tmp_path / chunks[0].id)
    assert {key.split("/")[2] for key in calls} == {"solution", "verification", "summary", "experience", "guideline"}

    short = curl(base_url, seed=1, tmas={"n_candidates": 2, "max_iterations": 1})
    candidate(short["choices"][0]["message"]["content"])
    assert short["tmas"]["iterations"] == 1
    assert 0 < short["usage"]["total_tokens"] < cost.usage.total_tokens

    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
