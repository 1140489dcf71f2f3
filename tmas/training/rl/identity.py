"""What a training run is: a checkpoint is gone on from only by a start that shares it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tmas.files import file_digest
from tmas.settings import flatten
from tmas.training.identity import PROMPT
from tmas.training.rl.inputs import REWARD, carried_prompts

_OBJECTIVE = (
    *("actor_rollout_ref.model.path", "actor_rollout_ref.rollout.n", "algorithm"),
    *("data.train_batch_size", "data.seed"),
)
_TRANSPORT = ("base_url", "api_key_env", "timeout", "concurrency", "stream", "patience")
_NO_PART = ("checker", "deadline", "prompts", *(f"judge.{name}" for name in _TRANSPORT))
"""Settings of the reward that say how it is computed, not what it is."""


def identity(config: DictConfig) -> dict[str, Any]:
    """Dotted keys with their values: policy, objective, reward; the judge's prompts and the rows by their content."""
    files = OmegaConf.select(config, "data.train_files") or []
    rows = {"data.train_files": [file_digest(Path(f)) for f in ([files] if isinstance(files, str) else files)]}
    return {**dict(_selected(config, _OBJECTIVE)), **dict(_reward(config)), **_judge_prompts(config), **rows}


def _judge_prompts(config: DictConfig) -> dict[str, str]:
    """The hash of each prompt file that the judge's questions are rendered from."""
    settings = OmegaConf.select(config, REWARD)
    if settings is None or not settings.get("judge"):
        return {}
    bonuses = [name for name in ("experience", "novelty") if OmegaConf.select(settings, f"{name}.form") == "judge"]
    asked = ("judge_equivalence", *(f"judge_{name}" for name in bonuses))
    hashes = carried_prompts(config).judge_hashes(*asked)
    return {f"{PROMPT}{name}": found for name, found in hashes.items()}


def _selected(config: DictConfig, keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for key in keys:
        value = OmegaConf.select(config, key)
        plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        yield from flatten({key: plain}).items()


def _reward(config: DictConfig) -> Iterator[tuple[str, Any]]:
    for key, value in _selected(config, [REWARD]):
        part = key.removeprefix(f"{REWARD}.")
        if not any(part == left_out or part.startswith(f"{left_out}.") for left_out in _NO_PART):
            yield key, value
