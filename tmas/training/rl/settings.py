"""The settings of ``tmas train`` that this project adds to those of verl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from tmas.judge import JudgeSettings
from tmas.rewards.settings import RewardSettings
from tmas.settings import Settings

REWARD_KEY = "reward.custom_reward_function.reward_kwargs.settings"
"""Configuration key of the reward's settings."""


class EstimateSettings(Settings):
    """The hardware that the estimate of ``dry_run`` is for, and what it assumes. Training itself ignores these."""

    device: str = Field(default="unknown", description="Name of the device, for display.")
    memory_gb: float | None = Field(default=None, gt=0, description="Memory of a device in 10^9 bytes. null: unknown.")
    tflops: float | None = Field(
        default=None, gt=0, description="Peak of a device in 10^12 dense bf16 FLOPs per second. null: no times."
    )
    memory_bandwidth_gb: float | None = Field(
        default=None, gt=0, description="Bandwidth of a device's memory in 10^9 bytes per second. null: no times."
    )
    link_gb: float = Field(
        default=450, gt=0, description="Bandwidth between the devices of a node, each way, in 10^9 bytes per second."
    )
    network_gb: float = Field(
        default=50, gt=0, description="Bandwidth between nodes for each device, each way, in 10^9 bytes per second."
    )
    host_link_gb: float = Field(
        default=50, gt=0, description="Bandwidth between a device and host memory, in 10^9 bytes per second."
    )
    price_per_hour: float | None = Field(
        default=None, ge=0, description="Price of one device for an hour, in any currency. null: no cost."
    )
    flops_utilization: float = Field(
        default=0.4, gt=0, le=1, description="Share of the peak FLOPs that forward and backward passes reach."
    )
    bandwidth_utilization: float = Field(
        default=0.6, gt=0, le=1, description="Share of the memory bandwidth that vLLM reaches in decoding."
    )
    engine_reserve_gb: float = Field(
        default=4, ge=0, description="vLLM's memory besides weights and KV cache, such as activations, in 10^9 bytes."
    )
    reserve_gb: float = Field(
        default=4,
        ge=0,
        description="Memory of a device that neither vLLM nor tensors use, such as CUDA contexts and NCCL's buffers,"
        " in 10^9 bytes.",
    )
    response_tokens: int | None = Field(
        default=None, gt=0, description="Mean length of a response in tokens. null: half of data.max_response_length."
    )


class PolicySettings(Settings):
    """The policy that training starts from."""

    path: str = Field(
        description="Folder or hub name of the model to train, for example the result of tmas sft. Short for"
        " actor_rollout_ref.model.path."
    )


class RolloutSettings(Settings):
    """What is kept of the responses of each step (docs/training.md). trainer.rollout_data_dir=null keeps nothing."""

    thinking: bool = Field(
        default=True,
        description="Keep the text of the thinking, too. false: only the final text, which the reward is computed"
        " from.",
    )
    max_gb: float = Field(
        default=20.0,
        gt=0,
        description="Largest size of all kept files together, in GB (10^9 bytes). Beyond it the earliest steps are"
        " removed.",
    )


class TrainSettings(Settings):
    """The keys of conf/train.yaml that verl does not have, and trainer.rollout_data_dir, whose files tmas writes."""

    output_dir: Path = Field(
        description="Run directory: checkpoints/, and starts/N/ with config.yaml and metrics.jsonl for each start. Run"
        " the same command again to resume from the last checkpoint.",
    )
    policy: PolicySettings = Field(description="The policy that training starts from.")
    judge: JudgeSettings | None = Field(
        default=None, description=f"The judge of the reward. Short for {REWARD_KEY}.judge."
    )
    rollout_data_dir: Path | None = Field(
        default=None,
        alias="trainer.rollout_data_dir",
        description="Folder in which the responses of each step are kept with their rewards and verdicts, for tmas"
        " rescore. null: none are kept.",
    )
    rollouts: RolloutSettings = Field(
        default=RolloutSettings(), alias="trainer.rollouts", description="What is kept of the responses."
    )
    reward: RewardSettings = Field(alias=REWARD_KEY, description="The settings of the reward (docs/rewards.md).")
    prompts: Path | None = Field(
        default=None,
        description="Folder whose judge_*.jinja files replace the judge's prompts (docs/prompts.md). null: the built-in"
        " prompts.",
    )
    dry_run: bool = Field(
        default=False,
        description="Check rows, lengths, batch sizes and settings, print the resource plan and an estimate of a step"
        " (docs/estimate.md), and stop.",
    )
    estimate: EstimateSettings = Field(
        default_factory=EstimateSettings,
        description="Hardware and assumptions of the estimate of dry_run; hardware=NAME sets them.",
    )
    updates_per_step: int = Field(
        default=4,
        ge=1,
        description="Number of updates of the policy per step, each on an equal share of the batch; it must divide"
        " data.train_batch_size. 1: one update on the whole batch, where the clip of the objective does nothing. Short"
        " for actor_rollout_ref.actor.ppo_mini_batch_size, which counts prompts per update.",
    )
    env: dict[str, Any] = Field(
        default_factory=dict,
        description="Environment variables of the trainer and of all processes that it starts. A variable that is"
        " already set in the environment takes precedence. Must not hold secrets.",
    )
