"""training/rl/worker_checks.py: what verl's workers would assert, or verl would ignore, is refused at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verl")

from omegaconf import DictConfig, OmegaConf

from tests.contract.test_train_configs import SHORT, composed, task  # noqa: F401 - fixtures
from tmas.training.rl.checks import find_defects
from tmas.training.rl.inputs import Policy, RowFile
from tmas.training.rl.model_shape import KNOWN
from tmas.training.rl.plan import PlanError, make_plan
from tmas.training.rl.worker_checks import LOAD_FORMATS, check_heads

MODEL = "actor_rollout_ref.model"
ACTOR, ROLLOUT, REFERENCE = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.ref"
SAMPLER, FILTER = "trainer.v1.sampler", "algorithm.filter_groups"
CRITIC_PARALLEL = "critic.fsdp.ulysses_sequence_parallel_size"
Compose = Callable[..., DictConfig]
Changed = Callable[..., Any]


@pytest.fixture(scope="module")
def found() -> dict[str, DictConfig]:
    """The composed experiments, by name. Composing takes longer than all other parts of a test."""
    return {}


@pytest.fixture
def changed(composed: Compose, found: dict[str, DictConfig]) -> Changed:  # noqa: F811
    """Returns vanilla_grpo with the given values."""
    if not found:
        found["vanilla_grpo"] = composed("vanilla_grpo", *SHORT)
    return lambda *values: OmegaConf.merge(found["vanilla_grpo"], OmegaConf.from_dotlist([*values]))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ([f"{ROLLOUT}.name=sglang"], "rollout.name=sglang: it must be vllm"),
        ([f"{ROLLOUT}.data_parallel_size=3"], "x data_parallel_size is 3, which does not divide the 8 devices"),
        ([f"{ROLLOUT}.log_prob_use_dynamic_bsz=false"], "log_prob_use_dynamic_bsz=False: it must equal .*dynamic_bsz"),
        ([f"{ROLLOUT}.response_length=9"], "rollout.response_length 9: set data.max_response_length"),
        ([f"{ROLLOUT}.agent.default_agent_loop=x"], "default_agent_loop x: verl 0.9.1 does not have it"),
        (["custom_reward_function.path=x.py"], "custom_reward_function.path=x.py: verl 0.9.1's V1 trainer ignores it"),
        (["reward_model.rollout.dtype=float16"], "reward_model.rollout.dtype=float16: .* ignores it"),
        (["reward.custom_reward_function.name=x"], "custom_reward_function.name=x: it must be compute_score"),
        (["reward.reward_manager.name=dapo"], "reward_manager.name=dapo: it must be TMASRewardManager"),
        (["trainer.use_v1=false"], "trainer.use_v1=False: it must be True"),
        (["actor_rollout_ref.hybrid_engine=false"], "hybrid_engine=False: it must be True"),
        (["data.prompt_key=question"], "data.prompt_key=question: it must be prompt"),
        ([f"{ACTOR}.use_kl_loss=true", f"{REFERENCE}.log_prob_max_token_len_per_gpu=10"], "ref.*: 40 tokens on all"),
        (
            [f"{ACTOR}.use_kl_loss=true", f"{REFERENCE}.log_prob_use_dynamic_bsz=false"],
            "ref.log_prob_micro_batch_size_per_gpu must be set",
        ),
        ([f"{SAMPLER}.max_off_policy_strategy=x"], "max_off_policy_strategy x: choose drop or wait"),
        ([f"{SAMPLER}.max_off_policy_threshold=0"], "max_off_policy_threshold 0: it must be null or"),
        (
            [f"{FILTER}.enable=true", f"{FILTER}.metric=acc", f"{FILTER}.max_inflight_gen_batches=0"],
            "max_inflight_gen_batches 0",
        ),
        (["algorithm.adv_estimator=gae", "critic.enable=false"], "critic.enable=false: gae computes"),
        (["algorithm.adv_estimator=gae", "critic.ppo_mini_batch_size=24"], "not divisible by critic.ppo_mini_batch"),
        (
            ["algorithm.adv_estimator=gae", "critic.ppo_mini_batch_size=1", f"{CRITIC_PARALLEL}=1", f"{ROLLOUT}.n=4"],
            "critic.ppo_mini_batch_size 1 x rollout.n 4 is not divisible by the critic's 8",
        ),
        (["trainer.resume_mode=always"], "resume_mode always: choose auto, disable or resume_path"),
        (["trainer.resume_mode=resume_path"], "resume_from_path None: .* .../global_step_N"),
        ([f"{ACTOR}.checkpoint.save_contents=[hf_model]"], "save_contents: without model, a resumed run"),
        ([f"{ACTOR}.checkpoint.load_contents=[model,optim]"], "load_contents optim: choose from model, optimizer"),
        (["trainer.logger=[console,tensorbord]"], "trainer.logger tensorbord: verl 0.9.1 does not have it"),
        (["trainer.val_only=true", "trainer.val_before_train=false"], "val_only=true needs .*val_before_train=true"),
        ([f"{ACTOR}.fsdp_config.fsdp_size=3"], "fsdp_size 3 does not divide the 8 devices"),
        (
            [f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size=2"],
            "fsdp_config.ulysses_sequence_parallel_size: set actor_rollout_ref.actor.ulysses",
        ),
        ([f"{ACTOR}.optim.optimizer=Adamw"], "torch.optim has no Adamw"),
        ([f"{ACTOR}.fsdp_config.model_dtype=fp8"], "actor.fsdp_config.model_dtype fp8: choose fp32, bf16 or fp16"),
        ([f"{ACTOR}.fsdp_config.mixed_precision.reduce_dtype=f32"], "mixed_precision.reduce_dtype f32: choose"),
        ([f"{ACTOR}.use_kl_loss=true", f"{REFERENCE}.fsdp_config.model_dtype=bf"], "ref.fsdp_config.model_dtype bf:"),
        ([f"{ROLLOUT}.load_format=dumy"], "rollout.load_format dumy: choose from auto, .*dummy"),
        ([f"{ROLLOUT}.dtype=bf16"], "rollout.dtype bf16: choose from auto, .*bfloat16"),
        (["distillation.enabled=true"], "distillation.enabled=True: it must be False"),
        (["data.train_files=[]"], "data.train_files: no file is given"),
        ([f"{MODEL}.lora.rank=8"], "model.lora.rank=8: .* set actor_rollout_ref.model.lora_rank"),
        ([f"{MODEL}.lora_adapter_path=adapter"], "lora_adapter_path: verl's FSDP engine ignores it unless lora_rank"),
        ([f"{ACTOR}.optim.clip_grad=null"], "optim.clip_grad must be a number"),
        ([f"{ACTOR}.optim.lr_scheduler_type=linear"], "lr_scheduler_type linear: choose constant or cosine"),
        ([f"{ACTOR}.policy_loss.loss_mode=dro"], "policy_loss.dro_beta to a positive number"),
        (["algorithm.use_kl_in_reward=true", "algorithm.kl_ctrl.type=x"], "kl_ctrl.type: verl 0.9.1 refuses it: x"),
    ],
)
def test_what_the_workers_reject_or_ignore_is_refused_with_the_key(
    overrides: list[str],
    reason: str,
    changed: Changed,
) -> None:
    defects = list(find_defects(changed(*overrides), None, [], []))
    assert any(re.search(reason, defect) for defect in defects), defects


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ([f"{ROLLOUT}.n=0"], f"{ROLLOUT}.n 0: it must be greater than 0"),
        ([f"{ROLLOUT}.val_kwargs.n=0"], "val_kwargs.n 0: it must be greater than 0"),
        ([f"{ROLLOUT}.temperature=0"], "temperature 0: it must be greater than 0"),
        ([f"{ROLLOUT}.max_model_len=null"], "max_model_len None: it must be greater than 0"),
        (
            [f"{ROLLOUT}.gpu_memory_utilization=80"],
            "gpu_memory_utilization 80: it must be greater than 0 and at most 1",
        ),
        (["trainer.total_training_steps=0"], "trainer.total_training_steps 0: it must be at least 1"),
        (["trainer.total_epochs=0"], "trainer.total_epochs 0: it must be at least 1"),
        (["data.train_batch_size=0"], "data.train_batch_size 0: it must be greater than 0"),
        ([f"{ACTOR}.use_dynamic_bsz=false"], "ppo_micro_batch_size_per_gpu must be set if"),
    ],
)
def test_a_number_that_nothing_can_be_computed_with_is_refused_with_the_key(
    overrides: list[str],
    reason: str,
    changed: Changed,
) -> None:
    """The estimate and the other checks divided by it, and the dry run ended with their traceback."""
    with pytest.raises(PlanError, match=reason):
        make_plan(changed(*overrides))


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (f"{ROLLOUT}.mode=sync", "verl: Rollout mode 'sync' has been removed"),
        (f"{ROLLOUT}.pipeline_model_parallel_size=2", "verl: .*pipeline_model_parallel_size > 1"),
        (f"{ROLLOUT}.expert_parallel_size=4", "verl: expert_parallel_size must be equal"),
        (f"{ROLLOUT}.tensor_model_parallel_size=16", "tensor_model_parallel_size 16 does not divide"),
    ],
)
def test_the_settings_of_generation_are_checked_by_verls_own_class(
    override: str,
    reason: str,
    changed: Changed,
) -> None:
    with pytest.raises(PlanError, match=reason):
        make_plan(changed(override))


def test_parallel_sizes_must_fit_the_heads(composed: Compose) -> None:  # noqa: F811
    """Qwen3-30B-A3B has 32 heads and 4 key-value heads; Qwen3-4B has 8."""
    config = composed("hybrid_grpo_30b", *SHORT)
    assert not list(check_heads(config, KNOWN["Qwen3-30B-A3B-Thinking-2507"]))
    config.actor_rollout_ref.rollout.tensor_model_parallel_size = 64
    config.actor_rollout_ref.actor.ulysses_sequence_parallel_size = 3
    assert [defect.split(" does")[0] for defect in check_heads(config, KNOWN["Qwen3-4B-Thinking-2507"])] == [
        f"{ROLLOUT}.tensor_model_parallel_size 64",
        f"{ACTOR}.ulysses_sequence_parallel_size 3",
    ]


def test_every_name_of_an_adapters_layers_must_fit_one(changed: Changed) -> None:
    """PEFT ignores a name that fits no layer, if another one fits."""
    given = [f"{MODEL}.lora_rank=8", f"{MODEL}.target_modules=[q_proj,v_project]"]
    with pytest.raises(PlanError, match=r"no linear layer v_project; it has down_proj, .*v_proj"):
        make_plan(changed(*given))
    with pytest.raises(PlanError, match="no linear layer all-linears"):
        make_plan(changed(given[0], f"{MODEL}.target_modules=all-linears"))
    for targets in ("[q_proj,mlp.up_proj]", "all-linear", r"'.*\.[qv]_proj'"):
        make_plan(changed(given[0], f"{MODEL}.target_modules={targets}"))


def test_every_way_in_which_vllm_loads_weights_is_accepted() -> None:
    from vllm.model_executor.model_loader import _LOAD_FORMAT_TO_MODEL_LOADER

    assert set(LOAD_FORMATS) == set(_LOAD_FORMAT_TO_MODEL_LOADER)


def test_only_the_rows_that_verl_samples_are_counted(changed: Changed) -> None:
    """verl trains on data.train_max_samples rows; with fewer than a batch, it would take no step."""
    rows = RowFile(Path("rows"), {"normal": 256}, 10, judged=0, labels={})
    config = changed("data.train_max_samples=10")
    assert "data.train_batch_size 64: there are only 10 rows to train on" in list(
        find_defects(config, None, [rows], [])
    )
    steps = dict(make_plan(changed("data.train_max_samples=128")).entries)["steps"]
    assert steps == "2 in total, 2 per epoch"


def test_prompts_are_counted_with_the_template_that_verl_uses(changed: Changed) -> None:
    from tmas.records import Message

    messages = [Message(role="user", content="1+1")]
    lengths = []
    for override in ([], ["data.apply_chat_template_kwargs.suffix=xyz"]):
        config = changed(*override)
        config.actor_rollout_ref.model.custom_chat_template = "{{ messages[0].content }}{{ suffix }}"
        lengths.append(Policy.load(config).prompt_tokens(messages))
    assert lengths == [3, 6]
