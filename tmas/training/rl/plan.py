"""What a training run will take and do, and whether it can work at all: known before any device is taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from tmas.errors import UserError
from tmas.training.rl.checks import data_parallel, devices, needs_judge, reasons
from tmas.training.rl.inputs import REWARD, load_files, load_policy

_NEEDED = {
    "data.train_files": "data.train_files",
    "data.val_files": "data.val_files",
    "policy.path": "actor_rollout_ref.model.path",
    "judge.name": f"{REWARD}.judge.name",
}
"""Settings without a default: their short names, and the keys that hold them. A reward may need no judge."""


class PlanError(UserError):
    """The run cannot work as configured; the message lists every reason with the key to change."""


@dataclass(frozen=True)
class Plan:
    """The resource plan as (what, how much) pairs, to be read by a person."""

    entries: tuple[tuple[str, str], ...]

    def show(self, console: Console) -> None:
        table = Table(show_header=False, box=None)
        for what, how_much in self.entries:
            table.add_row(what, how_much)
        console.print(table, markup=False)


def make_plan(config: DictConfig) -> Plan:
    """Checks the composed configuration, the rows and the policy; raises :class:`PlanError` with all that is wrong."""
    needed = {name: key for name, key in _NEEDED.items() if name != "judge.name" or needs_judge(config)}
    if missing := [name for name, key in needed.items() if OmegaConf.select(config, key) is None]:
        raise PlanError("not set: " + ", ".join(missing))
    wrong: list[str] = []
    policy = load_policy(config.actor_rollout_ref.model.path, wrong)
    train, validation = (load_files(config.data[key], policy, wrong) for key in ("train_files", "val_files"))
    wrong += reasons(config, policy, train, validation)
    if wrong:
        raise PlanError("this run cannot work:\n" + "\n".join(f"  {reason}" for reason in wrong))
    rows = sum(file.rows for file in train)
    return Plan((*_resources(config), *_work(config, rows), *(("rows", str(f)) for f in (*train, *validation))))


def _resources(config: DictConfig) -> Iterator[tuple[str, str]]:
    trainer, rollout = config.trainer, config.actor_rollout_ref.rollout
    yield "policy", str(config.actor_rollout_ref.model.path)
    yield "devices", f"{devices(config)} {trainer.device} ({trainer.nnodes} nodes x {trainer.n_gpus_per_node})"
    yield "training", f"{config.actor_rollout_ref.actor.strategy}, {data_parallel(config)} data-parallel ranks"
    yield "generation", f"{devices(config) // rollout.tensor_model_parallel_size} vLLM replicas on the same devices"
    model = config.reward.reward_model
    if model.enable:
        yield "judge", f"{model.model_path} on {model.nnodes} x {model.n_gpus_per_node} further devices"


def _work(config: DictConfig, rows: int) -> Iterator[tuple[str, str]]:
    batch, rollout = config.data.train_batch_size, config.actor_rollout_ref.rollout
    steps = config.trainer.total_training_steps or rows // batch * config.trainer.total_epochs
    updates = batch // config.actor_rollout_ref.actor.ppo_mini_batch_size
    yield "objective", f"{config.algorithm.adv_estimator}, {config.trainer.experiment_name}"
    yield "a step", f"{batch} prompts x {rollout.n} samples = {batch * rollout.n:,} replies, {updates} updates"
    yield "steps", f"{steps:,} in all, {rows // batch:,} an epoch"
    yield (
        "tokens",
        f"up to {config.data.max_prompt_length:,} in a prompt and {config.data.max_response_length:,} in a reply",
    )
