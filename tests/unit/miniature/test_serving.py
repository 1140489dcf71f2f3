"""recipes/miniature/serving.py: a command and the server that it uses end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]
COMMAND = 'trap "echo ended >> $0; exit 7" TERM; echo "$MODEL_URL $MODEL_NAME" > "$0.tmp"; mv "$0.tmp" "$0"; '
WAIT = "while :; do sleep 0.1; done"


def start(folder: Path, script: str) -> subprocess.Popen[bytes]:
    path = f"{ROOT / 'tests/support/vllm_stand_in'}:{ROOT}"
    environment = {**os.environ, "PYTHONPATH": path, "STAND_IN": json.dumps({"log": str(folder)}), "VLLM_API_KEY": "k"}
    given = ["policy", "small", str(folder / "vllm.log"), "sh", "-c", script, str(folder / "told")]
    return subprocess.Popen([sys.executable, "-m", "recipes.miniature.serving", *given], env=environment)


def test_the_exit_code_is_that_of_the_command_which_knows_the_server(tmp_path: Path) -> None:
    assert start(tmp_path, COMMAND + "exit 3").wait() == 3
    url, name = (tmp_path / "told").read_text().split()
    assert url.startswith("http://127.0.0.1:")
    assert name == "small"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_too(tmp_path: Path, number: signal.Signals) -> None:
    serving = start(tmp_path, COMMAND + WAIT)
    wait_until((tmp_path / "told").exists)
    serving.send_signal(number)
    assert serving.wait() != 0
    assert (tmp_path / "told").read_text().splitlines()[-1] == "ended"
