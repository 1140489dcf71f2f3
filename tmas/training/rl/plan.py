"""The resource plan of a training run. Making it checks the configuration, before any device is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from tmas.errors import UserError
from tmas.training.rl.checks import (
    data_parallel_ranks,
    device_count,
    find_defects,
    needs_judge,
    rollout_replicas,
    training_rows,
)
from tmas.training.rl.estimate import load_estimate_settings
from tmas.training.rl.estimate_entries import estimate_entries
from tmas.training.rl.inputs import load_files, load_policy
from tmas.training.rl.model_shape import ModelShape, known_shape
from tmas.training.rl.settings import REWARD_KEY
from tmas.training.rl.worker_checks import check_ranges

_REQUIRED = {
    "data.train_files": "data.train_files",
    "data.val_files": "data.val_files",
    "policy.path": "actor_rollout_ref.model.path",
    "judge.name": f"{REWARD_KEY}.judge.name",
}
"""Settings without a default, by short name, with their configuration keys. Some rewards need no judge."""


Entries = tuple[tuple[str, str], ...]
"""Pairs of a label and a text, for display."""


class PlanError(UserError):
    """The run cannot work as configured. The message lists all defects, each with the key to change.

    ``estimate``: the estimate of a step, if the policy's shape is known, so that hardware can be planned before the
    policy and the rows are on this machine.
    """

    def __init__(self, what: str, estimate: Entries = ()) -> None:
        super().__init__(what)
        self.estimate = estimate


@dataclass(frozen=True)
class Plan:
    """The resource plan, and the estimate of a step."""

    entries: Entries
    estimate: Entries = ()


def show(entries: Iterable[tuple[str, str]], console: Console) -> None:
    """Print a plan or an estimate as a table."""
    table = Table(show_header=False, box=None)
    for label, text in entries:
        table.add_row(label, text)
    console.print(table, markup=False)


def make_plan(config: DictConfig) -> Plan:
    """Check the composed configuration, the rows and the policy, and return the plan.

    Raises :class:`PlanError` with all defects.
    """
    required = {name: key for name, key in _REQUIRED.items() if name != "judge.name" or needs_judge(config)}
    if missing := [name for name, key in required.items() if OmegaConf.select(config, key) is None]:
        raise PlanError("not set: " + ", ".join(missing))
    defects: list[str] = []
    policy = load_policy(config, defects)
    train, validation = (load_files(config.data[key], policy, defects) for key in ("train_files", "val_files"))
    shape = policy.shape if policy else known_shape(config.actor_rollout_ref.model.path)
    defects += find_defects(config, policy, train, validation)
    defects += check_fused_kernels(config, shape)
    settings = load_estimate_settings(config, defects)
    estimate: Entries = ()
    is_computable = OmegaConf.select(config, "model_engine") == "dp" and not list(check_ranges(config))
    if shape and settings and is_computable:
        estimate = tuple(estimate_entries(config, shape, settings, train, validation))
    if defects:
        raise PlanError("this run cannot work:\n" + "\n".join(f"  {defect}" for defect in defects), estimate)
    rows = training_rows(config, train)
    files = (("rows", str(file)) for file in (*train, *validation))
    return Plan((*_resources(config), *_workload(config, rows), *files), estimate)


def _resources(config: DictConfig) -> Iterator[tuple[str, str]]:
    trainer = config.trainer
    yield "policy", str(config.actor_rollout_ref.model.path)
    yield "devices", f"{device_count(config)} {trainer.device} ({trainer.nnodes} nodes x {trainer.n_gpus_per_node})"
    yield "training", f"{config.actor_rollout_ref.actor.strategy}, {data_parallel_ranks(config)} data-parallel ranks"
    yield "generation", f"{rollout_replicas(config)} vLLM replicas on the same devices"
    model = config.reward.reward_model
    if model.enable:
        yield "judge", f"{model.model_path} on {model.nnodes} x {model.n_gpus_per_node} additional devices"


def _workload(config: DictConfig, rows: int) -> Iterator[tuple[str, str]]:
    batch, rollout = config.data.train_batch_size, config.actor_rollout_ref.rollout
    steps = config.trainer.total_training_steps or rows // batch * config.trainer.total_epochs
    actor = config.actor_rollout_ref.actor
    updates = batch // actor.ppo_mini_batch_size * actor.ppo_epochs
    yield "objective", f"{config.algorithm.adv_estimator}, {config.trainer.experiment_name}"
    yield "per step", f"{batch} prompts x {rollout.n} samples = {batch * rollout.n:,} responses, {updates} updates"
    yield "steps", f"{steps:,} in total, {rows // batch:,} per epoch"
    yield (
        "tokens",
        f"up to {config.data.max_prompt_length:,} in a prompt and {config.data.max_response_length:,} in a response",
    )


def check_fused_kernels(config: DictConfig, shape: ModelShape | None) -> Iterator[str]:
    """Refuse fused kernels for a policy whose output layer has weights of its own.

    verl 0.9.1 wraps such a layer in an FSDP2 unit, and its fused forward pass multiplies with the weights without
    gathering them (verl pull request 7427). tests/contract/test_fused_kernels.py shows both cases.
    """
    worker = config.actor_rollout_ref
    if shape and not shape.tied and worker.model.use_fused_kernels and worker.actor.strategy == "fsdp2":
        yield (
            "actor_rollout_ref.model.use_fused_kernels must be false: with fsdp2, verl 0.9.1 fails in the first pass"
            " of a policy without tie_word_embeddings"
        )
