"""The settings of ``tmas train`` that this project adds to those of verl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from tmas.judge import JudgeSettings
from tmas.rewards.settings import RewardSettings
from tmas.settings import Settings
from tmas.training.rl.inputs import REWARD_KEY


class PolicySettings(Settings):
    """The policy that training starts from."""

    path: str = Field(
        description="Folder or hub name of the model to train, for example the result of tmas sft. Short for"
        " actor_rollout_ref.model.path."
    )


class TrainSettings(Settings):
    """The keys of conf/train.yaml that verl does not have."""

    output_dir: Path = Field(
        description="Run directory: checkpoints/, and starts/N/ with config.yaml and metrics.jsonl for each start. Run"
        " the same command again to resume from the last checkpoint.",
    )
    policy: PolicySettings = Field(description="The policy that training starts from.")
    judge: JudgeSettings | None = Field(
        default=None, description=f"The judge of the reward. Short for {REWARD_KEY}.judge."
    )
    reward: RewardSettings = Field(alias=REWARD_KEY, description="The settings of the reward (docs/rewards.md).")
    prompts: Path | None = Field(
        default=None,
        description="Folder whose judge_*.jinja files replace the judge's prompts (docs/prompts.md). null: the built-in"
        " prompts.",
    )
    dry_run: bool = Field(
        default=False, description="Check rows, lengths, batch sizes and settings, print the resource plan, and stop."
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
        " already set outside wins. Must not hold secrets.",
    )
