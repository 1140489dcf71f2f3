"""recipes/miniature/run.sh for real, as small as it goes: real vLLM, Ray and verl, and a policy that learns little."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="needs the cpu or gpu extra")
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
SMALL = {
    "QUICK": "1",
    "TRAIN": "48",
    "SPREAD": "8",
    "EASY": "8",
    "OTHER": "4",
    "TEST": "2",
    "STEPS": "1",
    "CHECK_STEPS": "20",
    "EASY_STEPS": "20",
    "REPLY_STEPS": "20",
    "SFT_STEPS": "20",
    "FORMS": "vanilla hybrid hybrid_verification",
}


def test_the_recipe_runs_from_problems_to_the_report_and_then_has_nothing_left_to_do(tmp_path: Path):
    environment = {
        **os.environ,
        **SMALL,
        "OUT": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    server_starts = []
    for _ in range(2):
        done = subprocess.run(
            [ROOT / "recipes/miniature/run.sh"], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        server_starts.append((tmp_path / "vllm.log").stat().st_mtime_ns)
    assert server_starts[0] == server_starts[1], "the second run started vLLM again"
    gates = json.loads((tmp_path / "gates.json").read_bytes())["gates"]
    assert {name for name, gate in gates.items() if gate["total"]} >= {"verification exact", "plain solving"}
    [compared] = json.loads((tmp_path / "evaluation.json").read_bytes())
    assert len(compared["groups"]) >= 7
    trained = {"vanilla-0", "hybrid-0", "hybrid_verification-0"}
    assert {run.parent.parent.name for run in tmp_path.glob("rl/*/policy/config.json")} == trained
    built = json.loads((tmp_path / "rows_verification" / "report.json").read_bytes())
    assert built["made"]["train.parquet"]["verification"] > 0
    assert (tmp_path / "evaluation.html").stat().st_size > 100_000
    assert (tmp_path / "trained.html").stat().st_size > 100_000
