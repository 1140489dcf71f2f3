"""`tmas solve` on real vLLM with a real small model: all five agents, both modes, killed and resumed, then on Ray."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import orjson
import pytest

from tests.support.waiting import wait_until
from tmas.files import read_lines
from tmas.run.trace import read_trace
from tmas.testing.processes import writing_to

pytest.importorskip("vllm", reason="needs the cpu or gpu extra")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

TMAS = [sys.executable, "-c", "from tmas.cli.main import main; main()", "solve", "experiment=demo_smollm2"]
SMALL = [
    *("max_problems=2", "method.n_candidates=3", "method.max_iterations=2", "method.epsilon=0.5"),
    *("model.sampling.max_tokens=128", "model.roles.experience.sampling.max_tokens=256"),
]


def calls(run: Path) -> Counter[tuple[str, ...]]:
    """How often each call stands in the traces, by problem, iteration, role, index and attempt."""
    entries = [e for file in (run / "trace").glob("*.jsonl") for e in read_trace(file) if e["type"] == "call"]
    return Counter(tuple(map(str, e["key"].values())) for e in entries)


def test_all_agents_both_modes_kill_and_resume(tmp_path: Path):
    subprocess.run([sys.executable, "-m", "tmas.engines.demo_model"], check=True)
    run = tmp_path / "run"
    command = [*TMAS, *SMALL, f"output_dir={run}"]

    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_until(lambda: run.exists() and sum(calls(run).values()) >= 8, 600)
    assert writing_to(run / "vllm")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    wait_until(lambda: not writing_to(run / "vllm"), 60)  # a run that is killed leaves no server behind
    before = calls(run)

    on_ray = [*command, "ray.workers=2"]  # who works, and where, makes no difference to a run
    done = subprocess.run(on_ray, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (run / "vllm-0.log").exists()
    after = calls(run)
    assert before.keys() <= after.keys()
    assert set(after.values()) == {1}  # no finished call was made again
    assert writing_to(run / "vllm") == {}

    lines = list(read_lines(run / "predictions.jsonl"))
    assert [len(line["iterations"]) for line in lines] == [2, 2]
    modes = {c["mode"] for line in lines for i in line["iterations"] for c in i["candidates"]}
    assert modes == {"initial", "exploit", "explore"}
    usage = orjson.loads((run / "metrics.json").read_bytes())["usage"]
    assert usage.keys() == {"solution", "verification", "summary", "experience", "guideline"}
    assert all(role["prompt_tokens"] > 0 and role["completion_tokens"] > 0 for role in usage.values())
    assert any(line["iterations"][-1]["experience_bank"] for line in lines)
    assert any(line["iterations"][-1]["guideline_bank"] for line in lines)

    # Finished: the same command starts no server and gives the same result.
    logs = {log: log.stat().st_size for log in run.glob("vllm*.log")}
    again = subprocess.run(on_ray, capture_output=True, text=True, check=True)
    assert {log: log.stat().st_size for log in run.glob("vllm*.log")} == logs
    assert list(read_lines(run / "predictions.jsonl")) == lines
    assert "Tokens by role" in again.stdout
