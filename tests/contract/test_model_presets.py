"""Presets of models: those that differ from another one in their weights alone, and those of an API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf"


def composed(command: str, *overrides: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose(command, overrides=[*overrides]))


def test_deepseek_thinks_as_a_teacher_and_not_as_a_judge() -> None:
    teacher = composed("distill", "model=deepseek")["model"]
    judge = composed("evaluate", "runs=[run]", "judge=deepseek")["judge"]
    assert (judge["name"], judge["base_url"]) == (teacher["name"], teacher["base_url"])
    thinking = [given["sampling"]["extra"]["thinking"]["type"] for given in (teacher, judge)]
    assert thinking == ["enabled", "disabled"]


def test_the_authors_checkpoint_has_the_window_and_sampling_of_its_base_model() -> None:
    names = ("tams_hybrid_rl_4b", "qwen3_4b_thinking")
    authors, base = (composed("solve", f"model={name}", "problems=sample", "output_dir=o")["model"] for name in names)
    assert authors["name"] == authors["path"] == "unclegeorge/TAMS-Hybrid-RL-4B"
    assert base | {"name": authors["name"], "path": authors["path"]} == authors
    assert authors["max_window_tokens"] == 130_000
