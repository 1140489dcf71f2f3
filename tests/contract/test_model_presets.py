"""Presets of models: those that differ from another one in their weights alone, and those of an API."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tmas.cli.main import register_resolvers

CONF = Path(__file__).parents[2] / "conf"


def composed(command: str, *overrides: str) -> dict[str, dict[str, object]]:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose(command, overrides=[*overrides]))
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items() if isinstance(value, dict)}


def test_deepseek_thinks_as_a_teacher_and_not_as_a_judge() -> None:
    teacher = composed("distill", "model=deepseek")["model"]
    judge = composed("evaluate", "runs=[run]", "judge=deepseek")["judge"]
    assert (judge["name"], judge["base_url"]) == (teacher["name"], teacher["base_url"])
    thinking = [OmegaConf.create(one)["sampling"]["extra"]["thinking"]["type"] for one in (teacher, judge)]
    assert thinking == ["enabled", "disabled"]


def test_the_authors_checkpoint_has_the_window_and_sampling_of_its_base_model() -> None:
    register_resolvers()

    def model(name: str) -> dict[str, object]:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("solve", overrides=[f"model={name}", "problems=sample", "output_dir=out"])
        found = OmegaConf.to_container(config.model)
        assert isinstance(found, dict)
        return {str(key): value for key, value in found.items()}

    authors, base = model("tams_hybrid_rl_4b"), model("qwen3_4b_thinking")
    assert authors["name"] == authors["path"] == "unclegeorge/TAMS-Hybrid-RL-4B"
    assert base | {"name": authors["name"], "path": authors["path"]} == authors
    assert authors["max_window_tokens"] == 130_000
