"""Identity (fingerprint) of a training run. A checkpoint can only be resumed by a run with the same identity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tmas.files import file_digest
from tmas.rewards.settings import JUDGE_PROMPTS
from tmas.settings import flatten
from tmas.training.identity import PROMPT_PREFIX
from tmas.training.rl.inputs import embedded_prompts
from tmas.training.rl.settings import REWARD_KEY
from tmas.training.rl.worker_checks import uses_critic

_IDENTITY_KEYS = (
    *("actor_rollout_ref.model.path", "actor_rollout_ref.rollout.n", "algorithm"),
    *("data.train_batch_size", "data.seed"),
)
_LOSS_KEYS = (
    *("optim", "ppo_mini_batch_size", "ppo_epochs", "loss_agg_mode", "loss_scale_factor", "shuffle"),
    "data_loader_seed",
)
_ACTOR_KEYS = (
    *_LOSS_KEYS,
    *("policy_loss", "clip_ratio", "clip_ratio_low", "clip_ratio_high", "clip_ratio_c", "tau_pos", "tau_neg"),
    *("entropy_coeff", "use_kl_loss", "kl_loss_coef", "kl_loss_type"),
)
_CRITIC_KEYS = (*_LOSS_KEYS, "cliprange_value", "model.path")
_SAMPLING_KEYS = ("temperature", "top_p", "top_k", "calculate_log_probs")
_MODEL_KEYS = (
    *("custom_chat_template", "tokenizer_path"),
    *("lora_rank", "lora_alpha", "target_modules", "exclude_modules", "lora_adapter_path"),
)
_OBJECTIVE_KEYS = (
    *(f"actor_rollout_ref.actor.{key}" for key in _ACTOR_KEYS),
    *(f"actor_rollout_ref.rollout.{key}" for key in _SAMPLING_KEYS),
    *("data.max_response_length", "data.train_max_samples", "data.shuffle", "data.apply_chat_template_kwargs"),
    *("trainer.v1.trainer_mode", "trainer.v1.sampler"),
    *(f"actor_rollout_ref.model.{key}" for key in _MODEL_KEYS),
)
_SCHEDULE_KEYS = ("lr_scheduler_type", "lr_decay_style", "weight_decay_incr_style")  # of FSDP, and of Megatron
_TOTAL_STEPS_KEYS = ("trainer.total_training_steps", "trainer.total_epochs")
_JUDGE_CONNECTION = ("base_url", "api_key_env", "timeout", "concurrency", "stream", "patience")
_IGNORED_REWARD_KEYS = ("checker", "prompts", *(f"judge.{name}" for name in _JUDGE_CONNECTION))
"""Settings of the reward that do not change its value: how the judge is called, and the limits of the computation.

The identity has the hashes of the ``prompts`` instead.
"""


def identity(config: DictConfig) -> dict[str, Any]:
    """The identity as a mapping from dotted keys to values.

    It has the settings of the policy, the objective and the reward. The training rows and the judge's prompts are
    represented by hashes of their content. Validation, checkpoints, loggers, hardware and everything that only changes
    speed or memory are not in it. The number of steps is in it only if the learning rate or the weight decay of a step
    depends on it.
    """
    files = OmegaConf.select(config, "data.train_files") or []
    rows = {"data.train_files": [file_digest(Path(f)) for f in ([files] if isinstance(files, str) else files)]}
    return {
        **dict(_selected(config, _IDENTITY_KEYS)),
        **objective(config),
        **dict(_reward_settings(config)),
        **_judge_prompts(config),
        **rows,
    }


def objective(config: DictConfig) -> dict[str, Any]:
    """The settings of sampling, loss and optimizer, as a mapping from dotted keys to values.

    The critic's settings are part of it if the run has a critic. The number of steps is part of it if the learning rate
    or the weight decay of a step depends on it.
    """
    keys = [*_OBJECTIVE_KEYS]
    if uses_critic(config):
        keys += ["trainer.critic_warmup", *(f"critic.{key}" for key in _CRITIC_KEYS)]
    # verl sets optim.total_training_steps itself, from the number of steps. _target_ is the name of a class.
    ignored = ("._target_", ".optim.total_training_steps")
    found = {key: value for key, value in _selected(config, keys) if not key.endswith(ignored)}
    if any(_depends_on_total_steps(found, f"{model}.optim") for model in ("actor_rollout_ref.actor", "critic")):
        found |= dict(_selected(config, _TOTAL_STEPS_KEYS))
    return found


def _depends_on_total_steps(found: Mapping[str, Any], optim: str) -> bool:
    """Whether the learning rate or the weight decay of a step depends on the number of all steps."""
    schedules = [found.get(f"{optim}.{key}") or "constant" for key in _SCHEDULE_KEYS]
    warmup_by_share = (found.get(f"{optim}.lr_warmup_steps_ratio") or 0) > 0
    warmup_by_steps = (found.get(f"{optim}.lr_warmup_steps") or -1) > 0  # takes precedence in verl
    return any(schedule != "constant" for schedule in schedules) or (warmup_by_share and not warmup_by_steps)


def _judge_prompts(config: DictConfig) -> dict[str, str]:
    """The hash of each prompt file that the judge's prompts are rendered from."""
    settings = OmegaConf.select(config, REWARD_KEY)
    if settings is None or not settings.get("judge"):
        return {}
    bonuses = [p for name, p in JUDGE_PROMPTS.items() if OmegaConf.select(settings, f"{name}.form") == "judge"]
    hashes = embedded_prompts(config).judge_hashes("judge_code", "judge_equivalence", *bonuses)
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
