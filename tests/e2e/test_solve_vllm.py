"""`tmas solve` on real vLLM with the shipped policy: all five agents, both modes, killed, and resumed on Ray."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from pathlib import Path

import orjson
import pytest

from tests.support.commands import TMAS, tmas, tmas_process
from tests.support.installed import needs_vllm
from tests.support.policy_server import PLAYED
from tests.support.waiting import wait_until
from tmas.files import read_lines
from tmas.miniature import PROBLEMS
from tmas.run.trace import read_calls

pytestmark = [pytest.mark.e2e, needs_vllm, pytest.mark.timeout(3600)]

SIZE = 8
SOLVE = [
    *("solve", "experiment=miniature", *PLAYED, f"problems={PROBLEMS}", f"max_problems={SIZE}"),
    *("method.n_candidates=4", "method.n_verifications=1"),
    *("method.max_iterations=4", "method.epsilon=0.5"),
]


def calls(run: Path) -> Counter[tuple[str, ...]]:
    """How often each call stands in the traces, by problem, iteration, role, index and attempt."""
    found = [call for file in (run / "trace").glob("*.jsonl") for call in read_calls(file)]
    return Counter(tuple(map(str, call.key.model_dump().values())) for call in found)


def test_all_agents_both_modes_kill_and_resume(tmp_path: Path, policy_server: str):
    run = tmp_path / "run"
    command = [*SOLVE, f"output_dir={run}"]
    on_server = [*command, f"model.base_url={policy_server}"]

    killed = subprocess.Popen([*TMAS, *on_server], stdout=subprocess.DEVNULL)
    wait_until(lambda: sum(calls(run).values()) >= 8)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = calls(run)

    done = tmas_process(*on_server, "ray.workers=2")  # who works, and where, makes no difference to a run
    assert done.returncode == 0, done.stderr
    after = calls(run)
    assert before.keys() <= after.keys()
    assert set(after.values()) == {1}  # no finished call was made again

    lines = list(read_lines(run / "predictions.jsonl"))
    assert [len(line["iterations"]) for line in lines] == [4] * SIZE
    modes = {c["mode"] for line in lines for i in line["iterations"] for c in i["candidates"]}
    assert modes == {"initial", "exploit", "explore"}
    totals = orjson.loads((run / "metrics.json").read_bytes())
    assert totals["iterations"][-1]["pass_at_1"] > totals["iterations"][0]["pass_at_1"]  # by 0.3
    usage = totals["usage"]
    assert usage.keys() == {"solution", "verification", "summary", "experience", "guideline"}
    assert all(role["prompt_tokens"] > 0 and role["completion_tokens"] > 0 for role in usage.values())
    assert all(line["iterations"][-2][bank] for line in lines for bank in ("experience_bank", "guideline_bank"))

    # Finished: the same command asks no server (nobody listens there) and gives the same result.
    again = tmas(*command, "model.base_url=http://127.0.0.1:9/v1")
    assert again.returncode == 0, again.stderr
    assert list(read_lines(run / "predictions.jsonl")) == lines
    assert "Tokens by role" in again.stdout
