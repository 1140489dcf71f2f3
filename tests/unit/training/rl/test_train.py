"""training/rl/train.py: a start's folder, environment and lock, with a stand-in for verl's trainer."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from tmas.errors import UserError
from tmas.run.directory import RunRefused
from tmas.training.rl import train as training
from tmas.training.rl.identity import objective as run_objective
from tmas.training.rl.plan import Plan
from tmas.training.rl.worker_checks import uses_critic

Trainer = Callable[[DictConfig], None]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``tmas train`` into the folder ``run``, with the given trainer."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(training, "make_plan", lambda config: Plan(()))
    monkeypatch.setitem(sys.modules, "tmas.training.rl.task_runner", SimpleNamespace(TaskRunner=None))

    def start(trainer: Trainer, /, **settings: Any) -> None:
        stand_in = SimpleNamespace(run_ppo=lambda config, task_runner_class: trainer(config))
        monkeypatch.setitem(sys.modules, "verl.trainer.main_ppo", stand_in)
        ray = {"ray_init": {"runtime_env": {"env_vars": {"GIVEN": "1"}}}}
        given = {
            "env": {"MINE": "2"},
            "dry_run": False,
            "estimate": {"device": "a GPU"},
            "output_dir": str(tmp_path / "run"),
            "prompts": None,
            "ray_kwargs": ray,
        }
        own = {"data": {"seed": 1}, "trainer": {"default_local_dir": str(tmp_path / "run" / "checkpoints")}}
        training.train(OmegaConf.create({**given, **own, **settings}), Console(quiet=True))

    return start


def test_verl_gets_its_own_keys_and_every_process_the_environment(start: Callable[..., None], tmp_path: Path):
    seen: list[DictConfig] = []
    start(seen.append)
    assert set(seen[0]) == {"data", "ray_kwargs", "trainer"}
    variables = seen[0].ray_kwargs.ray_init.runtime_env.env_vars
    first = tmp_path / "run" / "starts" / "0001"
    assert (variables["GIVEN"], variables["MINE"], os.environ["MINE"]) == ("1", "2", "2")
    assert variables["VERL_FILE_LOGGER_PATH"] == str(first / "metrics.jsonl")
    assert variables["WANDB_DIR"] == str(first)
    assert yaml.safe_load((first / "config.yaml").read_text())["data"] == {"seed": 1}


def test_a_folder_that_is_set_outside_stays(start: Callable[..., None], tmp_path: Path):
    os.environ["WANDB_DIR"] = "elsewhere"
    start(lambda config: None)
    assert os.environ["WANDB_DIR"] == "elsewhere"


def test_a_checkpoint_goes_on_with_the_reward_that_it_was_made_with_alone(start: Callable[..., None], tmp_path: Path):
    def reward(form: str) -> dict[str, Any]:
        settings = {"experience": {"form": form}, "judge": {"base_url": f"http://{form}/v1"}}
        return {"custom_reward_function": {"reward_kwargs": {"settings": settings}}}

    start(lambda _: None, reward=reward("judge"))
    start(lambda _: None, reward=reward("none"))  # nothing was saved yet
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("20")
    start(lambda _: None, reward=reward("none"))
    with pytest.raises(RunRefused, match=r"settings\.experience\.form: 'none' in the run, 'judge' now$"):
        start(lambda _: None, reward=reward("judge"))
    with pytest.raises(RunRefused, match=r"data\.seed: 1 in the run, 2 now$"):
        start(lambda _: None, reward=reward("none"), data={"seed": 2})


def test_a_checkpoint_goes_on_with_the_same_judge_wherever_it_is_served(start: Callable[..., None], tmp_path: Path):
    def judged_by(name: str, port: int) -> dict[str, Any]:
        settings = {"judge": {"name": name, "base_url": f"http://judge:{port}/v1", "patience": {"max_attempts": port}}}
        return {"custom_reward_function": {"reward_kwargs": {"settings": settings}}}

    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("20")
    start(lambda _: None, reward=judged_by("large", 1))
    start(lambda _: None, reward=judged_by("large", 2))
    with pytest.raises(RunRefused, match=r"judge\.name: 'large' in the run, 'small' now$"):
        start(lambda _: None, reward=judged_by("small", 1))


def test_a_checkpoint_goes_on_with_the_rows_that_it_was_made_with_alone(start: Callable[..., None], tmp_path: Path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("20")
    rows = tmp_path / "rows.parquet"
    rows.write_bytes(b"some")
    start(lambda _: None, data={"seed": 1, "train_files": str(rows)})
    start(lambda _: None, data={"seed": 1, "train_files": [str(rows)]})
    rows.write_bytes(b"others")
    with pytest.raises(RunRefused, match=r"data\.train_files"):
        start(lambda _: None, data={"seed": 1, "train_files": str(rows)})


ACTOR: dict[str, Any] = {
    "ppo_mini_batch_size": 32,
    "clip_ratio_high": 0.28,
    "loss_agg_mode": "token-mean",
    "use_kl_loss": False,
    "entropy_coeff": 0,
    "policy_loss": {"_target_": "verl.workers.config.PolicyLossConfig", "loss_mode": "vanilla"},
    "optim": {"lr": 1e-6, "lr_scheduler_type": "constant", "lr_warmup_steps_ratio": 0.0, "total_training_steps": -1},
    "ppo_max_token_len_per_gpu": 16384,
}


def objective(path: str = "", value: Any = None, **algorithm: Any) -> dict[str, Any]:
    """Settings of ``tmas train`` with an objective, in which the dotted key ``path`` has ``value``."""
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {
                "actor": ACTOR,
                "model": {"lora_rank": 0},
                "rollout": {"n": 8, "temperature": 1.0, "gpu_memory_utilization": 0.5},
            },
            "critic": {"optim": {"lr": 1e-5}, "cliprange_value": 0.5},
            "algorithm": {"adv_estimator": "grpo", "rollout_correction": {"rollout_is": "token"}, **algorithm},
            "data": {"seed": 1, "max_response_length": 512, "train_max_samples": -1, "apply_chat_template_kwargs": {}},
        }
    )
    if path:
        OmegaConf.update(config, path, value)
    return {str(key): value for key, value in config.items()}


def saved(tmp_path: Path) -> None:
    """A checkpoint in the folder ``run``."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("20")


@pytest.mark.parametrize(
    ("key", "was", "now"),
    [
        ("actor_rollout_ref.actor.optim.lr", 1e-6, 2e-6),
        ("actor_rollout_ref.actor.ppo_mini_batch_size", 32, 16),
        ("actor_rollout_ref.actor.clip_ratio_high", 0.28, 0.2),
        ("actor_rollout_ref.actor.loss_agg_mode", "token-mean", "seq-mean-token-mean"),
        ("actor_rollout_ref.actor.policy_loss.loss_mode", "vanilla", "gspo"),
        ("actor_rollout_ref.actor.use_kl_loss", False, True),
        ("actor_rollout_ref.actor.entropy_coeff", 0, 0.01),
        ("actor_rollout_ref.rollout.temperature", 1.0, 0.6),
        ("algorithm.rollout_correction.rollout_is", "token", "sequence"),
        ("algorithm.adv_estimator", "grpo", "rloo"),
        ("data.max_response_length", 512, 1024),
        ("data.train_max_samples", -1, 100),
        ("data.apply_chat_template_kwargs.enable_thinking", None, False),
        ("actor_rollout_ref.model.lora_rank", 0, 8),
    ],
)
def test_a_checkpoint_resumes_with_its_own_objective_alone(
    start: Callable[..., None], tmp_path: Path, key: str, was: Any, now: Any
):
    saved(tmp_path)
    start(lambda _: None, **objective())
    start(lambda _: None, **objective())
    with pytest.raises(RunRefused, match=re.escape(f"{key}: {was!r} in the run, {now!r} now") + "$"):
        start(lambda _: None, **objective(key, now))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("actor_rollout_ref.actor.ppo_max_token_len_per_gpu", 8192),
        ("actor_rollout_ref.rollout.gpu_memory_utilization", 0.7),
        ("actor_rollout_ref.actor.optim.total_training_steps", 400),
        ("critic.optim.lr", 1e-4),  # GRPO has no critic
    ],
)
def test_what_changes_no_step_may_change_on_resume(start: Callable[..., None], tmp_path: Path, key: str, value: Any):
    saved(tmp_path)
    start(lambda _: None, **objective())
    start(lambda _: None, **objective(key, value))


def test_the_age_of_responses_is_part_of_the_objective(start: Callable[..., None], tmp_path: Path):
    def trainer(threshold: int) -> dict[str, Any]:
        sampler = {"max_off_policy_threshold": threshold}
        return {"default_local_dir": str(tmp_path / "run" / "checkpoints"), "v1": {"sampler": sampler}}

    saved(tmp_path)
    start(lambda _: None, **objective(), trainer=trainer(4))
    with pytest.raises(RunRefused, match=r"sampler\.max_off_policy_threshold: 4 in the run, 8 now$"):
        start(lambda _: None, **objective(), trainer=trainer(8))


def test_the_critic_is_part_of_a_run_that_has_one(start: Callable[..., None], tmp_path: Path):
    saved(tmp_path)
    start(lambda _: None, **objective(adv_estimator="gae"))
    with pytest.raises(RunRefused, match=r"critic\.optim\.lr: 1e-05 in the run, 0\.0001 now$"):
        start(lambda _: None, **objective("critic.optim.lr", 1e-4, adv_estimator="gae"))


@pytest.mark.parametrize(
    ("estimator", "enable", "has_critic"),
    [("gae", None, True), ("grpo", None, False), ("grpo", True, True), ("gae", False, False), (None, None, False)],
)
def test_the_objective_has_a_critic_where_verl_trains_one(estimator: str | None, enable: bool | None, has_critic: bool):
    config = OmegaConf.create({"critic": {"enable": enable, "cliprange_value": 0.5}})
    if estimator:  # the recorded configuration of an older run may lack it
        OmegaConf.update(config, "algorithm.adv_estimator", estimator)
    assert uses_critic(config) == has_critic
    assert ("critic.cliprange_value" in run_objective(config)) == has_critic


def test_a_run_may_become_longer_unless_its_learning_rate_depends_on_the_length(
    start: Callable[..., None], tmp_path: Path
):
    def trainer(steps: int) -> dict[str, Any]:
        own = {"default_local_dir": str(tmp_path / "run" / "checkpoints"), "total_epochs": 1}
        return {"trainer": {**own, "total_training_steps": steps, "save_freq": steps, "test_freq": steps}}

    saved(tmp_path)
    start(lambda _: None, **objective(), **trainer(20))
    start(lambda _: None, **objective(), **trainer(40))
    shutil.rmtree(tmp_path / "run" / "starts")
    for key, value in (("lr_scheduler_type", "cosine"), ("lr_warmup_steps_ratio", 0.1)):
        settings = objective(f"actor_rollout_ref.actor.optim.{key}", value)
        start(lambda _: None, **settings, **trainer(20))
        with pytest.raises(RunRefused, match=r"trainer\.total_training_steps: 20 in the run, 40 now$"):
            start(lambda _: None, **settings, **trainer(40))
        shutil.rmtree(tmp_path / "run" / "starts")


def test_a_run_that_did_not_record_its_objective_resumes_with_that_of_its_configuration(
    start: Callable[..., None], tmp_path: Path
):
    saved(tmp_path)
    start(lambda _: None, **objective())
    [file] = (tmp_path / "run" / "starts").glob("*/identity.json")
    recorded = orjson.loads(file.read_bytes())
    older = {key: value for key, value in recorded.items() if not key.startswith("actor_rollout_ref.actor.")}
    assert len(older) < len(recorded)
    file.write_bytes(orjson.dumps(older))
    with pytest.raises(RunRefused, match=r"actor\.optim\.lr: 1e-06 in the run, 2e-06 now$"):
        start(lambda _: None, **objective("actor_rollout_ref.actor.optim.lr", 2e-6))
    start(lambda _: None, **objective())


def test_verl_has_epochs_enough_for_the_steps(start: Callable[..., None], tmp_path: Path):
    seen: list[DictConfig] = []
    own = {"default_local_dir": str(tmp_path), "total_epochs": 1, "total_training_steps": 200}
    start(seen.append, trainer=own)
    start(seen.append, trainer=own | {"total_training_steps": None})
    assert [config.trainer.total_epochs for config in seen] == [200, 1]


def test_a_start_comes_after_the_last_one_whatever_was_removed(start: Callable[..., None], tmp_path: Path):
    starts = tmp_path / "run" / "starts"
    (starts / "0007").mkdir(parents=True)
    start(lambda _: None)
    assert sorted(path.name for path in starts.iterdir()) == ["0007", "0008"]


def test_a_dry_run_leaves_nothing(start: Callable[..., None], tmp_path: Path):
    start(lambda _: None, dry_run=True)
    assert not (tmp_path / "run").exists()


def test_two_trainers_cannot_write_one_directory(start: Callable[..., None]):
    def another(_: DictConfig) -> None:
        with pytest.raises(RunRefused, match="in use by another run"):
            start(lambda _: None)

    start(another)
    start(lambda _: None)  # it is free again


@pytest.mark.parametrize("error", [UserError("no key"), OSError("no space left")])
def test_what_fails_in_training_is_not_taken_for_wrong_input(start: Callable[..., None], error: Exception):
    def failing(_: DictConfig) -> None:
        raise error

    with pytest.raises(RuntimeError, match="training failed") as failed:
        start(failing)
    assert failed.value.__cause__ is error


def test_a_bug_in_training_is_raised_as_it_is(start: Callable[..., None]):
    def failing(_: DictConfig) -> None:
        raise ValueError("a shape")

    with pytest.raises(ValueError, match="a shape"):
        start(failing)
