"""Checks the objective of a training run: estimator, loss, sampling, and the correction of vLLM's probabilities.

Three kinds of settings are refused: those that verl 0.9.1 only rejects after the first rollout, those that it accepts
and ignores, and those that it accepts and applies wrongly. Each was found by reading verl's V1 trainer, its FSDP engine
and its losses.
"""

# pyright: reportArgumentType=false
# verl and its dependencies have incomplete types.
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

COMPARES_SAMPLES = ("grpo", "grpo_vectorized", "rloo", "rloo_vectorized", "opo", "gpg", "reinforce_plus_plus_baseline")
"""verl's estimators that compare the samples of one prompt."""
ESTIMATORS = (*COMPARES_SAMPLES, "gae", "reinforce_plus_plus")
_FAILING = {
    "gdpo": "verl 0.9.1's V1 trainer has no gdpo; advantage.form=decoupled is similar",
    "grpo_passk": "verl 0.9.1 refuses a group of one sample, which advantage.form=decoupled makes of a masked sample",
    "remax": "verl 0.9.1's V1 trainer generates no greedy response for its baseline",
    "optimal_token_baseline": "verl 0.9.1's V1 trainer does not compute sum_pi_squared",
    "tir_optimal_token_baseline": "verl 0.9.1's V1 trainer does not compute sum_pi_squared",
}
"""The estimators of verl that fail after the first rollout, with the reasons."""
FILTER_METRICS = ("acc", "score", "reward")
"""Metrics for dynamic sampling. A group of samples is dropped if all its samples have the same value."""
_ACTOR, _ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
_CORRECTION = "algorithm.rollout_correction"
_IGNORED: dict[str, tuple[Any, str]] = {
    f"{_ACTOR}.clip_ratio": (0.2, "set clip_ratio_low and clip_ratio_high"),
    f"{_ACTOR}.calculate_sum_pi_squared": (False, "no estimator of the V1 trainer uses it"),
    f"{_ACTOR}.use_prefix_grouper": (False, "the V1 trainer does not group prompts by prefix"),
    f"{_ROLLOUT}.do_sample": (True, "training always samples with rollout.temperature"),
    f"{_ROLLOUT}.repetition_penalty": (1.0, "the V1 trainer always samples with 1.0"),
    f"{_ROLLOUT}.over_sample_rate": (0, "choose switches=dynamic_sampling or switches=async"),
    f"{_ROLLOUT}.trace.backend": (None, "the V1 trainer traces no sample; set trainer.rollout_data_dir"),
    f"{_ROLLOUT}.checkpoint_manager_class": (None, "the V1 trainer always uses verl's own class"),
    f"{_ROLLOUT}.val_kwargs.do_sample": (False, "validation always samples with val_kwargs.temperature"),
    "algorithm.filter_groups.max_num_gen_batches": (0, "set max_inflight_gen_batches"),
    "critic.ppo_max_token_len_per_gpu": (32768, "set critic.ppo_infer_max_token_len_per_gpu"),
    "trainer.balance_batch": (True, "the V1 trainer always balances the batch"),
    "trainer.esi_redundant_time": (
        0,
        "the V1 trainer saves no checkpoint before an elastic server ends; lower trainer.save_freq",
    ),
}
"""Settings that verl's V1 trainer ignores. For each key: the value that changes nothing, and a remedy or the reason."""
_IGNORED_ON_FSDP: dict[str, tuple[Any, str]] = {
    f"{_ACTOR}.grad_clip": (1.0, "set actor.optim.clip_grad"),
    "critic.grad_clip": (1.0, "set critic.optim.clip_grad"),
    "critic.ulysses_sequence_parallel_size": (1, "set critic.fsdp.ulysses_sequence_parallel_size"),
    f"{_ROLLOUT}.enable_rollout_routing_replay": (
        False,
        "only Megatron and VeOmni replay the routing of experts; choose hardware=multi_node_megatron",
    ),
}
"""Further settings, which only the FSDP engine ignores."""
_USE_PF_PPO, _ASYNC_SAVE = "algorithm.use_pf_ppo", f"{_ACTOR}.checkpoint.async_save"


def check_objective(config: DictConfig) -> Iterator[str]:
    """Yield every reason why the objective cannot work or would not be what the configuration says."""
    yield from _check_estimator(config)
    yield from _check_filter(config)
    yield from _check_correction(config)
    yield from _check_names(config)
    yield from _check_loss(config)
    if config.model_engine == "megatron":
        yield from _check_routing(config)
    ignored = _IGNORED | _IGNORED_ON_FSDP if config.model_engine == "dp" else _IGNORED
    for key, (harmless, advice) in ignored.items():
        value = OmegaConf.select(config, key)
        if value not in (None, harmless):
            yield f"{key}={value}: verl 0.9.1 accepts and ignores it here; {advice}"
    yield from _check_misapplied(config)
    if config.actor_rollout_ref.actor.use_fused_kernels and not config.actor_rollout_ref.model.use_fused_kernels:
        yield f"{_ACTOR}.use_fused_kernels: verl 0.9.1 reads actor_rollout_ref.model.use_fused_kernels instead"


def _check_misapplied(config: DictConfig) -> Iterator[str]:
    """Refuse settings that verl acts on, but wrongly."""
    if OmegaConf.select(config, _USE_PF_PPO):
        # With gae, verl's compute_advantage returns a resampled batch. _compute_advantage then stores the advantages of
        # this batch under the keys of the original one.
        yield (
            f"{_USE_PF_PPO}=True: verl 0.9.1 resamples the responses with gae, and the V1 trainer then stores the"
            " advantages of the resampled responses for the wrong responses; all other estimators ignore it. Set it to"
            " false"
        )
    if config.model_engine == "dp" and OmegaConf.select(config, _ASYNC_SAVE):
        yield (
            f"{_ASYNC_SAVE}=True: on FSDP verl 0.9.1 saves synchronously all the same, but the V1 trainer does not"
            " record the checkpoint in latest_checkpointed_iteration.txt, so that no run could resume. Set it to false"
        )


def _check_estimator(config: DictConfig) -> Iterator[str]:
    estimator, n = config.algorithm.adv_estimator, config.actor_rollout_ref.rollout.n
    if estimator not in ESTIMATORS:
        reason = _FAILING.get(estimator, "verl 0.9.1 does not have it")
        yield f"algorithm.adv_estimator {estimator}: {reason}; choose one of {', '.join(ESTIMATORS)}"
    if estimator in COMPARES_SAMPLES and n < 2:
        yield f"{_ROLLOUT}.n must be at least 2: {estimator} compares a prompt's samples with each other"
    if not config.algorithm.norm_adv_by_std_in_grpo and estimator != "grpo":
        yield (
            f"algorithm.norm_adv_by_std_in_grpo=false (switches=dr_grpo): {estimator} ignores it; set"
            " algorithm.adv_estimator=grpo"
        )


def _check_filter(config: DictConfig) -> Iterator[str]:
    groups = OmegaConf.select(config, "algorithm.filter_groups")
    if groups is None or not groups.enable:
        return
    if groups.metric not in FILTER_METRICS:
        yield f"algorithm.filter_groups.metric {groups.metric}: choose one of {', '.join(FILTER_METRICS)}"
    if config.actor_rollout_ref.rollout.n < 2:
        yield f"{_ROLLOUT}.n must be at least 2: algorithm.filter_groups compares a prompt's samples with each other"
    if groups.max_inflight_gen_batches < 1:
        yield (
            f"algorithm.filter_groups.max_inflight_gen_batches {groups.max_inflight_gen_batches}: it must be at least 1"
        )


def _check_correction(config: DictConfig) -> Iterator[str]:
    """Check the correction of the difference between vLLM's and the trainer's probabilities."""
    correction, loss = OmegaConf.select(config, _CORRECTION), config.actor_rollout_ref.actor.policy_loss.loss_mode
    if correction is None:
        return
    used = [name for name in ("rollout_is", "rollout_rs") if correction.get(name)]
    if not config.actor_rollout_ref.rollout.calculate_log_probs:
        for name in [*used, *(["bypass_mode"] if correction.bypass_mode else [])]:
            yield f"{_CORRECTION}.{name} needs {_ROLLOUT}.calculate_log_probs=true"
    if correction.bypass_mode:
        for name in used:
            yield (
                f"{_CORRECTION}.{name}: verl 0.9.1's V1 trainer ignores it with bypass_mode=true; set it to null, or"
                " bypass_mode to false"
            )
    if loss == "bypass_mode":
        yield (
            f"{_ACTOR}.policy_loss.loss_mode=bypass_mode: verl 0.9.1's V1 trainer does not pass {_CORRECTION} on to it;"
            " choose another loss. For the ratio to vLLM's probabilities, set switches=one_update"
        )


def _check_names(config: DictConfig) -> Iterator[str]:
    """Call verl's functions with one token, to find names and bounds that they would reject after the first rollout."""
    import torch
    from verl.trainer.ppo.core_algos import get_kl_controller, get_policy_loss_fn, kl_penalty
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_rejection_mask

    actor, algorithm = config.actor_rollout_ref.actor, config.algorithm
    token, correction = torch.zeros(1, 1), algorithm.get("rollout_correction") or {}
    names = ("rollout_is", "rollout_is_threshold", "rollout_rs", "rollout_rs_threshold")
    bounds = {name: correction.get(name) for name in names}
    trials: list[tuple[str, bool, Callable[[], object]]] = [
        (f"{_ACTOR}.policy_loss.loss_mode", True, lambda: get_policy_loss_fn(actor.policy_loss.loss_mode)),
        (f"{_ACTOR}.kl_loss_type", actor.use_kl_loss, lambda: kl_penalty(token, token, actor.kl_loss_type)),
        ("algorithm.kl_penalty", algorithm.use_kl_in_reward, lambda: kl_penalty(token, token, algorithm.kl_penalty)),
        ("algorithm.kl_ctrl.type", algorithm.use_kl_in_reward, lambda: get_kl_controller(algorithm.kl_ctrl)),
        (
            _CORRECTION,
            True,
            lambda: compute_rollout_correction_and_rejection_mask(token, token, torch.ones(1, 1), **bounds),
        ),
    ]
    for key, is_used, trial in trials:
        try:
            if is_used:
                trial()
        except (ValueError, TypeError, NotImplementedError, AssertionError) as error:
            yield f"{key}: verl 0.9.1 refuses it: {str(error) or OmegaConf.select(config, key)}"


def _check_loss(config: DictConfig) -> Iterator[str]:
    """Refuse losses that do not average as the configuration says, or that lack a setting."""
    actor = config.actor_rollout_ref.actor
    key = f"{_ACTOR}.policy_loss.loss_mode={actor.policy_loss.loss_mode}"
    if actor.policy_loss.loss_mode == "geo_mean":
        yield (
            f"{key}: verl 0.9.1 ignores loss_agg_mode there and averages over each micro batch, so that the"
            " number of micro batches changes the gradient; choose another loss, such as gspo"
        )
    if actor.policy_loss.loss_mode == "sapo" and actor.loss_agg_mode != "seq-mean-token-mean":
        yield f"{key}: verl 0.9.1 ignores loss_agg_mode there; set {_ACTOR}.loss_agg_mode=seq-mean-token-mean"

    if actor.policy_loss.loss_mode == "dro" and not (actor.policy_loss.dro_beta or 0) > 0:
        yield f"{key}: set {_ACTOR}.policy_loss.dro_beta to a positive number"
    if actor.policy_loss.loss_mode == "clip_cov" and not actor.policy_loss.clip_cov_ratio > 0:
        yield f"{key}: {_ACTOR}.policy_loss.clip_cov_ratio must be greater than 0"


def _check_routing(config: DictConfig) -> Iterator[str]:
    """Check that vLLM returns the experts that it chose if, and only if, they are replayed."""
    key, returned = f"{_ACTOR}.megatron.router_replay.mode", f"{_ROLLOUT}.enable_rollout_routing_replay"
    mode, is_returned = OmegaConf.select(config, key), OmegaConf.select(config, returned)
    if mode == "R3" and not is_returned:
        yield f"{key}=R3 needs {returned}=true: it replays the experts that vLLM chose"
    if mode == "R2" and is_returned:
        yield f"{key}=R2: R2 replays the experts of the trainer's own forward pass; set {returned}=false"
    if mode == "disabled" and is_returned:
        yield f"{returned}=true: with {key}=disabled, nothing replays the experts that vLLM chose; set {key}=R3"
