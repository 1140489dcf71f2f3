"""Every switch composes with every experiment, alone and with others, and verl's own checks and ours accept it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verl")

from omegaconf import DictConfig, OmegaConf

from tests.contract.test_train_configs import SHORT, composed, long, task  # noqa: F401 - fixtures
from tmas.training.rl.checks import find_defects
from tmas.training.rl.plan import PlanError, make_plan

CONF = Path(__file__).parents[2] / "conf"
CHANGES: dict[str, dict[str, Any]] = {
    "dynamic_sampling": {"algorithm.filter_groups.enable": True, "algorithm.filter_groups.metric": "acc"},
    "dr_grpo": {
        "algorithm.norm_adv_by_std_in_grpo": False,
        "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-sum-norm",
        "actor_rollout_ref.actor.loss_scale_factor": 64,
    },
    "gspo": {
        "actor_rollout_ref.actor.policy_loss.loss_mode": "gspo",
        "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-mean",
        "actor_rollout_ref.actor.clip_ratio_low": 3e-4,
        "actor_rollout_ref.actor.clip_ratio_high": 4e-4,
    },
    "overlong_penalty": {"reward.custom_reward_function.reward_kwargs.settings.overlong.penalty": 0.5},
    "icepop": {"algorithm.rollout_correction.rollout_is_threshold": "0.5_5.0"},
    "rejection": {
        "algorithm.rollout_correction.rollout_rs": "seq_mean_k1",
        "algorithm.rollout_correction.rollout_rs_threshold": "0.999_1.001",
    },
    "one_update": {
        "algorithm.rollout_correction.bypass_mode": True,
        "algorithm.rollout_correction.rollout_is": None,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 64,
    },
    "async": {
        "trainer.v1.trainer_mode": "colocate_async",
        "trainer.v1.sampler.max_off_policy_strategy": "wait",
        "trainer.v1.sampler.max_off_policy_threshold": 4,
    },
}
Compose = Callable[..., DictConfig]


def test_every_switch_is_tested_and_documented() -> None:
    files = {file.stem for file in (CONF / "switches").glob("*.yaml")}
    page = (CONF.parent / "docs" / "training.md").read_text("utf-8")
    assert files == set(CHANGES) == {name for names in TOGETHER for name in names.split(",")}
    assert [name for name in sorted(files) if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize("switch", CHANGES)
def test_a_switch_changes_what_it_says_and_is_accepted(switch: str, composed: Compose) -> None:  # noqa: F811
    config = composed("vanilla_grpo", *SHORT, f"switches={switch}")
    assert {key: OmegaConf.select(config, key) for key in CHANGES[switch]} == CHANGES[switch]
    make_plan(config)
    plain = composed("vanilla_grpo", *SHORT)
    assert {key: OmegaConf.select(plain, key) for key in CHANGES[switch]} != CHANGES[switch]


TOGETHER = ["dynamic_sampling,dr_grpo,overlong_penalty,icepop,async", "gspo,rejection", "one_update"]
"""All switches: those on one line do not exclude each other."""


@pytest.mark.parametrize("switches", TOGETHER)
@pytest.mark.parametrize("experiment", ["hybrid_grpo_30b", "grpo_cpu"])
def test_every_switch_goes_with_every_hardware(switches: str, experiment: str, composed: Compose) -> None:  # noqa: F811
    config = composed(experiment, *SHORT, f"switches=[{switches}]")
    changes = {key: value for name in switches.split(",") for key, value in CHANGES[name].items()}
    changes.pop("actor_rollout_ref.actor.ppo_mini_batch_size", None)  # the experiment's own batch
    assert {key: OmegaConf.select(config, key) for key in changes} == changes
    make_plan(config)


def test_switches_are_combined_and_the_last_one_wins(composed: Compose) -> None:  # noqa: F811
    dapo = composed("hybrid_grpo", *SHORT, "switches=[dynamic_sampling,overlong_penalty,rejection,async]")
    make_plan(dapo)
    assert dapo.algorithm.filter_groups.enable
    assert dapo.algorithm.rollout_correction.rollout_rs == "seq_mean_k1"
    both = composed("hybrid_grpo", *SHORT, "switches=[dr_grpo,gspo]")
    make_plan(both)
    assert not both.algorithm.norm_adv_by_std_in_grpo
    assert both.actor_rollout_ref.actor.loss_agg_mode == "seq-mean-token-mean"


def test_a_key_on_the_command_line_wins_over_a_switch(composed: Compose) -> None:  # noqa: F811
    config = composed("vanilla_grpo", *SHORT, "switches=gspo", "actor_rollout_ref.actor.clip_ratio_high=0.001")
    assert config.actor_rollout_ref.actor.clip_ratio_high == 0.001


def test_verl_reads_the_correction_as_it_is_meant(composed: Compose) -> None:  # noqa: F811
    from verl.trainer.ppo.rollout_corr_helper import _parse_rollout_is_threshold

    icepop = composed("vanilla_grpo", *SHORT, "switches=icepop").algorithm.rollout_correction
    assert _parse_rollout_is_threshold(icepop.rollout_is_threshold) == (5.0, 0.5)
    default = composed("vanilla_grpo", *SHORT).algorithm.rollout_correction
    assert (default.rollout_is, _parse_rollout_is_threshold(default.rollout_is_threshold)) == ("token", (2.0, None))


@pytest.mark.parametrize("experiment", ["hybrid_grpo", "vanilla_grpo", "hybrid_ppo", "hybrid_grpo_30b", "grpo_cpu"])
def test_the_clip_and_the_correction_are_real_by_default(experiment: str, composed: Compose) -> None:  # noqa: F811
    """With one update per step, the ratio that the clip bounds is always 1."""
    config = composed(experiment, *SHORT)
    updates = dict(make_plan(config).entries)["per step"]
    assert updates.endswith(" 4 updates")
    assert config.actor_rollout_ref.actor.shuffle
    assert config.actor_rollout_ref.rollout.calculate_log_probs


def test_each_epoch_repeats_the_updates_of_a_step(composed: Compose) -> None:  # noqa: F811
    config = composed("hybrid_grpo", *SHORT, "actor_rollout_ref.actor.ppo_epochs=2")
    assert dict(make_plan(config).entries)["per step"].endswith(" 8 updates")


def test_the_miniature_trains_as_before(composed: Compose) -> None:  # noqa: F811
    config = composed("miniature_grpo", "judge.name=j", "judge.base_url=http://127.0.0.1:1/v1")
    actor = config.actor_rollout_ref.actor
    assert (actor.ppo_mini_batch_size, actor.shuffle) == (config.data.train_batch_size, False)
    assert config.algorithm.rollout_correction.rollout_is is None


CORRECTION, ROLLOUT = "algorithm.rollout_correction", "actor_rollout_ref.rollout"
ACTOR = "actor_rollout_ref.actor"


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["updates_per_step=5"], "updates_per_step 5 does not divide data.train_batch_size 32"),
        (["updates_per_step=0"], "updates_per_step 0: it must be at least 1"),
        (["algorithm.adv_estimator=remax"], "generates no greedy response"),
        (["algorithm.adv_estimator=grpo_passk"], "refuses a group of one sample"),
        (["algorithm.adv_estimator=optimal_token_baseline"], "does not compute sum_pi_squared"),
        (["algorithm.adv_estimator=gro"], "adv_estimator gro: verl 0.9.1 does not have it"),
        (["switches=dr_grpo", "algorithm.adv_estimator=rloo"], "norm_adv_by_std_in_grpo=false .*: rloo ignores it"),
        (["switches=dr_grpo", "algorithm.adv_estimator=gae"], "gae ignores it"),
        (
            ["switches=dynamic_sampling", f"{ROLLOUT}.n=1", "algorithm.adv_estimator=gae"],
            "filter_groups compares a prompt's samples",
        ),
        (["switches=dynamic_sampling", "algorithm.filter_groups.max_num_gen_batches=3"], "set max_inflight"),
        (["switches=[one_update,icepop]"], "rollout_is: verl 0.9.1's V1 trainer ignores it with bypass_mode=true"),
        (["switches=[one_update,rejection]"], "rollout_rs: verl 0.9.1's V1 trainer ignores it with bypass_mode"),
        ([f"{ROLLOUT}.calculate_log_probs=false"], "rollout_correction.rollout_is needs .*calculate_log_probs=true"),
        (["switches=one_update", f"{ROLLOUT}.calculate_log_probs=false"], "bypass_mode needs .*calculate_log_probs"),
        ([f"{CORRECTION}.rollout_rs=token_k1"], "rollout_rs_threshold must be explicitly provided"),
        ([f"{CORRECTION}.rollout_is=tokens"], "rollout_correction: verl 0.9.1 refuses it: .*tokens"),
        ([f"{CORRECTION}.rollout_is_threshold='5.0_0.5'"], "lower bound must be <= upper bound"),
        ([f"{ACTOR}.policy_loss.loss_mode=gpso"], "loss_mode: verl 0.9.1 refuses it: Unsupported loss mode: gpso"),
        ([f"{ACTOR}.use_kl_loss=true", f"{ACTOR}.kl_loss_type=k9"], "kl_loss_type: verl 0.9.1 refuses it: k9"),
        (["algorithm.use_kl_in_reward=true", "algorithm.kl_penalty=k9"], "kl_penalty: verl 0.9.1 refuses it: k9"),
        ([f"{ACTOR}.policy_loss.loss_mode=bypass_mode"], "does not pass algorithm.rollout_correction on"),
        ([f"{ACTOR}.policy_loss.loss_mode=geo_mean"], "loss_mode=geo_mean: verl 0.9.1 ignores loss_agg_mode"),
        ([f"{ACTOR}.policy_loss.loss_mode=sapo"], "loss_mode=sapo: .* set .*loss_agg_mode=seq-mean-token-mean"),
        (["switches=dynamic_sampling", "data.gen_batch_size=8"], "data.gen_batch_size 8: verl 0.9.1 uses 1"),
        (["switches=async", "data.gen_batch_size=8"], "data.gen_batch_size 8: verl 0.9.1 uses 1"),
        (["data.gen_batch_size=5"], "data.gen_batch_size 5 does not divide data.train_batch_size"),
        ([f"{ACTOR}.clip_ratio=0.1"], "clip_ratio=0.1: verl 0.9.1 accepts and ignores it here; set clip_ratio_low"),
        ([f"{ACTOR}.grad_clip=0.5"], "set actor.optim.clip_grad"),
        (["critic.grad_clip=0.5"], "set critic.optim.clip_grad"),
        (["critic.ulysses_sequence_parallel_size=4"], "set critic.fsdp.ulysses_sequence_parallel_size"),
        (["critic.ppo_max_token_len_per_gpu=9000"], "set critic.ppo_infer_max_token_len_per_gpu"),
        ([f"{ACTOR}.use_fused_kernels=true"], "reads actor_rollout_ref.model.use_fused_kernels instead"),
        (
            [f"{ACTOR}.checkpoint.async_save=true"],
            "async_save=True: on FSDP verl 0.9.1 saves synchronously .* does not record the checkpoint",
        ),
        ([f"{ACTOR}.use_prefix_grouper=true"], "use_prefix_grouper=True"),
        ([f"{ACTOR}.calculate_sum_pi_squared=true"], "calculate_sum_pi_squared=True"),
        ([f"{ROLLOUT}.do_sample=false"], "training always samples"),
        ([f"{ROLLOUT}.val_kwargs.do_sample=true"], "validation always samples with val_kwargs"),
        ([f"+{ROLLOUT}.repetition_penalty=1.1"], "always samples with 1.0"),
        ([f"{ROLLOUT}.over_sample_rate=0.1"], "over_sample_rate=0.1"),
        ([f"{ROLLOUT}.trace.backend=weave"], "trace.backend=weave"),
        (
            ["algorithm.use_pf_ppo=true"],
            "use_pf_ppo=True: verl 0.9.1 resamples the responses with gae, .* for the wrong responses",
        ),
        (["trainer.balance_batch=false"], "always balances the batch"),
        (["trainer.esi_redundant_time=60"], "esi_redundant_time=60"),
        (["model_engine=veomni"], "model_engine=veomni: choose one of dp, megatron"),
        ([f"{ACTOR}.strategy=megatron"], "actor.strategy=megatron: model_engine=dp needs fsdp2 or fsdp"),
        ([f"+{ACTOR}.megatron.context_parallel_size=2"], "actor.megatron: model_engine=dp does not have this setting"),
    ],
)
def test_what_verl_ignores_or_rejects_too_late_is_refused_with_the_key(
    overrides: list[str],
    reason: str,
    composed: Compose,  # noqa: F811
) -> None:
    defects = list(find_defects(composed("grpo_cpu", *overrides), None, [], []))
    assert any(re.search(reason, defect) for defect in defects), defects


def test_an_error_in_a_class_of_verl_is_shown_without_a_traceback(composed: Compose) -> None:  # noqa: F811
    with pytest.raises(PlanError, match="verl: Invalid loss_agg_mode: mean"):
        make_plan(composed("grpo_cpu", f"{ACTOR}.loss_agg_mode=mean"))


MEGATRON = "hardware=multi_node_megatron"


def test_the_megatron_preset_composes_and_verl_accepts_it(composed: Compose, long: str) -> None:  # noqa: F811
    from verl.utils.config import omega_conf_to_dataclass

    config = composed("hybrid_grpo_30b", long, MEGATRON)
    assert "8 x" not in (plan := dict(make_plan(config).entries))["training"]
    assert plan["training"] == "megatron, 4 data-parallel ranks"
    actor: Any = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    longest = config.data.max_prompt_length + config.data.max_response_length
    assert actor.ppo_max_token_len_per_gpu * actor.engine.context_parallel_size >= longest == 45_056
    assert (actor.engine.router_replay.mode, config.actor_rollout_ref.rollout.enable_rollout_routing_replay) == (
        "R3",
        True,
    )


@pytest.mark.parametrize("experiment", ["vanilla_grpo", "hybrid_ppo"])
def test_other_experiments_have_a_megatron_form_too(experiment: str, composed: Compose, long: str) -> None:  # noqa: F811
    plan = dict(make_plan(composed(experiment, long, MEGATRON)).entries)
    assert plan["training"].startswith("megatron, ")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ([f"+{ACTOR}.ulysses_sequence_parallel_size=8"], "ulysses_sequence_parallel_size: model_engine=megatron"),
        ([f"{ACTOR}.megatron.context_parallel_size=3"], "context_parallel_size 3 does not divide the 32 devices"),
        ([f"{ACTOR}.megatron.expert_model_parallel_size=64"], "is 64, which does not divide the 32 devices"),
        ([f"{ACTOR}.ppo_max_token_len_per_gpu=20000"], "ppo_max_token_len_per_gpu: 40,000 tokens"),
        ([f"{ACTOR}.strategy=fsdp2"], "actor.strategy=fsdp2: model_engine=megatron needs megatron"),
        ([f"{ACTOR}.megatron.router_replay.mode=R2"], "router_replay.mode=R2: R2 replays"),
        ([f"{ROLLOUT}.enable_rollout_routing_replay=false"], "router_replay.mode=R3 needs"),
        ([f"{ACTOR}.megatron.router_replay.mode=disabled"], "nothing replays the experts"),
    ],
)
def test_settings_that_do_not_fit_megatron_are_refused(
    overrides: list[str],
    reason: str,
    composed: Compose,  # noqa: F811
    long: str,  # noqa: F811
) -> None:
    defects = list(find_defects(composed("hybrid_grpo_30b", long, MEGATRON, *overrides), None, [], []))
    assert any(re.search(reason, defect) for defect in defects), defects
