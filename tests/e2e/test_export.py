"""`tmas export` on a checkpoint that verl itself wrote, from two FSDP ranks on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny_sums
from tests.support.commands import tmas, tmas_process
from tmas.training.checkpoints import record_checkpoint

pytest.importorskip("verl", reason="needs the cpu or gpu extra")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``policy/``, and ``checkpoints/`` as a training run leaves them."""
    return training_run(tmp_path_factory.mktemp("run"))


def training_run(folder: Path, *form: str) -> Path:
    tiny_sums.write(folder, tiny_sums.problems(4))
    actor = folder / "checkpoints" / "global_step_4" / "actor"
    write = [sys.executable, "-m", "tests.support.fsdp_checkpoint", str(folder / "policy"), str(actor), *form]
    subprocess.run(write, check=True, cwd=ROOT, env={**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"})
    (folder / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("4")
    record_checkpoint(actor.parent, 4)
    return folder


def loaded(folder: Path) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_the_merged_policy_is_the_trained_one_with_its_template_and_generation_config(run: Path, tmp_path: Path):
    output = tmp_path / "models" / "trained"
    done = tmas_process("export", f"checkpoint={run}", f"output_dir={output}")
    assert done.returncode == 0, done.stderr
    assert "parameters, loaded successfully" in " ".join(done.stdout.split())  # a narrow console wraps

    before, after = loaded(run / "policy"), loaded(output)
    assert before.keys() == after.keys()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed == {"model.norm.weight"}  # as tests/support/fsdp_checkpoint.py trained it
    assert (before["model.norm.weight"] * 2).equal(after["model.norm.weight"])
    for kept in ("chat_template.jinja", "generation_config.json"):
        assert (output / kept).read_text() == (run / "policy" / kept).read_text()


@pytest.mark.parametrize("damage", ["torn", "a weight less"])
def test_a_damaged_shard_is_one_message_and_leaves_no_folder(run: Path, tmp_path: Path, damage: str):
    import torch

    shard = run / "checkpoints" / "global_step_4" / "actor" / "model_world_size_2_rank_1.pt"
    whole = shard.read_bytes()
    if damage == "torn":
        shard.write_bytes(whole[:-1000])
    else:
        weights = torch.load(shard, weights_only=False)
        del weights["model.norm.weight"]
        torch.save(weights, shard)
    done = tmas("export", f"checkpoint={run}", f"output_dir={tmp_path / 'damaged'}", "trust_checkpoint=true")
    shard.write_bytes(whole)
    assert done.returncode == 2
    assert "cannot be merged. A shard may be damaged" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_is_merged_into_the_weights(tmp_path: Path):
    """verl's merger writes the untrained weights, and the adapter to a folder of its own."""
    import torch

    run, output = training_run(tmp_path / "run", "lora"), tmp_path / "trained"
    scale = next(run.rglob("lora_train_meta.json")).rename(tmp_path / "scale.json")
    refused = tmas("export", f"checkpoint={run}", f"output_dir={output}")
    assert refused.returncode == 2
    assert "actor: has no lora_train_meta.json, so the scale of the adapter is unknown" in refused.stderr
    assert not output.exists()

    scale.rename(run / "checkpoints" / "global_step_4" / "actor" / "lora_train_meta.json")
    done = tmas("export", f"checkpoint={run}", f"output_dir={output}")
    assert done.returncode == 0, done.stderr
    assert not (output / "lora_adapter").exists()

    shards = [torch.load(shard, weights_only=False) for shard in sorted(run.rglob("model_world_size_2_rank_*.pt"))]
    whole = {name: torch.cat([shard[name].to_local() for shard in shards]) for name in shards[0]}
    before, after = ({n: w.float() for n, w in loaded(folder).items()} for folder in (run / "policy", output))
    assert before.keys() == after.keys()
    for name, weights in after.items():
        layer, expected = f"base_model.model.{name.removesuffix('.weight')}", before[name]
        if name.endswith(("q_proj.weight", "up_proj.weight")):
            a, b = (whole[f"{layer}.lora_{matrix}.default.weight"] for matrix in "AB")
            expected = expected + 8 / 4 * b @ a
            assert not torch.allclose(expected, before[name], atol=0.1)
        assert torch.allclose(weights, expected, atol=0.03, rtol=0.02), name  # bf16
