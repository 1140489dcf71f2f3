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
    """The keys of conf/train.yaml that verl does not have."""

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
        default=False, description="Check rows, lengths, batch sizes and settings, print the resource plan, and stop."
    )
    env: dict[str, Any] = Field(
        default_factory=dict,
        description="Environment variables of the trainer and of all processes that it starts. A variable that is"
        " already set outside wins. Must not hold secrets.",
    )
