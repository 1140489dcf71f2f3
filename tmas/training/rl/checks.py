"""Checks a training run before it starts: batch sizes, reward, lengths, and verl's own check of the configuration."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout

from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from tmas.rewards.settings import JUDGE_PROMPTS, reward_settings
from tmas.settings import secret_names
from tmas.training.rl.inputs import REWARD_KEY, Policy, RowFile

COMPARES_SAMPLES = (
    "grpo",
    "grpo_vectorized",
    "grpo_passk",
    "rloo",
    "rloo_vectorized",
    "opo",
    "reinforce_plus_plus_baseline",
)
"""verl's estimators that compare the samples of one prompt."""
FILTER_METRICS = ("acc", "score", "reward")
"""What groups of samples may be filtered by (dynamic sampling): they are filtered out if all their values are equal."""


def device_count(config: DictConfig) -> int:
    """Number of the trainer's devices on all nodes."""
    return config.trainer.nnodes * config.trainer.n_gpus_per_node


def data_parallel_ranks(config: DictConfig) -> int:
    """Number of groups of devices that process different rows. A sequence-parallel group processes the same rows."""
    return device_count(config) // config.actor_rollout_ref.actor.ulysses_sequence_parallel_size


def needs_judge(config: DictConfig) -> bool:
    """Whether a judge computes a bonus of the reward."""
    forms = (OmegaConf.select(config, f"{REWARD_KEY}.{bonus}.form") for bonus in JUDGE_PROMPTS)
    return "judge" in forms


def find_defects(
    config: DictConfig, policy: Policy | None, train: Sequence[RowFile], validation: Sequence[RowFile]
) -> Iterator[str]:
    """Yield every reason why the run cannot work, with the key to change."""
    yield from _check_secrets(config)
    if OmegaConf.select(config, "model_engine") != "dp":
        yield "model_engine: this project's settings are for verl's FSDP engine (dp) only"
        return
    yield from check_sizes(config)
    yield from _check_reward(config)
    if policy:  # verl's configuration objects load the policy's own configuration
        yield from _check_by_verl(config)
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


def check_sizes(config: DictConfig) -> Iterator[str]:
    """Check that batch sizes and numbers of devices fit together, and settings that verl itself checks too late."""
    gpus, actor, rollout = device_count(config), config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    parallel = rollout.tensor_model_parallel_size
    if gpus % parallel:
        yield f"actor_rollout_ref.rollout.tensor_model_parallel_size {parallel} does not divide the {gpus} devices"
    if gpus % actor.ulysses_sequence_parallel_size:
        size = actor.ulysses_sequence_parallel_size
        yield f"actor_rollout_ref.actor.ulysses_sequence_parallel_size {size} does not divide the {gpus} devices"
    else:
        for key in ("data.train_batch_size", "actor_rollout_ref.actor.ppo_mini_batch_size"):
            prompts, ranks = OmegaConf.select(config, key), data_parallel_ranks(config)
            if prompts * rollout.n % ranks:
                yield f"{key} {prompts} x rollout.n {rollout.n} is not divisible by the {ranks} data-parallel ranks"
    batch, mini_batch = config.data.train_batch_size, actor.ppo_mini_batch_size
    if batch % mini_batch:
        key = "actor_rollout_ref.actor.ppo_mini_batch_size"
        yield f"data.train_batch_size {batch} is not divisible by {key} {mini_batch}"
    yield from _check_objective(config)
    if config.trainer.v1.trainer_mode != "sync":
        yield "trainer.v1.trainer_mode must be sync: only that trainer adds the bonus and logs the reward's parts"
    model = config.reward.reward_model
    if model.enable and not model.enable_resource_pool:
        yield "reward.reward_model.enable_resource_pool must be true: otherwise verl 0.9.1 loses the rows' data_source"
    if model.enable and model.rollout.free_cache_engine:
        yield "reward.reward_model.rollout.free_cache_engine must be false: verl 0.9.1 does not wake the judge again"


def _check_objective(config: DictConfig) -> Iterator[str]:
    """Refuse what verl 0.9.1 only finds out after the first rollout, and switches that it accepts and ignores."""
    rollout, estimator = config.actor_rollout_ref.rollout, config.algorithm.adv_estimator
    if estimator == "gdpo":
        yield "algorithm.adv_estimator: verl 0.9.1's V1 trainer has no gdpo; advantage.form=decoupled is its relative"
    if estimator in COMPARES_SAMPLES and rollout.n < 2:
        yield f"actor_rollout_ref.rollout.n must be at least 2: {estimator} compares a prompt's samples with each other"
    groups = OmegaConf.select(config, "algorithm.filter_groups")
    if groups is not None and groups.enable and groups.metric not in FILTER_METRICS:
        yield f"algorithm.filter_groups.metric {groups.metric}: choose one of {', '.join(FILTER_METRICS)}"
    if OmegaConf.select(config, "actor_rollout_ref.rollout.enable_rollout_routing_replay"):
        yield (
            "actor_rollout_ref.rollout.enable_rollout_routing_replay: verl 0.9.1 replays the routing of experts on"
            " Megatron and VeOmni only; on FSDP the switch does nothing"
        )


def _check_reward(config: DictConfig) -> Iterator[str]:
    """Check the settings of the reward, which come from ``conf/reward/``."""
    function = config.reward.custom_reward_function
    settings = OmegaConf.select(config, REWARD_KEY)
    if function.path != "pkg://tmas.rewards.verl_entry" or settings is None:
        yield "reward: choose reward=hybrid or vanilla; verl's default reward does not use _source"
        return
    # Any address will do: the settings are only validated.
    hosted = "127.0.0.1:1" if config.reward.reward_model.enable else None
    try:
        reward_settings(OmegaConf.to_container(settings), hosted)  # type: ignore[arg-type]
    except ValidationError as error:
        for found in error.errors():
            place = ".".join([REWARD_KEY, *map(str, found["loc"])])
            yield f"{place}: {found['msg']}"


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
            ("actor_rollout_ref.actor.ppo_max_token_len_per_gpu", actor.ppo_max_token_len_per_gpu),
            ("actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu", rollout.log_prob_max_token_len_per_gpu),
        ):
            yield key, tokens, actor.ulysses_sequence_parallel_size
    if config.algorithm.adv_estimator == "gae":  # verl 0.9.1 also reads this key for updates
        parallel = critic.fsdp.ulysses_sequence_parallel_size
        yield "critic.ppo_infer_max_token_len_per_gpu", critic.ppo_infer_max_token_len_per_gpu, parallel


def _check_judge(config: DictConfig, files: Sequence[RowFile]) -> Iterator[str]:
    if OmegaConf.select(config, f"{REWARD_KEY}.judge"):
        return
    for file in files:
        if file.judged:
            yield f"{file.path}: {file.judged:,} rows of data_source math_grm, but there is no judge: set judge.name"


def _check_number_of_rows(config: DictConfig, train: Sequence[RowFile]) -> Iterator[str]:
    batch, rows = config.data.train_batch_size, sum(file.rows for file in train)
    if 0 < rows < batch:
        yield f"data.train_batch_size {batch}: there are only {rows} rows to train on"


def _check_by_verl(config: DictConfig) -> Iterator[str]:
    """Run verl's own check, which builds verl's configuration objects.

    Its output is dropped: it would say that all checks passed before ours have run. The trainer prints it again.
    """
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    try:
        with redirect_stdout(io.StringIO()):
            validate_config(config, need_reference_policy(config), need_critic(config))
    except (AssertionError, ValueError, TypeError, NotImplementedError) as error:
        yield f"verl: {error}"
