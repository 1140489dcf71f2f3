"""The whole data pipeline on real files, real vLLM and a real small model, into rows that `tmas train` trains on.

GSM8K's training file is the source; MATH-500 and AIME 2024 are sources too, to see that decontamination finds them.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from pyarrow import parquet

from tests.support.benchmarks import DATA, needs_data
from tests.support.installed import needs_vllm
from tmas.engines.demo_model import build_smollm2
from tmas.files import read_lines
from tmas.training.rows import read_rows, validate_rows

pytestmark = [pytest.mark.e2e, needs_vllm, pytest.mark.slow, needs_data, pytest.mark.timeout(3600)]

SERVED = [
    *("model=smollm2", "serving=vllm", "model.sampling.max_tokens=320", "method.agents.answer_format=stated"),
    "model.send_seed=false",  # vLLM on a CPU dies of a seeded request whose prefill is split
    *("+serving.args.max-num-seqs=32", "+serving.args.enforce-eager=true", "+serving.args.dtype=bfloat16"),
    '+serving.env={VLLM_CPU_KVCACHE_SPACE: "2", VLLM_CPU_NUM_OF_RESERVED_CPU: "0", HF_HUB_OFFLINE: "1"}',
]
TEAM = [
    *("method.n_candidates=3", "method.n_verifications=2", "method.max_iterations=2", "method.epsilon=0.4"),
    *("method.agents.parse_attempts=2", "method.agents.structured_verification=true"),
    *("method.agents.summary_words=60", "method.agents.max_new_items=2"),
]
MICRO_BATCHES = ("actor.ppo", "ref.log_prob", "rollout.log_prob")
LONGEST = 1000
"""Tokens of a prompt."""


def tmas(*words: str) -> str:
    command = [sys.executable, "-c", "from tmas.cli.main import main; main()", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def report(folder: Path) -> dict[str, Any]:
    return orjson.loads((folder / "report.json").read_bytes())


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `collect`, `filter`, `distill` and `build` leave."""
    folder = tmp_path_factory.mktemp("data")
    model = build_smollm2()
    slice_ = folder / "gsm8k.jsonl"
    with (DATA / "gsm8k" / "train.jsonl").open() as lines:
        slice_.write_text("".join(itertools.islice(lines, 24)))
    exams = folder / "exams.jsonl"
    known = [p for f in ("math500/math500.json", "aime24/aime24.json") for p in json.loads((DATA / f).read_text())[:20]]
    exams.write_text("".join(json.dumps({"question": p["prompt"], "answer": p["answer"]}) + "\n" for p in known))
    given = f"workspace={folder}"
    tmas(
        *(
            "collect",
            given,
            f"benchmarks_dir={DATA}",
            "benchmarks.hle_math_100.files=[]",
            "source=[gsm8k,local]",
            f"source.gsm8k.files=[{slice_}]",
        ),
        *(f"source.local.files=[{exams}]", "source.local.origin=MATH-500 and AIME 2024", "source.local.licence=mit"),
    )
    tmas("filter", given, *SERVED, "method.n_candidates=4", "min_pass_rate=0", "max_pass_rate=0.9", "max_problems=12")
    tmas("distill", given, *SERVED, *TEAM, "limits.tokens_per_run=400000", "max_problems=6")
    tmas(
        *("build", given, f"tokenizer={model}", f"max_prompt_tokens={LONGEST}", "validation_share=0.25"),
        *("rows.normal=4", "rows.experience=6", "rows.guideline=4", "sft.per_role=4"),
    )
    return folder


def test_benchmark_problems_among_the_sources_are_found(workspace: Path):
    removed = Counter(line["problem_id"].split("-")[0] for line in read_lines(workspace / "pool" / "removed.jsonl"))
    assert removed == {"local": 40}
    assert report(workspace / "pool")["kept"] == 24


def test_the_policy_was_sampled_and_the_teacher_ran_every_role(workspace: Path):
    found = report(workspace / "filtered")
    assert found["problems"] == sum(found["histogram"].values()) == 12
    assert found["kept"] >= 6
    usage = orjson.loads((workspace / "teacher" / "metrics.json").read_bytes())["usage"]
    assert usage.keys() == {"solution", "verification", "summary", "experience", "guideline"}
    assert all(role["completion_tokens"] > 0 for role in usage.values())


def test_the_rows_are_real_and_valid(workspace: Path):
    rows = workspace / "rows"
    total = sum(validate_rows(file) for file in (rows / "train.parquet", rows / "validation.parquet"))
    found = [row for split in ("train", "validation") for row in read_rows(rows / f"{split}.parquet")]
    assert len(found) == total
    assert {row.source for row in found} == {"normal", "experience", "guideline"}
    assert max(size["max"] for size in report(rows)["tokens"]["train.parquet"].values()) <= LONGEST - 64
    sent = {
        json.dumps(entry["messages"])
        for file in (workspace / "teacher" / "trace").iterdir()
        for entry in read_lines(file)
        if entry["type"] == "prompt"
    }
    normal = [row for row in found if row.source == "normal" and row.extra_info.problem_id in finished(workspace)]
    assert all(json.dumps([m.model_dump() for m in row.prompt]) in sent for row in normal)


def finished(workspace: Path) -> set[str]:
    return {line["problem_id"] for line in read_lines(workspace / "teacher" / "predictions.jsonl")}


def test_the_card_and_the_page_are_there_and_chats_have_an_answer(workspace: Path):
    rows = workspace / "rows"
    assert "openai/gsm8k@740312a" in (rows / "README.md").read_text()
    assert (rows / "look.html").stat().st_size > 5000
    made = report(rows)["made"]["sft_train.parquet"]  # a teacher of this size may succeed in nothing
    chats = parquet.read_table(rows / "sft_train.parquet").to_pylist() if made else []
    assert Counter(chat["role"] for chat in chats) == made
    assert all(chat["messages"][-1]["role"] == "assistant" for chat in chats)


def test_two_steps_of_training_on_the_rows(workspace: Path):
    """GRPO on verl, with correctness alone."""
    rows = workspace / "rows"
    small = {
        **{"data.train_batch_size": 4, "data.max_prompt_length": LONGEST, "data.max_response_length": 48},
        **{"actor_rollout_ref.actor.ppo_mini_batch_size": 4, "actor_rollout_ref.rollout.n": 2},
        **{f"actor_rollout_ref.{part}_micro_batch_size_per_gpu": 4 for part in MICRO_BATCHES},
        "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes": 256,
        **{"trainer.total_training_steps": 2, "trainer.save_freq": -1, "trainer.test_freq": -1},
        "trainer.val_before_train": "false",
    }
    output = tmas(
        *("train", "experiment=grpo_cpu", f"output_dir={workspace / 'train'}"),
        *(f"policy.path={build_smollm2()}", f"data.train_files={rows / 'train.parquet'}"),
        f"data.val_files={rows / 'validation.parquet'}",
        *(f"{key}={value}" for key, value in small.items()),
    )
    [metrics] = (workspace / "train" / "starts").rglob("metrics.jsonl")
    steps = [line["step"] for line in read_lines(metrics)]
    assert steps == [1, 2], output
