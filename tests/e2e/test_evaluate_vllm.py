"""`tmas evaluate` with a small model on real vLLM as its judge: structured outputs, passes, the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from tests.support.runs import candidate, iteration, prediction, write_run
from tmas.config import ModelSettings, ServingSettings
from tmas.evaluation.evaluate import EvaluateSettings, evaluate
from tmas.inference.run_directory import read_lines
from tmas.inference.vllm_server import free_port, vllm_server
from tmas.judges import JudgeSettings
from tmas.localmodel import build_smollm2

pytest.importorskip("vllm", reason="needs the cpu or gpu extra")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

DEMO = yaml.safe_load((Path(__file__).parents[2] / "conf" / "experiment" / "demo_smollm2.yaml").read_text())
ANSWERS = ["12", "12.0", r"\frac{24}{2}", "13", "all odd n"]


@pytest.fixture(scope="module")
def small_model() -> Path:
    return build_smollm2()


async def test_a_real_judge_gives_verdicts_that_can_be_read_and_are_kept(tmp_path: Path, small_model: Path):
    run = write_run(tmp_path / "run", [prediction("p", "12", [iteration([candidate(a) for a in ANSWERS], "12")])])
    serving = ServingSettings.model_validate({"name": "vllm", **DEMO["serving"]})
    port = free_port("127.0.0.1")
    judge = JudgeSettings.model_validate(
        {"name": "small", "base_url": f"http://127.0.0.1:{port}/v1", "passes": 3, "sampling": {"max_tokens": 1500}}
    )
    model = ModelSettings(name="small", path=str(small_model), context_length=4096)
    async with vllm_server(model, serving, port, tmp_path / "vllm.log"):
        [found] = await evaluate(EvaluateSettings(runs=(run,), judge=judge))
    assert_judged(found, run)
    [again] = await evaluate(EvaluateSettings(runs=(run,), judge=judge))  # the server is gone, the verdicts are not
    assert again["verdicts"]["judge"] | {"failed": {}} == found["verdicts"]["judge"] | {"failed": {}}


def assert_judged(found: dict[str, Any], run: Path) -> None:
    """The model is too small to judge well: what is tested is that its verdicts come and are of the right form."""
    counts = found["verdicts"]["judge"]
    given = counts["equivalent"] + counts["different"]
    assert counts["not_asked"] == 1  # the gold answer itself
    assert given + sum(counts["failed"].values()) == 3 * (len(ANSWERS) - 1)
    assert counts["failed"].keys() <= {"judge"}  # a text that rambles on is cut short; what ends is always valid
    assert given >= 6
    lines = list(read_lines(run / "judgements.jsonl"))
    assert {line["verdict"] for line in lines} <= {"equivalent", "different", None}
    assert orjson.loads((run / "evaluation.json").read_bytes()) == found
