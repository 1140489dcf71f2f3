"""run/models.py: several runs on one server, a stand-in for vLLM that is started only when a run needs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tmas.api import run
from tmas.files import read_lines
from tmas.run.models import SharedServers
from tmas.settings import RunSettings
from tmas.testing import team

ROOT = Path(__file__).parents[3]


async def solve(folder: Path, *methods: str) -> None:
    """One problem by each method, all on the same servers, each in a folder of its own."""
    told = json.dumps({"log": str(folder), "seconds": 0})
    env = {"PYTHONPATH": f"{ROOT / 'tests/support/vllm_stand_in'}:{ROOT}", "STAND_IN": told}
    async with SharedServers(folder) as servers:
        for method in methods:
            settings: dict[str, Any] = {
                "model": team.model("", path="/models/small", tokenizer="estimate"),
                "method": team.small(method),
                "serving": {"name": "vllm", "env": env},
            }
            await run(team.problems(1), RunSettings.model_validate(settings), folder / method, servers=servers)


def started(folder: Path) -> int:
    """Servers so far: each has a log of its own."""
    return len(list(folder.glob("*.jsonl")))


async def test_two_runs_have_one_server_and_finished_ones_have_none(tmp_path: Path):
    await solve(tmp_path, "tmas", "majority_vote")
    assert started(tmp_path) == 1
    assert [len(list(read_lines(tmp_path / m / "predictions.jsonl"))) for m in ("tmas", "majority_vote")] == [1, 1]
    await solve(tmp_path, "tmas", "majority_vote")
    assert started(tmp_path) == 1
    await solve(tmp_path, "tmas", "best_of_n")  # the second has something left to do
    assert started(tmp_path) == 2
