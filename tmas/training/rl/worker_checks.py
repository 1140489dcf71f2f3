"""Checks settings that verl 0.9.1 only rejects in its workers, when devices are in use and the policy is loaded.

It also refuses settings that change nothing, because verl's V1 trainer or this project reads another key. Each check
was found by reading the assertions of verl's V1 trainer, its FSDP engine, its replay buffer and vLLM.
"""

# pyright: reportArgumentType=false
# verl and its dependencies have incomplete types.
from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tmas.training.rl.model_shape import ModelShape, is_adapted

_ACTOR, _ROLLOUT, _REFERENCE = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.ref"
_MODEL = "actor_rollout_ref.model"
_POSITIVE = (
    *("trainer.nnodes", "trainer.n_gpus_per_node", "data.train_batch_size", "data.max_prompt_length"),
    *("data.max_response_length", "reward.num_workers"),
    *(f"{_ACTOR}.{key}" for key in ("ppo_mini_batch_size", "ppo_epochs", "ppo_max_token_len_per_gpu")),
    *(f"{_ROLLOUT}.{key}" for key in ("n", "temperature", "max_model_len", "max_num_seqs", "max_num_batched_tokens")),
    *(f"{_ROLLOUT}.{key}" for key in ("tensor_model_parallel_size", "data_parallel_size", "agent.num_workers")),
    *(f"{_ROLLOUT}.{key}" for key in ("log_prob_max_token_len_per_gpu", "val_kwargs.n")),
)
_POSITIVE_ON_FSDP = (f"{_ACTOR}.ulysses_sequence_parallel_size", "critic.fsdp.ulysses_sequence_parallel_size")
_SHARES = tuple(f"{_ROLLOUT}.{key}" for key in ("gpu_memory_utilization", "top_p", "val_kwargs.top_p"))
"""Numbers in (0, 1]."""
_FIXED: dict[str, tuple[Any, str]] = {
    "trainer.use_v1": (True, "this project extends verl's V1 trainer, and no other"),
    "actor_rollout_ref.hybrid_engine": (True, "only verl's trainer mode separate_async reads it"),
    f"{_ROLLOUT}.name": ("vllm", "no other engine has been tested"),
    "distillation.enabled": (False, "verl's on-policy distillation has not been tested with this project's trainers"),
    "data.prompt_key": ("prompt", "the rows have this column"),
    "reward.custom_reward_function.name": ("compute_score", "tmas.rewards.verl_entry has this function"),
    "reward.reward_manager.source": ("importlib", "the reward needs this project's manager"),
    "reward.reward_manager.name": (
        "TMASRewardManager",
        "the reward function needs the facts that only this manager adds",
    ),
}
"""Settings with one possible value, and the reason."""
LOAD_FORMATS = (
    *("auto", "bitsandbytes", "dummy", "fastsafetensors", "hf", "instanttensor", "mistral", "modelexpress", "npcache"),
    *("pt", "runai_streamer", "runai_streamer_sharded", "safetensors", "sharded_state", "tensorizer"),
)
"""Ways in which vLLM can load weights."""
_ENGINE_DTYPES = ("auto", "half", "float16", "bfloat16", "float", "float32")
"""Types that vLLM can compute in."""
_LEGACY = ("reward_model", "custom_reward_function", "sandbox_fusion")
"""Settings of older versions of verl. Its V1 trainer reads those under ``reward`` instead."""
_CONTENTS = ("model", "optimizer", "extra", "hf_model")


def uses_reference(config: DictConfig) -> bool:
    """Whether the reference policy's log-probs are computed."""
    return bool(config.algorithm.use_kl_in_reward or config.actor_rollout_ref.actor.use_kl_loss)


def uses_critic(config: DictConfig) -> bool:
    """Whether a critic is trained, as verl decides it. The recorded configuration of an older run may lack the keys."""
    enabled = OmegaConf.select(config, "critic.enable")
    return OmegaConf.select(config, "algorithm.adv_estimator") == "gae" if enabled is None else bool(enabled)


def replica_devices(config: DictConfig) -> int:
    """Number of devices of a vLLM replica of the policy: its data-parallel ranks with their tensor-parallel devices."""
    rollout = config.actor_rollout_ref.rollout
    return rollout.tensor_model_parallel_size * rollout.data_parallel_size


def check_ranges(config: DictConfig) -> Iterator[str]:
    """Yield every number that is missing or out of range. Other checks and the step's estimate use these numbers."""
    on_fsdp = _POSITIVE_ON_FSDP if config.model_engine == "dp" else ()
    for key in (*_POSITIVE, *on_fsdp):
        value = OmegaConf.select(config, key)
        if not isinstance(value, int | float) or value <= 0:
            yield f"{key} {value}: it must be greater than 0"
    for key in _SHARES:
        value = OmegaConf.select(config, key)
        if not isinstance(value, int | float) or not 0 < value <= 1:
            yield f"{key} {value}: it must be greater than 0 and at most 1"
    for key in ("trainer.total_epochs", "trainer.total_training_steps"):
        value = OmegaConf.select(config, key)
        if value is not None and value < 1:
            yield f"{key} {value}: it must be at least 1"
    if config.actor_rollout_ref.actor.use_dynamic_bsz:
        return
    for key in (f"{_ACTOR}.ppo_micro_batch_size_per_gpu", f"{_ROLLOUT}.log_prob_micro_batch_size_per_gpu"):
        if not OmegaConf.select(config, key):
            yield f"{key} must be set if {_ACTOR}.use_dynamic_bsz=false: verl 0.9.1 takes the size from no other key"


def check_workers(config: DictConfig) -> Iterator[str]:
    """Yield every reason why verl's workers would refuse the configuration or ignore a part of it."""
    yield from _check_fixed(config)
    yield from _check_batches(config)
    yield from _check_generation(config)
    yield from _check_critic(config)
    yield from _check_checkpoints(config)
    yield from _check_training(config)


def check_heads(config: DictConfig, shape: ModelShape) -> Iterator[str]:
    """Yield every parallel size that cannot divide the policy's attention heads, as vLLM and verl require."""
    sizes = [(f"{_ROLLOUT}.tensor_model_parallel_size", config.actor_rollout_ref.rollout.tensor_model_parallel_size)]
    if config.model_engine == "dp":
        sizes.append(
            (f"{_ACTOR}.ulysses_sequence_parallel_size", config.actor_rollout_ref.actor.ulysses_sequence_parallel_size)
        )
    for key, size in sizes:
        if shape.heads % size:
            yield f"{key} {size} does not divide the policy's {shape.heads} attention heads"
        elif shape.kv_heads % size and size % shape.kv_heads:
            yield f"{key} {size} and the policy's {shape.kv_heads} key-value heads: one must divide the other"


def check_adapter(config: DictConfig, layers: Collection[str]) -> Iterator[str]:
    """Yield every LoRA target that the policy does not have. ``layers``: the names of the policy's linear layers.

    PEFT ignores a name that fits no layer, as long as another name fits.
    """
    model = config.actor_rollout_ref.model
    targets = model.get("target_modules")
    for target in [targets] if isinstance(targets, str) else list(targets or ()):
        given = target if isinstance(targets, str) else [target]
        if not any(is_adapted(layer, given) for layer in layers):
            known = sorted({layer.rpartition(".")[2] for layer in layers})
            yield f"{_MODEL}.target_modules: the policy has no linear layer {target}; it has {', '.join(known)}"


def _check_fixed(config: DictConfig) -> Iterator[str]:
    for key, (only, reason) in _FIXED.items():
        value = OmegaConf.select(config, key)
        if key.startswith("reward.") and config.reward.custom_reward_function.path is None:
            continue  # verl's own reward, which checks.py refuses
        if value != only:
            yield f"{key}={value}: it must be {only}: {reason}"
    for old in _LEGACY:
        for key, value in _leaves(OmegaConf.select(config, old)):
            if value is not None:
                yield f"{old}.{key}={value}: verl 0.9.1's V1 trainer ignores it; set the key under reward"
    rollout = config.actor_rollout_ref.rollout
    for rollout_key, data_key in (("prompt_length", "max_prompt_length"), ("response_length", "max_response_length")):
        if rollout[rollout_key] != config.data[data_key]:
            yield f"{_ROLLOUT}.{rollout_key} {rollout[rollout_key]}: set data.{data_key}, which it follows"


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values below ``node`` with their dotted keys."""
    if not isinstance(node, DictConfig):
        return
    for key, value in node.items():
        if isinstance(value, DictConfig):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_batches(config: DictConfig) -> Iterator[str]:
    actor, rollout, reference = (config.actor_rollout_ref[name] for name in ("actor", "rollout", "ref"))
    if actor.use_dynamic_bsz != rollout.log_prob_use_dynamic_bsz:
        yield (
            f"{_ROLLOUT}.log_prob_use_dynamic_bsz={rollout.log_prob_use_dynamic_bsz}: it must equal"
            f" {_ACTOR}.use_dynamic_bsz"
        )
    if not uses_reference(config) or reference.log_prob_use_dynamic_bsz:
        return
    if reference.log_prob_micro_batch_size_per_gpu is None:
        yield (
            f"{_REFERENCE}.log_prob_micro_batch_size_per_gpu must be set if log_prob_use_dynamic_bsz=false: verl"
            " 0.9.1 takes the size from no other key"
        )


def _check_generation(config: DictConfig) -> Iterator[str]:
    rollout, devices = config.actor_rollout_ref.rollout, config.trainer.nnodes * config.trainer.n_gpus_per_node
    replica = replica_devices(config)
    if rollout.data_parallel_size > 1 and devices % replica:
        yield (
            f"{_ROLLOUT}: tensor_model_parallel_size x data_parallel_size is {replica}, which does not divide the"
            f" {devices} devices"
        )
    for key, known in (("load_format", LOAD_FORMATS), ("dtype", _ENGINE_DTYPES)):
        if rollout[key] not in known:
            yield f"{_ROLLOUT}.{key} {rollout[key]}: choose from {', '.join(known)}"
    agent = rollout.agent
    if agent.default_agent_loop not in ("single_turn_agent", "tool_agent") and agent.agent_loop_config_path is None:
        yield f"{_ROLLOUT}.agent.default_agent_loop {agent.default_agent_loop}: verl 0.9.1 does not have it"
    sampler = config.trainer.v1.sampler
    if sampler.max_off_policy_strategy not in ("drop", "wait"):
        yield f"trainer.v1.sampler.max_off_policy_strategy {sampler.max_off_policy_strategy}: choose drop or wait"
    threshold = sampler.max_off_policy_threshold
    if threshold is not None and (not isinstance(threshold, int) or threshold < 1):
        yield f"trainer.v1.sampler.max_off_policy_threshold {threshold}: it must be null or at least 1"


def _check_critic(config: DictConfig) -> Iterator[str]:
    if config.algorithm.adv_estimator == "gae" and not uses_critic(config):
        yield "critic.enable=false: gae computes advantages from the critic's values; set null"
    if not uses_critic(config):
        return
    mini_batch, batch = config.critic.ppo_mini_batch_size, config.data.train_batch_size
    if mini_batch < 1 or batch % mini_batch:
        yield f"data.train_batch_size {batch} is not divisible by critic.ppo_mini_batch_size {mini_batch}"
    if config.critic.ppo_epochs < 1:
        yield f"critic.ppo_epochs {config.critic.ppo_epochs}: it must be at least 1"
    if config.model_engine != "dp":
        return
    devices, parallel = (
        config.trainer.nnodes * config.trainer.n_gpus_per_node,
        config.critic.fsdp.ulysses_sequence_parallel_size,
    )
    if devices % parallel:
        yield f"critic.fsdp.ulysses_sequence_parallel_size {parallel} does not divide the {devices} devices"
    elif mini_batch * config.actor_rollout_ref.rollout.n % (devices // parallel):
        yield (
            f"critic.ppo_mini_batch_size {mini_batch} x rollout.n {config.actor_rollout_ref.rollout.n} is not divisible"
            f" by the critic's {devices // parallel} data-parallel ranks"
        )


def _check_checkpoints(config: DictConfig) -> Iterator[str]:
    trainer = config.trainer
    if trainer.resume_mode not in ("auto", "disable", "resume_path"):
        yield f"trainer.resume_mode {trainer.resume_mode}: choose auto, disable or resume_path"
    if trainer.resume_mode == "resume_path" and "global_step_" not in str(trainer.resume_from_path):
        yield (
            f"trainer.resume_from_path {trainer.resume_from_path}: resume_mode=resume_path needs the folder of a"
            " checkpoint, .../global_step_N"
        )
    for model in (_ACTOR, *(["critic"] if uses_critic(config) else [])):
        kept = OmegaConf.select(config, f"{model}.checkpoint")
        for key in ("save_contents", "load_contents"):
            if unknown := [part for part in kept[key] if part not in _CONTENTS]:
                yield f"{model}.checkpoint.{key} {', '.join(unknown)}: choose from {', '.join(_CONTENTS)}"
            if "model" not in kept[key]:
                yield f"{model}.checkpoint.{key}: without model, a resumed run would train from the first weights again"


def _check_training(config: DictConfig) -> Iterator[str]:
    """Check the optimizer, the sharding and the loggers."""
    from verl.utils.tracking import Tracking

    loggers = [config.trainer.logger] if isinstance(config.trainer.logger, str) else list(config.trainer.logger)
    for name in loggers:
        if name not in Tracking.supported_backend:
            yield f"trainer.logger {name}: verl 0.9.1 does not have it"
    if config.trainer.val_only and not config.trainer.val_before_train:
        yield "trainer.val_only=true needs trainer.val_before_train=true: otherwise verl 0.9.1 trains"
    if config.model_engine != "dp":
        return
    devices = config.trainer.nnodes * config.trainer.n_gpus_per_node
    actor = config.actor_rollout_ref.actor
    if actor.fsdp_config.ulysses_sequence_parallel_size not in (1, actor.ulysses_sequence_parallel_size):
        yield f"{_ACTOR}.fsdp_config.ulysses_sequence_parallel_size: set {_ACTOR}.ulysses_sequence_parallel_size"
    engines = {f"{_ACTOR}.fsdp_config": config.actor_rollout_ref.actor.fsdp_config}
    if uses_critic(config):
        engines["critic.fsdp"] = config.critic.fsdp
    if uses_reference(config):
        yield from _check_types(f"{_REFERENCE}.fsdp_config", config.actor_rollout_ref.ref.fsdp_config)
    yield from _check_lora(config)
    for key, engine in engines.items():
        yield from _check_types(key, engine)
        if engine.fsdp_size == 0 or (0 < engine.fsdp_size < devices and devices % engine.fsdp_size):
            yield f"{key}.fsdp_size {engine.fsdp_size} does not divide the {devices} devices; -1 shards over all"
    for key in (f"{_ACTOR}.optim", *(["critic.optim"] if uses_critic(config) else [])):
        yield from _check_optimizer(key, OmegaConf.select(config, key))


def _check_types(key: str, engine: DictConfig) -> Iterator[str]:
    """Check the dtypes in the settings of an FSDP engine."""
    from verl.utils.torch_dtypes import PrecisionType

    mixed = engine.get("mixed_precision") or {}
    given = {f"{key}.mixed_precision.{name}": mixed[name] for name in mixed if name.endswith("_dtype")}
    given[f"{key}.model_dtype"] = engine.model_dtype
    for name, value in given.items():
        try:
            PrecisionType.to_dtype(value)
        except RuntimeError:
            yield f"{name} {value}: choose fp32, bf16 or fp16"


def _check_lora(config: DictConfig) -> Iterator[str]:
    """Check the adapter's settings that do not depend on the policy."""
    model = config.actor_rollout_ref.model
    if model.lora.get("rank"):
        yield f"{_MODEL}.lora.rank={model.lora.rank}: verl's FSDP engine ignores it; set {_MODEL}.lora_rank"
    if model.get("lora_adapter_path") and not model.lora_rank:
        yield f"{_MODEL}.lora_adapter_path: verl's FSDP engine ignores it unless lora_rank is the adapter's rank"


def _check_optimizer(key: str, optimizer: DictConfig) -> Iterator[str]:
    """Check the optimizer of the FSDP engine."""
    try:
        found = hasattr(importlib.import_module(optimizer.optimizer_impl), optimizer.optimizer)
    except ImportError:
        found = False
    if not found:
        yield f"{key}: {optimizer.optimizer_impl} has no {optimizer.optimizer}"
    if optimizer.clip_grad is None:
        yield f"{key}.clip_grad must be a number; set a large one to switch clipping off"
    if optimizer.lr_scheduler_type not in ("constant", "cosine"):
        yield f"{key}.lr_scheduler_type {optimizer.lr_scheduler_type}: choose constant or cosine"
