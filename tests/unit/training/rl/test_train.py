"""training/rl/train.py: a start's folder, environment and lock, with a stand-in for verl's trainer."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from tmas.errors import UserError
from tmas.run.directory import RunRefused
from tmas.training.rl import train as training
from tmas.training.rl.plan import Plan

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
