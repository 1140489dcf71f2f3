"""Checks a training run before it starts: batch sizes, reward, lengths, and verl's own check of the configuration."""

from __future__ import annotations

import io
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import fields
from math import prod

from hydra.errors import InstantiationException
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from tmas.rewards.settings import JUDGE_PROMPTS, reward_settings
from tmas.settings import secret_names
from tmas.training.rl.inputs import Policy, RowFile, linear_layers
from tmas.training.rl.objective_checks import check_objective
from tmas.training.rl.settings import REWARD_KEY, RolloutSettings
from tmas.training.rl.worker_checks import (
    check_adapter,
    check_heads,
    check_ranges,
    check_workers,
    replica_devices,
    uses_critic,
    uses_reference,
)

TRAINER_MODES = ("sync", "colocate_async")
"""verl's trainers that this project extends (tmas/training/rl/trainer.py)."""
ENGINES = {"dp": "one_node, multi_node or cpu", "megatron": "multi_node_megatron"}
"""verl's engines for which there are presets, and those presets."""
STRATEGIES = {"dp": ("fsdp2", "fsdp"), "megatron": ("megatron",)}
"""The values of ``strategy`` that each engine has."""
_ACTOR = "actor_rollout_ref.actor"


def device_count(config: DictConfig) -> int:
    """Number of the trainer's devices on all nodes."""
    return config.trainer.nnodes * config.trainer.n_gpus_per_node


def rollout_replicas(config: DictConfig) -> int:
    """Number of vLLM replicas of the policy, which generate on the trainer's devices."""
    return device_count(config) // replica_devices(config)


def data_parallel_ranks(config: DictConfig) -> int:
    """Number of groups of devices that process different rows. All devices of a group work on the same rows."""
    return device_count(config) // prod(size for _, size in _parallel_sizes(config))


def sequence_parallel_size(config: DictConfig) -> int:
    """Number of devices that share the tokens of a sequence of the policy."""
    actor = config.actor_rollout_ref.actor
    return actor.megatron.context_parallel_size if _is_megatron(config) else actor.ulysses_sequence_parallel_size


def _parallel_sizes(config: DictConfig) -> list[tuple[str, int]]:
    """The settings that say how many devices process the same rows, with their values."""
    keys = [f"{_ACTOR}.ulysses_sequence_parallel_size"]
    if _is_megatron(config):
        sizes = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size")
        keys = [f"{_ACTOR}.megatron.{size}" for size in sizes]
    return [(key, OmegaConf.select(config, key)) for key in keys]


def _is_megatron(config: DictConfig) -> bool:
    return config.model_engine == "megatron"


def needs_judge(config: DictConfig) -> bool:
    """Whether a judge computes a bonus of the reward."""
    forms = (OmegaConf.select(config, f"{REWARD_KEY}.{bonus}.form") for bonus in JUDGE_PROMPTS)
    return "judge" in forms


def find_defects(
    config: DictConfig, policy: Policy | None, train: Sequence[RowFile], validation: Sequence[RowFile]
) -> Iterator[str]:
    """Yield every reason why the run cannot work, with the key to change.

    ``policy``: None if it could not be read; checks that need it are skipped. ``train`` and ``validation``: the files
    of rows.
    """
    yield from _check_secrets(config)
    if engine_defects := list(_check_engine(config)):
        yield from engine_defects  # the other checks read the settings of the chosen engine
        return
    if out_of_range := list(check_ranges(config)):
        yield from out_of_range  # the other checks divide by these numbers
        return
    yield from check_settings(config)
    yield from _check_reward(config)
    yield from _check_rollouts(config)
    if policy:  # verl's configuration objects load the policy's own configuration
        yield from _check_by_verl(config)
        yield from check_heads(config, policy.shape)
        if config.actor_rollout_ref.model.lora_rank:
            yield from check_adapter(config, linear_layers(config.actor_rollout_ref.model.path))
    yield from _check_lengths(config, policy, [*train, *validation])
    yield from _check_judge(config, [*train, *validation])
    yield from _check_number_of_rows(config, train)


def _check_secrets(config: DictConfig) -> Iterator[str]:
    """Refuse secrets: the configuration is written to disk, printed by verl and sent to its loggers."""
    for place in ("env", "ray_kwargs.ray_init.runtime_env.env_vars"):
        for name in secret_names(OmegaConf.select(config, place) or ()):
            yield (
                f"{place}.{name}: settings are written to disk, so they must not hold secrets: set the variable where "
                "`tmas train` or `ray start` is called"
            )


def _check_engine(config: DictConfig) -> Iterator[str]:
    """Refuse settings of another engine: verl's own error would name a class instead of the key."""
    engine = OmegaConf.select(config, "model_engine")
    if engine not in ENGINES:
        yield f"model_engine={engine}: choose one of {', '.join(ENGINES)}; no other engine has been tested"
        return
    for place in (_ACTOR, "actor_rollout_ref.ref", "critic"):
        node = OmegaConf.select(config, place)
        known = {field.name for field in fields(get_class(node._target_))}
        for key in node:
            if key not in known and key != "_target_" and not key.startswith("log_prob_"):
                yield (
                    f"{place}.{key}: model_engine={engine} does not have this setting; choose"
                    f" hardware={ENGINES[engine]}, or leave the setting out"
                )
        if node.strategy not in STRATEGIES[engine]:
            yield f"{place}.strategy={node.strategy}: model_engine={engine} needs {' or '.join(STRATEGIES[engine])}"


def check_settings(config: DictConfig) -> Iterator[str]:
    """Check what the settings alone show: whether batch sizes and numbers of devices fit together, the objective, and
    what verl itself checks too late. The settings of the reward are checked separately."""
    yield from _check_devices(config)
    yield from _check_updates(config)
    yield from _check_gen_batch_size(config)
    yield from check_objective(config)
    yield from check_workers(config)
    if config.trainer.v1.trainer_mode not in TRAINER_MODES:
        yield (
            f"trainer.v1.trainer_mode={config.trainer.v1.trainer_mode}: choose one of {', '.join(TRAINER_MODES)}; only"
            " these trainers add the bonus and log the reward's parts"
        )
    model = config.reward.reward_model
    if model.enable and not model.enable_resource_pool:
        yield "reward.reward_model.enable_resource_pool must be true: otherwise verl 0.9.1 loses the rows' data_source"
    if model.enable and model.rollout.free_cache_engine:
        yield "reward.reward_model.rollout.free_cache_engine must be false: verl 0.9.1 does not wake the judge again"


def _check_devices(config: DictConfig) -> Iterator[str]:
    gpus, rollout, sizes = device_count(config), config.actor_rollout_ref.rollout, _parallel_sizes(config)
    parallel = rollout.tensor_model_parallel_size
    if gpus % parallel:
        yield f"actor_rollout_ref.rollout.tensor_model_parallel_size {parallel} does not divide the {gpus} devices"
    if gpus % prod(size for _, size in sizes):
        yield f"{' x '.join(f'{key} {size}' for key, size in sizes)} does not divide the {gpus} devices"
        return
    for key in ("data.train_batch_size", f"{_ACTOR}.ppo_mini_batch_size"):
        prompts, ranks = OmegaConf.select(config, key), data_parallel_ranks(config)
        if prompts * rollout.n % ranks:
            yield f"{key} {prompts} x rollout.n {rollout.n} is not divisible by the {ranks} data-parallel ranks"
    if _is_megatron(config):
        yield from _check_experts(config, gpus)


def _check_experts(config: DictConfig, gpus: int) -> Iterator[str]:
    """Check the size of the groups of devices over which Megatron distributes experts. verl does not check it."""
    megatron = config.actor_rollout_ref.actor.megatron
    tensor = megatron.expert_tensor_parallel_size or megatron.tensor_model_parallel_size
    group = megatron.expert_model_parallel_size * tensor * megatron.pipeline_model_parallel_size
    if gpus % group:
        yield (
            f"{_ACTOR}.megatron: expert_model_parallel_size x expert_tensor_parallel_size x"
            f" pipeline_model_parallel_size is {group}, which does not divide the {gpus} devices"
        )


def _check_updates(config: DictConfig) -> Iterator[str]:
    batch, mini_batch = config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    updates = config.updates_per_step
    if updates < 1:
        yield f"updates_per_step {updates}: it must be at least 1"
    elif mini_batch == max(1, batch // updates) and batch % updates:  # the default, derived from updates_per_step
        yield f"updates_per_step {updates} does not divide data.train_batch_size {batch}"
    elif batch % mini_batch:
        yield f"data.train_batch_size {batch} is not divisible by {_ACTOR}.ppo_mini_batch_size {mini_batch}"


def _check_gen_batch_size(config: DictConfig) -> Iterator[str]:
    """Check ``data.gen_batch_size``, the number of prompts that verl reads from the data at a time."""
    chunk, batch = config.data.get("gen_batch_size"), config.data.train_batch_size
    samples_dynamically = bool(OmegaConf.select(config, "algorithm.filter_groups.enable"))
    if chunk in (None, 1):
        return
    if config.trainer.v1.trainer_mode != "sync" or samples_dynamically:
        yield f"data.gen_batch_size {chunk}: verl 0.9.1 uses 1 for asynchronous training and dynamic sampling; set null"
    elif chunk < 1 or batch % chunk:
        yield f"data.gen_batch_size {chunk} does not divide data.train_batch_size {batch}"


def _check_reward(config: DictConfig) -> Iterator[str]:
    """Check the settings of the reward, which come from ``conf/reward/``."""
    function = config.reward.custom_reward_function
    settings = OmegaConf.select(config, REWARD_KEY)
    if function.path != "pkg://tmas.rewards.verl_entry" or settings is None:
        yield "reward: choose reward=hybrid or vanilla; verl's default reward ignores the kind of prompt (_source)"
        return
    # Any address will do: the settings are only validated.
    hosted = "127.0.0.1:1" if config.reward.reward_model.enable else None
    try:
        reward_settings(OmegaConf.to_container(settings), hosted)  # type: ignore[arg-type]
    except ValidationError as error:
        for found in error.errors():
            place = ".".join([REWARD_KEY, *map(str, found["loc"])])
            yield f"{place}: {found['msg']}"


def _check_rollouts(config: DictConfig) -> Iterator[str]:
    """Check ``trainer.rollouts``, which the trainer itself would only read after the first step."""
    try:
        RolloutSettings.model_validate(config.trainer.get("rollouts", {}))
    except ValidationError as error:
        for found in error.errors():
            yield f"{'.'.join(['trainer.rollouts', *map(str, found['loc'])])}: {found['msg']}"


def _check_lengths(config: DictConfig, policy: Policy | None, files: Sequence[RowFile]) -> Iterator[str]:
    longest = config.data.max_prompt_length + config.data.max_response_length
    if policy and longest > policy.context_length:
        yield (
            f"data.max_prompt_length + data.max_response_length is {longest:,} tokens, more than the policy's context "
            f"of {policy.context_length:,}"
        )
    if config.actor_rollout_ref.rollout.max_model_len < longest:
        yield f"actor_rollout_ref.rollout.max_model_len must be at least {longest:,}"
    for key, per_device, parallel in _token_limits(config):
        if per_device * parallel < longest:
            yield (
                f"{key}: {per_device * parallel:,} tokens on all sequence-parallel devices, but a sequence can have "
                f"{longest:,}"
            )
    for file in files:
        if file.longest_prompt > config.data.max_prompt_length:
            yield (
                f"{file.path}: a prompt has {file.longest_prompt:,} tokens, more than data.max_prompt_length "
                f"{config.data.max_prompt_length:,}"
            )


def _token_limits(config: DictConfig) -> Iterator[tuple[str, int, int]]:
    """Limits of a micro batch: the key, the tokens per device, and the number of devices that share a sequence."""
    actor, rollout, critic = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.critic
    if actor.use_dynamic_bsz:
        for key, tokens in (
            (f"{_ACTOR}.ppo_max_token_len_per_gpu", actor.ppo_max_token_len_per_gpu),
            ("actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu", rollout.log_prob_max_token_len_per_gpu),
        ):
            yield key, tokens, sequence_parallel_size(config)
    reference = config.actor_rollout_ref.ref
    if uses_reference(config) and reference.log_prob_use_dynamic_bsz:
        # 0: the same as the policy's
        parallel = 0 if _is_megatron(config) else reference.ulysses_sequence_parallel_size
        key = "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu"
        yield key, reference.log_prob_max_token_len_per_gpu, parallel or sequence_parallel_size(config)
    if uses_critic(config):
        megatron = _is_megatron(config)
        parallel = critic.megatron.context_parallel_size if megatron else critic.fsdp.ulysses_sequence_parallel_size
        # verl 0.9.1 also reads this key for updates.
        yield "critic.ppo_infer_max_token_len_per_gpu", critic.ppo_infer_max_token_len_per_gpu, parallel


def _check_judge(config: DictConfig, files: Sequence[RowFile]) -> Iterator[str]:
    if OmegaConf.select(config, f"{REWARD_KEY}.judge"):
        return
    for file in files:
        if file.judged:
            yield f"{file.path}: {file.judged:,} rows of data_source math_grm, but there is no judge: set judge.name"


def _check_number_of_rows(config: DictConfig, train: Sequence[RowFile]) -> Iterator[str]:
    for key in ("data.train_files", "data.val_files"):
        if not OmegaConf.select(config, key):
            yield f"{key}: no file is given"
    batch, rows = config.data.train_batch_size, training_rows(config, train)
    if 0 < rows < batch:
        yield f"data.train_batch_size {batch}: there are only {rows} rows to train on"


def training_rows(config: DictConfig, train: Sequence[RowFile]) -> int:
    """Number of rows that verl trains on: all rows of the files, or ``data.train_max_samples`` of them."""
    rows, limit = sum(file.rows for file in train), config.data.get("train_max_samples")
    return min(rows, limit) if limit is not None and limit > 0 else rows


def _check_by_verl(config: DictConfig) -> Iterator[str]:
    """Run verl's own check, which builds verl's configuration objects, and build those that its workers need.

    Its output is dropped, because it says that all checks passed, while our own checks may still fail. The trainer
    prints it again.
    """
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    checks: list[Callable[[], object]] = [
        lambda: validate_config(config, need_reference_policy(config), need_critic(config)),
        lambda: omega_conf_to_dataclass(config.actor_rollout_ref.rollout),
        lambda: omega_conf_to_dataclass(config.algorithm),
    ]
    for check in checks:
        try:
            with redirect_stdout(io.StringIO()):
                check()
        except (AssertionError, ValueError, TypeError, NotImplementedError, InstantiationException) as error:
            # InstantiationException: one of the other errors, raised in a class that Hydra created
            yield f"verl: {_text(error.__cause__ or error)}"


def _text(error: BaseException) -> str:
    """The message of the error, or the line that raised it: some of verl's assertions have no message."""
    raised_by = traceback.extract_tb(error.__traceback__)
    return str(error) or (f"{type(error).__name__} in {raised_by[-1].line}" if raised_by else type(error).__name__)
