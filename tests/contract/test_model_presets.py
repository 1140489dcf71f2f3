"""Presets of models that differ from another one in their weights alone."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tmas.cli.main import register_resolvers

CONF = Path(__file__).parents[2] / "conf"


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
