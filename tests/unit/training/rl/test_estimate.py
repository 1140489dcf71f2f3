"""training/rl/estimate.py: the composed presets of the paper's models, against figures that were worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytest.importorskip("verl")

from omegaconf import DictConfig

from tests.support.composing import CONF, resolved_training
from tmas.training.rl.estimate import (
    GB,
    EstimateSettings,
    checkpoint_bytes,
    generation,
    load_estimate_settings,
    logit_bytes,
    trained_parameters,
    training_memory,
    training_time,
    workload,
)
from tmas.training.rl.estimate_entries import estimate_entries
from tmas.training.rl.inputs import RowFile
from tmas.training.rl.model_shape import KNOWN

DENSE, EXPERTS = KNOWN["Qwen3-4B-Thinking-2507"], KNOWN["Qwen3-30B-A3B-Thinking-2507"]
MODEL, ROLLOUT = "actor_rollout_ref.model", "actor_rollout_ref.rollout"
ROWS = RowFile(
    Path("rows"), {"normal": 200, "experience": 150, "guideline": 50}, 9000, judged=40, labels={}, mean_prompt=2000.0
)
Composed = Callable[..., tuple[DictConfig, EstimateSettings]]


@pytest.fixture(scope="module")
def composed() -> Composed:
    def composed(experiment: str, *overrides: str) -> tuple[DictConfig, EstimateSettings]:
        judge = ("judge.name=j", "judge.base_url=http://j/v1")
        config = resolved_training(f"experiment={experiment}", "output_dir=out", *judge, *overrides)
        settings = load_estimate_settings(config, [])
        assert settings
        return config, settings

    return composed


def test_4b_on_one_node_takes_as_long_as_the_audit_worked_out(composed: Composed):
    """21 minutes of rollout and 6 of training a step; ours is 4.5 of training, since it assumes 40 % of the peak."""
    config, settings = composed("hybrid_grpo")
    work = workload(config, settings, [])
    assert (work.prompt, work.response, work.responses) == (6144, 16384, 512)
    seconds, times = generation(config, DENSE, settings, work).seconds, training_time(config, DENSE, settings, work)
    assert seconds
    assert times
    assert seconds / 60 == pytest.approx(21, abs=1)
    assert (times.log_probs + times.update) / 60 == pytest.approx(4.5, abs=0.2)
    slower = settings.model_copy(update={"flops_utilization": 0.3})
    times = training_time(config, DENSE, slower, work)
    assert times
    assert (times.log_probs + times.update) / 60 == pytest.approx(6, abs=0.2)


def test_a_checkpoint_of_30b_has_366_gb(composed: Composed):
    config, _ = composed("hybrid_grpo_30b")
    assert checkpoint_bytes(config, EXPERTS) / GB == pytest.approx(366, abs=1)
    config.actor_rollout_ref.actor.checkpoint.save_contents = ["model", "hf_model"]
    assert checkpoint_bytes(config, EXPERTS) == 6 * EXPERTS.parameters


def test_a_critic_saves_and_trains_as_much_again(composed: Composed):
    (grpo, settings), (ppo, _) = composed("hybrid_grpo"), composed("hybrid_ppo")
    assert checkpoint_bytes(ppo, DENSE) == 2 * checkpoint_bytes(grpo, DENSE)
    work = workload(grpo, settings, [])
    one, two = (training_time(config, DENSE, settings, work) for config in (grpo, ppo))
    assert one
    assert two
    assert (two.update, two.log_probs) == (2 * one.update, 2 * one.log_probs)
    ppo.critic.model.enable_gradient_checkpointing = False
    faster = training_time(ppo, DENSE, settings, work)
    assert faster
    assert faster.update == pytest.approx((1 + 3 / 4) * one.update)


def test_memory_is_sharded_over_all_devices(composed: Composed):
    config, settings = composed("hybrid_grpo")
    parts = training_memory(config, DENSE, workload(config, settings, []))
    assert parts["optimizer"] == 8 * DENSE.parameters / 8
    config.trainer.nnodes = 2
    assert training_memory(config, DENSE, workload(config, settings, []))["optimizer"] == parts["optimizer"] / 2


def test_memory_is_sharded_over_the_devices_of_a_group(composed: Composed):
    """With fsdp_size, each group of devices has a copy of the weights."""
    config, settings = composed("hybrid_grpo_30b")
    work = workload(config, settings, [])
    assert training_memory(config, EXPERTS, work)["optimizer"] == 8 * EXPERTS.parameters / 32
    config.actor_rollout_ref.actor.fsdp_config.fsdp_size = 8
    assert training_memory(config, EXPERTS, work)["optimizer"] == 8 * EXPERTS.parameters / 8
    assert "DOES NOT FIT" not in dict(estimate_entries(config, DENSE, settings, [], []))["memory of update"]


def test_a_reference_policy_takes_host_memory_and_dynamic_sampling_is_not_counted(composed: Composed):
    config, settings = composed("hybrid_grpo")
    alone = dict(estimate_entries(config, DENSE, settings, [], []))
    config.actor_rollout_ref.actor.use_kl_loss = True
    config.algorithm.filter_groups.enable = True
    entries = dict(estimate_entries(config, DENSE, settings, [], []))
    assert [found["host memory"].split(" per")[0] for found in (alone, entries)] == ["48 GB", "64 GB"]
    assert "dynamic sampling" in entries["tokens per step"]
    assert "dynamic sampling" not in alone["tokens per step"]


@pytest.mark.parametrize(
    ("fused", "chunked", "gb"), [("false", "false", 29.9), ("false", "true", 13.7), ("true", "true", 1.2)]
)
def test_logits_of_log_probs_shrink_with_chunks_and_fused_kernels(
    fused: str, chunked: str, gb: float, composed: Composed
):
    chunking = f"actor_rollout_ref.actor.entropy_from_logits_with_chunking={chunked}"
    config, _ = composed("hybrid_grpo", f"{MODEL}.use_fused_kernels={fused}", chunking)
    assert logit_bytes(config, DENSE, 32_768, entropy=True) / GB == pytest.approx(gb, abs=0.1)


def test_a_larger_share_for_vllm_holds_more_responses_and_is_faster(composed: Composed):
    made = []
    for share in (0.6, 0.8):
        config, settings = composed("hybrid_grpo", f"{ROLLOUT}.gpu_memory_utilization={share}")
        made.append(generation(config, DENSE, settings, workload(config, settings, [])))
    small, large = made
    assert small.concurrency
    assert large.concurrency
    assert small.concurrency < large.concurrency
    assert small.seconds
    assert large.seconds
    assert large.seconds < small.seconds
    assert large.cache == pytest.approx((0.8 * 85 - 4) * GB - 2 * DENSE.parameters)


def test_data_parallel_ranks_of_vllm_are_one_replica(composed: Composed):
    """Two ranks of a dense policy do what two replicas do. Experts are spread over both ranks, all else is copied."""
    made = []
    for ranks in (1, 2):
        config, settings = composed("hybrid_grpo", f"{ROLLOUT}.data_parallel_size={ranks}")
        work = workload(config, settings, [])
        made.append((generation(config, DENSE, settings, work), generation(config, EXPERTS, settings, work)))
    (one, experts), (two, spread_experts) = made
    assert one.seconds
    assert one.tokens_per_second
    assert one.concurrency
    assert (two.weights, two.cache, two.concurrency) == (one.weights, one.cache, 2 * one.concurrency)
    assert (two.seconds, two.tokens_per_second) == pytest.approx((one.seconds, one.tokens_per_second))
    assert experts.weights - spread_experts.weights == 48 * 128 * 3 * 2048 * 768 * 2 / 2


def test_the_judge_is_asked_by_source_and_per_pass(composed: Composed):
    """150 + 50 rows of 400 have a bonus, and 40 answers need a judge: 240 / 400 of 512 responses."""
    asked = {}
    for experiment in ("hybrid_grpo", "vanilla_grpo"):
        config, settings = composed(experiment, "judge.passes=2")
        asked[experiment] = workload(config, settings, [ROWS]).judge_calls
    assert asked == {"hybrid_grpo": pytest.approx(614.4), "vanilla_grpo": pytest.approx(102.4)}


def test_the_mean_prompt_is_that_of_the_rows(composed: Composed):
    config, settings = composed("hybrid_grpo", "estimate.response_tokens=9000")
    work = workload(config, settings, [ROWS])
    assert (work.prompt, work.response) == (2000, 9000)


def test_the_presets_fit_their_hardware_and_cost_what_the_price_says(composed: Composed):
    for experiment, shape in (("hybrid_grpo", DENSE), ("hybrid_ppo", DENSE), ("hybrid_grpo_30b", EXPERTS)):
        config, settings = composed(experiment, "estimate.price_per_hour=2", "trainer.total_training_steps=10")
        entries = dict(estimate_entries(config, shape, settings, [ROWS], [ROWS]))
        assert [name for name, text in entries.items() if "; fits 85 GB" in text] == [
            f"memory of {phase}" for phase in ("update", "log-probs", "rollout")
        ]
        assert "for 10 steps" in entries["cost"]
        assert entries["validation"].startswith("128 rows x 4 samples, ")


def test_what_does_not_fit_is_said(composed: Composed):
    config, settings = composed("hybrid_grpo", f"{ROLLOUT}.gpu_memory_utilization=0.99", "estimate.memory_gb=40")
    entries = dict(estimate_entries(config, EXPERTS, settings, [], []))
    assert "DOES NOT FIT 40 GB" in entries["memory of rollout"]


def test_without_the_memory_of_a_gpu_its_cache_is_unknown(composed: Composed):
    config, settings = composed("hybrid_grpo", "estimate.memory_gb=null")
    entries = dict(estimate_entries(config, DENSE, settings, [ROWS], [ROWS]))
    unknown = "unknown: estimate.memory_gb is not set"
    assert [entries[name] for name in ("generation", "time per step", "memory of rollout")] == [unknown] * 3
    assert "fit" not in entries["memory of update"]
    assert entries["validation"] == "128 rows x 4 samples, every 20 steps"


def test_a_cpu_has_an_estimate_without_times(composed: Composed):
    config, settings = composed("grpo_cpu", "policy.path=p")
    entries = dict(estimate_entries(config, DENSE, settings, [], []))
    assert entries["time per step"].startswith("unknown: estimate.tflops")
    assert "KV cache 1.1" in entries["memory of rollout"]
    assert "fit" not in entries["memory of update"]


def test_wrong_settings_are_defects_with_their_keys(composed: Composed):
    config, _ = composed("hybrid_grpo")
    defects: list[str] = []
    config.estimate = {"tflops": 0, "speed": 1}
    assert load_estimate_settings(config, defects) is None
    assert [defect.split(":")[0] for defect in defects] == ["estimate.tflops", "estimate.speed"]


@pytest.mark.parametrize("hardware", ["one_node", "cpu"])
def test_every_setting_of_the_estimate_is_in_the_presets(hardware: str):
    """Hydra refuses a key on the command line that no file has. multi_node includes one_node."""
    preset = yaml.safe_load((CONF / "hardware" / f"{hardware}.yaml").read_text("utf-8"))
    assert preset["estimate"].keys() == EstimateSettings.model_fields.keys()


def test_an_adapter_is_all_that_lora_trains(composed: Composed):
    """Rank 32 on Qwen3-4B: 36 layers x 32 x (2 x (2560 + 4096) + 2 x (2560 + 1024) + 3 x (2560 + 9728))."""
    config, settings = composed("hybrid_grpo")
    work, adapter = workload(config, settings, []), 36 * 32 * (2 * 6656 + 2 * 3584 + 3 * 12288)
    before, whole = training_memory(config, DENSE, work), training_time(config, DENSE, settings, work)
    config.actor_rollout_ref.model.update({"lora_rank": 32, "target_modules": "all-linear"})
    assert trained_parameters(config, DENSE) == adapter
    after, times = training_memory(config, DENSE, work), training_time(config, DENSE, settings, work)
    assert after["optimizer"] == 8 * adapter / 8
    assert after["gradients"] < before["gradients"] / 50
    assert {part for part in before if after[part] != before[part]} == {"optimizer", "gradients"}
    assert whole
    assert times
    assert times.update == pytest.approx(whole.update * 3 / 4)  # no gradients of the policy's own weights
    assert times.sync < whole.sync
    assert checkpoint_bytes(config, DENSE) == 4 * (DENSE.parameters + adapter) + 8 * adapter
    config.actor_rollout_ref.model.target_modules = ["q_proj", "v_proj"]
    assert trained_parameters(config, DENSE) == 36 * 32 * (6656 + 3584)


def test_experts_have_no_adapter(composed: Composed):
    """transformers keeps the experts of a layer in one tensor, which is no linear layer."""
    config, _ = composed("hybrid_grpo_30b")
    config.actor_rollout_ref.model.update({"lora_rank": 16, "target_modules": "all-linear"})
    assert trained_parameters(config, EXPERTS) == 48 * 16 * 2 * (2048 + 4096 + 2048 + 512)
