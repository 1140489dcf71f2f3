"""The switches of `tmas train` act in real training steps on the CPU: each shows in the curves or the kept responses.

Switches that do not set the same keys share a run, because its start takes much longer than its two steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_train import left_behind, steps, task, tmas  # noqa: F401 - fixtures
from tmas.rewards.settings import AdvantageSettings
from tmas.training.rl.group_advantages import group_advantages
from tmas.training.rl.rollouts import KeptPrompt, kept_files, read_step

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]
Curves = dict[int, dict[str, Any]]
"""verl's metrics of each step."""


def trained(task: Path, output: Path, *settings: str) -> tuple[Curves, list[KeptPrompt]]:  # noqa: F811
    """Train for two steps with correctness alone; returns the curves and the prompts of the first step."""
    tmas(
        *("train", "experiment=grpo_cpu", f"output_dir={output}", f"policy.path={task}/sft/final"),
        *(f"data.train_files={task}/train.parquet", f"data.val_files={task}/val.parquet", "data.train_batch_size=8"),
        *("trainer.test_freq=-1", "trainer.val_before_train=false", "trainer.save_freq=-1"),
        *("trainer.total_training_steps=2", *settings),
    )
    curves = steps(output, 1)
    assert sorted(curves) == [1, 2]
    assert all(data["actor/grad_norm"] > 0 for data in curves.values())
    return curves, list(read_step(kept_files(output)[0])[1])


def test_dapo_dr_grpo_rejection_and_asynchronous_training_act_together(task: Path, tmp_path: Path):  # noqa: F811
    together = "switches=[async,dynamic_sampling,overlong_penalty,dr_grpo,rejection]"
    ahead = "trainer.v1.colocate_async.num_warmup_batches=4"  # with 1, the filter may drop all that step 1 leaves over
    curves, prompts = trained(task, tmp_path / "run", together, ahead, "data.max_response_length=14")
    assert curves[2]["training/off_policy/trajectory_staleness_worst/max"] >= 1  # begun with the weights before step 1
    assert sum(data.get("training/filter_groups/evicted_samples", 0) for data in curves.values()) > 0
    for prompt in prompts:
        assert {response.reward["acc"] for response in prompt.responses} == {0, 1}
    assert max(data["reward/all/overlong_penalty"] for data in curves.values()) > 0
    assert max(data["rollout_corr/rollout_rs_masked_fraction"] for data in curves.values()) > 0
    kept = [(prompt.uid, response) for prompt in prompts for response in prompt.responses]
    rewards, uids = [response.reward for _, response in kept], [uid for uid, _ in kept]
    computed = group_advantages(rewards, uids, AdvantageSettings(), "grpo", by_std=False)
    found = [(response.advantage, by_hand) for (_, response), by_hand in zip(kept, computed, strict=True)]
    trained_on = [pair for pair in found if pair[0]]  # a rejected response has the advantage 0
    assert trained_on
    assert [pair[0] for pair in trained_on] == pytest.approx([pair[1] for pair in trained_on], abs=1e-4)


def test_gspo_clips_whole_responses_and_icepop_leaves_out_tokens(task: Path, tmp_path: Path):  # noqa: F811
    narrow = "algorithm.rollout_correction.rollout_is_threshold='0.999_1.001'"  # on a CPU, the ratios are close to 1
    curves, _ = trained(task, tmp_path / "run", "switches=[gspo,icepop]", narrow)
    assert 0 < curves[1]["rollout_corr/rollout_is_oob_ratio"] < 1
    # It clipped 24 %. The clip of tokens, which is 700 times as wide, clipped up to 4 % in the test above.
    assert curves[1]["actor/pg_clipfrac"] > 0.1


def test_one_update_takes_vllms_probabilities(task: Path, tmp_path: Path):  # noqa: F811
    curves, _ = trained(task, tmp_path / "run", "switches=one_update")
    assert not [name for data in curves.values() for name in data if name.startswith("rollout_corr/")]
    assert "actor/entropy" not in curves[1]  # it belongs to the forward pass that is left out
    assert curves[1]["actor/ppo_kl"] != 0  # of vLLM's policy; of the trained policy it would be 0 with one update


def test_lora_trains_its_adapter_alone_and_the_exported_policy_has_it(task: Path, tmp_path: Path):  # noqa: F811
    from safetensors.torch import load_file

    run, model = tmp_path / "run", "actor_rollout_ref.model"
    lora = f"{model}.lora_rank=8", f"{model}.lora_alpha=16", f"{model}.target_modules=[q_proj,down_proj]"
    trained(task, run, *lora, "trainer.save_freq=2")
    tmas("export", f"checkpoint={run}", f"output_dir={tmp_path / 'policy'}")
    before, after = (
        load_file(folder / "model.safetensors") for folder in (task / "sft" / "final", tmp_path / "policy")
    )
    assert before.keys() == after.keys()
    changed = {name for name, weights in before.items() if not weights.equal(after[name].to(weights.dtype))}
    assert changed == {name for name in before if name.endswith(("q_proj.weight", "down_proj.weight"))}
