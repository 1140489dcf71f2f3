"""`tmas demo` on real vLLM with the policy that ships with the package, in small: TMAS's candidates become better."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.support.installed import needs_vllm
from tmas.testing.processes import writing_to

pytestmark = [pytest.mark.e2e, needs_vllm, pytest.mark.timeout(3600)]

SMALL = ["max_problems=12", "method.max_iterations=4"]
METHODS = ("tmas", "best_of_n", "majority_vote")


@pytest.mark.parametrize("server", ["running", pytest.param("its own", marks=pytest.mark.slow)])
def test_pass_at_1_rises_and_the_methods_generate_as_many_tokens(
    tmp_path: Path, server: str, request: pytest.FixtureRequest
):
    """The running server has the settings of conf/demo.yaml, which saves the start of another one."""
    command = [sys.executable, "-m", "tmas.cli", "demo", f"output_dir={tmp_path}", *SMALL]
    if server == "running":
        command += ["serving=endpoint", f"model.base_url={request.getfixturevalue('policy_server')}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Three methods with the same number of generated tokens per problem" in done.stdout
    assert writing_to(tmp_path) == {}  # the server has ended

    totals = {method: orjson.loads((tmp_path / method / "metrics.json").read_bytes()) for method in METHODS}
    rates = [iteration["pass_at_1"] for iteration in totals["tmas"]["iterations"]]
    assert rates[-1] > rates[0] + 0.15  # it rises by 0.3
    spent = {m: sum(role["completion_tokens"] for role in found["usage"].values()) for m, found in totals.items()}
    assert spent["best_of_n"] == pytest.approx(spent["tmas"], rel=0.1)
    assert spent["majority_vote"] == pytest.approx(spent["tmas"], rel=0.1)
