"""Identity (fingerprint) of a training run. A checkpoint can only be resumed by a run with the same identity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tmas.files import file_digest
from tmas.rewards.settings import JUDGE_PROMPTS
from tmas.settings import flatten
from tmas.training.identity import PROMPT_PREFIX
from tmas.training.rl.inputs import REWARD_KEY, embedded_prompts

_IDENTITY_KEYS = (
    *("actor_rollout_ref.model.path", "actor_rollout_ref.rollout.n", "algorithm"),
    *("data.train_batch_size", "data.seed"),
)
_JUDGE_CONNECTION = ("base_url", "api_key_env", "timeout", "concurrency", "stream", "patience")
_IGNORED_REWARD_KEYS = ("checker", "prompts", *(f"judge.{name}" for name in _JUDGE_CONNECTION))
"""Settings of the reward that do not change its value: how the judge is called, and the limits of the computation."""


def identity(config: DictConfig) -> dict[str, Any]:
    """The identity as a mapping from dotted keys to values.

    It has the settings of the policy, the objective and the reward. The training rows and the judge's prompts are
    represented by hashes of their content.
    """
    files = OmegaConf.select(config, "data.train_files") or []
    rows = {"data.train_files": [file_digest(Path(f)) for f in ([files] if isinstance(files, str) else files)]}
    return {
        **dict(_selected(config, _IDENTITY_KEYS)),
        **dict(_reward_settings(config)),
        **_judge_prompts(config),
        **rows,
    }


def _judge_prompts(config: DictConfig) -> dict[str, str]:
    """The hash of each prompt file that the judge's prompts are rendered from."""
    settings = OmegaConf.select(config, REWARD_KEY)
    if settings is None or not settings.get("judge"):
        return {}
    bonuses = [p for name, p in JUDGE_PROMPTS.items() if OmegaConf.select(settings, f"{name}.form") == "judge"]
    hashes = embedded_prompts(config).judge_hashes("judge_equivalence", *bonuses)
    return {f"{PROMPT_PREFIX}{name}": value for name, value in hashes.items()}


def _selected(config: DictConfig, keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the settings under ``keys`` as pairs of a dotted key and a value."""
    for key in keys:
        value = OmegaConf.select(config, key)
        plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        yield from flatten({key: plain}).items()


def _reward_settings(config: DictConfig) -> Iterator[tuple[str, Any]]:
    for key, value in _selected(config, [REWARD_KEY]):
        part = key.removeprefix(f"{REWARD_KEY}.")
        if not any(part == ignored or part.startswith(f"{ignored}.") for ignored in _IGNORED_REWARD_KEYS):
            yield key, value
