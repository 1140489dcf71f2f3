"""``tmas train``: checks the composed configuration and runs verl's trainer with it."""

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
from tmas.training.rl.identity import identity, objective
from tmas.training.rl.inputs import embed_prompts
from tmas.training.rl.plan import PlanError, make_plan, show

OWN_KEYS = ("env", "dry_run", "estimate", "output_dir", "prompts", "policy", "judge", "updates_per_step")
"""Top-level keys that verl does not know."""


def train(config: DictConfig, console: Console) -> None:
    """Check ``config``, which must be resolved, print the plan, and train up to ``trainer.total_training_steps``.

    With ``dry_run`` it also prints the estimate of a step, and stops. Raises, before any device is used:

    - :class:`~tmas.training.rl.plan.PlanError` and :class:`~tmas.prompts.PromptError` if the configuration cannot work;
    - :class:`~tmas.run.directory.RunRefused` if another process trains in ``output_dir``, or if the checkpoint there
      comes from a run with another policy, reward or objective, or with other rows.
    """
    environment = set_environment(config)
    prompts = embed_prompts(config)
    try:
        plan = make_plan(config)
    except PlanError as refused:
        if config.dry_run:
            show(refused.estimate, console)
        raise
    show(plan.entries, console)
    if config.dry_run:
        show(plan.estimate, console)
        return
    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    lock = lock_file(output_dir / ".lock")
    try:
        run_identity = identity(config)
        _check_resumable(run_identity, config, output_dir)
        start_dir = _make_start_dir(output_dir)
        write_json(start_dir / "identity.json", run_identity)
        OmegaConf.save(config, start_dir / "config.yaml")
        prompts.write(start_dir / "prompts")
        # Defaults. A variable that is set already, or in config.env, wins.
        log_dirs = {"TENSORBOARD_DIR": str(start_dir / "tensorboard"), "WANDB_DIR": str(start_dir)}
        environment = {name: os.environ.get(name, log_dir) for name, log_dir in log_dirs.items()} | environment
        _run(config, environment | {"VERL_FILE_LOGGER_PATH": str(start_dir / "metrics.jsonl")})
    finally:
        os.close(lock)


def set_environment(config: DictConfig) -> dict[str, str]:
    """Set the variables of ``config.env`` in this process, unless they are set already. Returns all with their values.

    verl reads some of them when it is imported, so call this function first.
    """
    for name, value in config.env.items():
        os.environ.setdefault(str(name), str(value))
    return {str(name): os.environ[str(name)] for name in config.env}


def _run(config: DictConfig, environment: dict[str, str]) -> None:
    from verl.trainer.main_ppo import run_ppo

    from tmas.training.rl.task_runner import TaskRunner

    verl_config = config.copy()
    trainer = verl_config.trainer
    if trainer.get("total_training_steps"):  # otherwise verl would stop after total_epochs, without a final checkpoint
        trainer.total_epochs = max(trainer.total_epochs, trainer.total_training_steps)
    os.environ.update(environment)
    for key in OWN_KEYS:
        verl_config.pop(key, None)
    runtime_env = verl_config.ray_kwargs.ray_init.runtime_env
    runtime_env.env_vars = {**(runtime_env.get("env_vars") or {}), **environment}
    try:
        run_ppo(verl_config, task_runner_class=TaskRunner)
    except (UserError, OSError) as error:
        # The configuration was checked before. So do not show this as a mistake of the user, but with its traceback.
        raise RuntimeError("the training failed") from error


def _check_resumable(run_identity: dict[str, Any], config: DictConfig, output_dir: Path) -> None:
    """Raise ``RunRefused`` if ``output_dir`` has a checkpoint of a run with another identity."""
    identities = sorted(output_dir.glob("starts/*/identity.json"))
    if identities and Path(config.trainer.default_local_dir, "latest_checkpointed_iteration.txt").exists():
        # Older versions did not record the objective in identity.json.
        recorded_config = OmegaConf.load(identities[-1].with_name("config.yaml"))
        recorded_objective = objective(recorded_config) if isinstance(recorded_config, DictConfig) else {}
        refuse_another_run(run_identity, identities[-1], output_dir, recorded_objective)


def _make_start_dir(output_dir: Path) -> Path:
    """Create the folder of this start: ``output_dir/starts/0001``, ``0002``, and so on.

    A *start* is one execution of ``tmas train``; the later ones resume the run. Each start has its own configuration
    and metrics. All starts share the checkpoints.
    """
    starts = output_dir / "starts"
    starts.mkdir(parents=True, exist_ok=True)
    last = max((int(folder.name) for folder in starts.iterdir() if folder.name.isdecimal()), default=0)
    start_dir = (starts / f"{last + 1:04d}").absolute()
    start_dir.mkdir()
    return start_dir
