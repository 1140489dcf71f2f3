"""``tmas train``: from the composed configuration to a run of verl's trainer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from tmas.errors import UserError
from tmas.files import write_json
from tmas.run.directory import lock_file
from tmas.training.identity import refuse_another_run
from tmas.training.rl.identity import identity
from tmas.training.rl.inputs import carry_prompts
from tmas.training.rl.plan import make_plan


def train(config: DictConfig, console: Console) -> None:
    """Checks ``config``, which is resolved, prints the plan and, unless ``dry_run``, trains until
    ``trainer.total_training_steps``.

    Raises :class:`~tmas.training.rl.plan.PlanError` and :class:`~tmas.prompts.PromptError`, before any device is taken,
    for what cannot work, and
    :class:`~tmas.run.directory.RunRefused` where another process trains in ``output_dir``, or where the
    checkpoint to go on from is of another policy, reward or objective, or of other rows.
    """
    environment = set_environment(config)
    prompts = carry_prompts(config)
    plan = make_plan(config)
    plan.show(console)
    if config.dry_run:
        return
    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    lock = lock_file(output_dir / ".lock")
    try:
        own = identity(config)
        _refuse_another_run(own, config, output_dir)
        start = _new_start(output_dir)
        write_json(start / "identity.json", own)
        OmegaConf.save(config, start / "config.yaml")
        prompts.write(start / "prompts")
        places = {"TENSORBOARD_DIR": str(start / "tensorboard"), "WANDB_DIR": str(start)}
        environment = {name: os.environ.get(name, place) for name, place in places.items()} | environment
        _run(config, environment | {"VERL_FILE_LOGGER_PATH": str(start / "metrics.jsonl")})
    finally:
        os.close(lock)


def set_environment(config: DictConfig) -> dict[str, str]:
    """Puts ``config.env`` into this process's environment, where what is set already wins, before verl is imported."""
    for name, value in config.env.items():
        os.environ.setdefault(str(name), str(value))
    return {str(name): os.environ[str(name)] for name in config.env}


def _run(config: DictConfig, environment: dict[str, str]) -> None:
    from verl.trainer.main_ppo import run_ppo

    from tmas.training.rl.task_runner import TaskRunner

    verl_config = config.copy()
    trainer = verl_config.trainer
    if trainer.get("total_training_steps"):  # verl would end after total_epochs, without a last checkpoint
        trainer.total_epochs = max(trainer.total_epochs, trainer.total_training_steps)
    os.environ.update(environment)
    for own in ("env", "dry_run", "output_dir", "prompts", "policy", "judge"):
        verl_config.pop(own, None)
    runtime_env = verl_config.ray_kwargs.ray_init.runtime_env
    runtime_env.env_vars = {**(runtime_env.get("env_vars") or {}), **environment}
    try:
        run_ppo(verl_config, task_runner_class=TaskRunner)
    except (UserError, OSError) as error:  # the input was checked before: show the traceback
        raise RuntimeError("the training failed") from error


def _refuse_another_run(own: dict[str, Any], config: DictConfig, output_dir: Path) -> None:
    starts = sorted(output_dir.glob("starts/*/identity.json"))
    if starts and Path(config.trainer.default_local_dir, "latest_checkpointed_iteration.txt").exists():
        refuse_another_run(own, starts[-1], output_dir)


def _new_start(output_dir: Path) -> Path:
    """``output_dir/starts/0001``, ``0002``, ...: each start keeps its own config and curves; checkpoints are shared."""
    starts = output_dir / "starts"
    starts.mkdir(parents=True, exist_ok=True)
    last = max((int(start.name) for start in starts.iterdir() if start.name.isdecimal()), default=0)
    start = (starts / f"{last + 1:04d}").absolute()
    start.mkdir()
    return start
