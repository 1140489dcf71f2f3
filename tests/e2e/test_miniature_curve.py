"""The shipped policy as an instrument: a change of prompts, memory or packing that hurts TMAS lowers its curve."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.support.installed import needs_vllm
from tests.support.miniature import SHIPPED
from tmas.miniature import PROBLEMS

pytestmark = [pytest.mark.e2e, needs_vllm, pytest.mark.slow, pytest.mark.timeout(3600)]

SOLVE = [
    *(sys.executable, "-m", "tmas.cli", "solve", "experiment=miniature", *SHIPPED, f"problems={PROBLEMS}"),
    *("max_problems=30", "method.n_candidates=4", "method.n_verifications=1", "method.max_iterations=6"),
    "method.epsilon=0.25",
]
PASS_AT_1 = [(0.05, 0.16), (0.18, 0.42), (0.27, 0.54), (0.32, 0.58), (0.35, 0.62), (0.35, 0.63)]
SELECTED = (0.63, 0.90)
"""95 % intervals over the problems, by iteration, as `tmas evaluate` printed them for this command."""


def test_the_curve_stays_within_its_interval(tmp_path: Path):
    done = subprocess.run([*SOLVE, f"output_dir={tmp_path}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    totals = orjson.loads((tmp_path / "metrics.json").read_bytes())
    curve = [iteration["pass_at_1"] for iteration in totals["iterations"]]
    for rate, (low, high) in zip([*curve, totals["selected_accuracy"]], [*PASS_AT_1, SELECTED], strict=True):
        assert low <= rate <= high, curve
