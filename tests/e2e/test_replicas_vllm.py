"""Several real vLLM servers on Ray: one is killed in the middle of its answers, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.installed import needs_vllm
from tests.support.waiting import wait_until
from tmas.files import read_lines
from tmas.testing import team
from tmas.testing.processes import writing_to

pytestmark = [pytest.mark.e2e, needs_vllm, pytest.mark.slow, pytest.mark.timeout(3600)]


def test_one_of_two_servers_is_killed(tmp_path: Path):
    subprocess.run([sys.executable, "-m", "tmas.engines.demo_model"], check=True)
    run = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "tmas.cli", "solve", "experiment=demo_smollm2", f"output_dir={run}"),
        *("serving.replicas=2", "method.max_iterations=2", "model.sampling.max_tokens=128", "ray.workers=2"),
    ]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    served = [run / "vllm-0.log", run / "vllm-1.log"]
    wait_until(lambda: all(log.exists() and "200 OK" in log.read_text() for log in served))
    wait_until(lambda: len(team.recorded_calls(run)) >= 4)
    victim = next(pid for pid, words in writing_to(run / "vllm-").items() if "vllm.entrypoints.cli.main serve" in words)
    os.kill(victim, signal.SIGKILL)
    before = team.recorded_calls(run)
    printed, _ = driver.communicate(timeout=900)
    assert driver.returncode == 0, printed
    lines = list(read_lines(run / "predictions.jsonl"))
    assert [line["stop"] for line in lines] == ["max_iterations"] * 3
    assert {line["reason"] for line in read_lines(run / "failures.jsonl")} <= {"truncated", "unparsable"}
    after = team.recorded_calls(run)
    assert before.items() <= after.items()
    assert set(Counter(entry["request"]["seed"] for entry in after.values()).values()) == {1}
    wait_until(lambda: not writing_to(run / "vllm-"))
