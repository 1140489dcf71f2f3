"""The identity of a training run names settings that verl has."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("verl")

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tmas.cli.main import register_resolvers
from tmas.training.rl.identity import objective

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize("experiment", ["hybrid_grpo", "hybrid_ppo"])
def test_every_key_of_the_objective_is_in_the_configuration(experiment: str) -> None:
    """A key that a new version of verl renames would be missing from the identity without a notice."""
    register_resolvers()
    given = [f"experiment={experiment}", "output_dir=out", "judge.name=judge", "judge.base_url=http://127.0.0.1:1/v1"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=given)
    found = objective(config)
    assert ("critic.optim.lr" in found) == (experiment == "hybrid_ppo")
    for key in found:
        node, _, name = key.rpartition(".")
        assert name in OmegaConf.select(config, node), key
