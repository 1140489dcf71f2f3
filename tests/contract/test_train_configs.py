"""Every training experiment composes, and verl's own config objects and checks accept it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verl")

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from recipes.cpu.prepare import prepare
from tests.support import composing
from tests.support.commands import tmas, tmas_process
from tests.support.composing import CONF, resolved_training
from tmas.training.rl.plan import PlanError, make_plan

JUDGE = "reward.custom_reward_function.reward_kwargs.settings.judge"
MODEL = "actor_rollout_ref.model.path"
EXPERIMENTS = ["hybrid_grpo", "vanilla_grpo", "hybrid_ppo", "hybrid_grpo_30b", "grpo_cpu"]
pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy and 256 rows. Its config says that it has the heads of a large one; no weights are loaded."""
    folder = tmp_path_factory.mktemp("task")
    prepare(folder, n_train=256, n_val=8, n_sft=1)
    config = json.loads((folder / "policy" / "config.json").read_text())
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8}
    (folder / "policy" / "config.json").write_text(json.dumps(config | heads))
    return folder


@pytest.mark.parametrize("hardware", sorted((CONF / "hardware").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_value_of_a_hardware_file_is_in_force(hardware: Path) -> None:
    composed = composing.composed("train", f"hardware={hardware.stem}")
    given = OmegaConf.load(hardware)
    given.pop("defaults", None)
    assert OmegaConf.to_container(OmegaConf.merge(composed, given)) == OmegaConf.to_container(composed)


@pytest.fixture
def composed(task: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DictConfig]:
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def composed(experiment: str, *overrides: str) -> DictConfig:
        given = [
            f"experiment={experiment}",
            "output_dir=out",
            f"data.train_files={task}/train.parquet",
            f"data.val_files={task}/val.parquet",
            f"policy.path={task}/policy",
            *overrides,
        ]
        if experiment in ("hybrid_grpo", "hybrid_ppo", "hybrid_grpo_30b"):
            given = ["judge.name=judge", "judge.base_url=http://127.0.0.1:1/v1", *given]
        return resolved_training(*given)

    return composed


SHORT = ("data.max_prompt_length=512", "data.max_response_length=64")  # the tiny policy's context is 2,048 tokens


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=hybrid_grpo_30b", "hardware=multi_node_megatron", "judge.name=j", "+data.new=1"],
        ["experiment=grpo_cpu", "judge.name=j", "judge={name: k}", "switches=[dr_grpo,gspo]", "~data.shuffle"],
    ],
)
def test_these_tests_see_what_hydra_composes(overrides: list[str]) -> None:
    given = ["output_dir=out", "updates_per_step=2", *overrides]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        whole = compose("train", overrides=given)
    assert composing.composed("train", *given) == whole


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_experiment_composes_and_verl_accepts_it(experiment: str, composed: Callable[..., DictConfig]) -> None:
    plan = dict(make_plan(composed(experiment, *SHORT)).entries)
    assert plan["policy"].endswith("/policy")
    assert "data-parallel ranks" in plan["training"]


def test_the_cpu_experiment_may_have_a_critic(composed: Callable[..., DictConfig]) -> None:
    plan = dict(make_plan(composed("grpo_cpu", "algorithm.adv_estimator=gae")).entries)
    assert plan["objective"].startswith("gae")


GPU = ["hybrid_grpo", "vanilla_grpo", "hybrid_ppo", "hybrid_grpo_30b"]


@pytest.fixture
def long(task: Path, tmp_path: Path) -> str:
    """The tiny policy, said to have the context of a large one: lengths are checked, nothing is loaded."""
    shutil.copytree(task / "policy", tmp_path / "policy")
    config = json.loads((tmp_path / "policy" / "config.json").read_text())
    (tmp_path / "policy" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 262_144}))
    return f"policy.path={tmp_path}/policy"


@pytest.mark.parametrize("experiment", GPU)
def test_the_experiment_holds_its_longest_sequence(
    experiment: str, composed: Callable[..., DictConfig], long: str
) -> None:
    """As verl itself puts the engines together from the configuration."""
    from verl.utils.config import omega_conf_to_dataclass

    config = composed(experiment, long)
    make_plan(config)
    longest = config.data.max_prompt_length + config.data.max_response_length
    assert longest == 45_056
    actor: Any = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    parallel = actor.engine.ulysses_sequence_parallel_size
    assert actor.ppo_max_token_len_per_gpu * parallel >= longest
    assert config.actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu * parallel >= longest
    critic: Any = omega_conf_to_dataclass(config.critic)
    assert critic.ppo_infer_max_token_len_per_gpu * critic.engine.ulysses_sequence_parallel_size >= longest
    assert critic.model.use_remove_padding


@pytest.mark.parametrize(
    "key",
    [
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu",
        "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu",
        "critic.ppo_infer_max_token_len_per_gpu",
    ],
)
def test_a_device_that_cannot_hold_its_share_of_a_sequence_is_refused(
    key: str, composed: Callable[..., DictConfig], long: str
) -> None:
    with pytest.raises(PlanError, match=f"{key}: 40,000 tokens"):
        make_plan(composed("hybrid_ppo", long, f"{key}=10000"))


def test_experiments_are_what_they_are_called(composed: Callable[..., DictConfig]) -> None:
    hybrid, vanilla, ppo = (composed(name, *SHORT) for name in ("hybrid_grpo", "vanilla_grpo", "hybrid_ppo"))
    assert (hybrid.algorithm.adv_estimator, ppo.algorithm.adv_estimator) == ("grpo", "gae")
    forms = [c.reward.custom_reward_function.reward_kwargs.settings.novelty.form for c in (hybrid, vanilla, ppo)]
    assert forms == ["judge", "none", "judge"]


@pytest.mark.parametrize("experiment", ["vanilla_grpo", "grpo_cpu"])
@pytest.mark.parametrize(("reward", "forms"), [("vanilla", ("none", "none")), ("hybrid", ("judge", "judge"))])
def test_no_experiment_changes_the_reward_that_is_chosen(
    experiment: str, reward: str, forms: tuple[str, str], composed: Callable[..., DictConfig]
) -> None:
    settings = composed(experiment, f"reward={reward}").reward.custom_reward_function.reward_kwargs.settings
    assert (settings.experience.form, settings.novelty.form) == forms


def test_vanilla_differs_from_hybrid_in_the_reward_alone(composed: Callable[..., DictConfig]) -> None:
    hybrid, vanilla = (OmegaConf.to_container(composed(name, *SHORT)) for name in ("hybrid_grpo", "vanilla_grpo"))
    assert isinstance(hybrid, dict)
    assert isinstance(vanilla, dict)
    own = hybrid.keys() - {"judge"}  # this module names a judge for the experiments that need one
    assert {key for key in own if hybrid[key] != vanilla[key]} == {"reward"}


@pytest.mark.parametrize(
    ("experiment", "named", "joined"),
    [
        ("grpo_cpu", None, None),
        ("grpo_cpu", "198.51.100.2:2", None),
        ("hybrid_grpo", None, None),
        ("hybrid_grpo", "198.51.100.2:2", "198.51.100.2:2"),
        ("hybrid_grpo_30b", None, "198.51.100.1:1"),
        ("hybrid_grpo_30b", "198.51.100.2:2", "198.51.100.2:2"),
    ],
)
def test_a_run_joins_a_ray_cluster_only_where_it_is_meant_to(
    experiment: str,
    named: str | None,
    joined: str | None,
    composed: Callable[..., DictConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A ``ray start`` that was killed leaves its address on the machine; None is a cluster of the run's own."""
    from ray._private import services

    monkeypatch.setattr(services, "find_gcs_addresses", set)  # of what else runs here now
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("198.51.100.1:1")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if named:
        monkeypatch.setenv("RAY_ADDRESS", named)
    address = composed(experiment, *SHORT).ray_kwargs.ray_init.get("address")
    assert services.canonicalize_bootstrap_address(address) == joined


def test_no_group_of_ours_shadows_a_file_of_verls_config() -> None:
    import importlib.util

    spec = importlib.util.find_spec("verl")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    verls = Path(spec.submodule_search_locations[0], "trainer", "config")
    ours = {file.relative_to(CONF) for file in CONF.rglob("*.yaml")}
    assert not ours & {file.relative_to(verls) for file in verls.rglob("*.yaml")}


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (
            ["actor_rollout_ref.actor.ppo_mini_batch_size=24"],
            "not divisible by actor_rollout_ref.actor.ppo_mini_batch_size",
        ),
        (["data.max_prompt_length=2048"], "more than the policy's context of 2,048"),
        (["data.max_prompt_length=64"], "more than data.max_prompt_length 64"),
        (["actor_rollout_ref.rollout.n=1"], "grpo compares"),
        (["actor_rollout_ref.rollout.n=1", "algorithm.adv_estimator=rloo"], "rloo compares"),
        (["algorithm.adv_estimator=gdpo"], "has no gdpo"),
        (
            ["algorithm.filter_groups.enable=true", "algorithm.filter_groups.metric=accuracy"],
            "choose one of acc, score",
        ),
        (["actor_rollout_ref.rollout.enable_rollout_routing_replay=true"], "only Megatron and VeOmni replay"),
        (["model_engine=megatron"], "actor.fsdp_config: model_engine=megatron does not have this setting"),
        (["data.train_batch_size=512"], "there are only 256 rows"),
        (["actor_rollout_ref.rollout.tensor_model_parallel_size=3"], "does not divide the 1 devices"),
        (["trainer.v1.trainer_mode=separate_async"], "trainer_mode=separate_async: choose one of sync"),
        (["data.train_files=missing.parquet"], "missing.parquet"),
        (["policy.path=nowhere/at-all"], "policy.path nowhere/at-all"),
        (["actor_rollout_ref.model.path=nowhere/at-all"], "policy.path nowhere/at-all"),
        ([f"{JUDGE}={{name: j, base_url: u, timeout: 0}}"], "judge.timeout"),
        (["judge={name: j, base_url: u, timeout: 0}"], "judge.timeout"),
        (["+env.HF_TOKEN=x"], "env.HF_TOKEN: settings are written to disk"),
        (["+ray_kwargs.ray_init.runtime_env.env_vars.WANDB_API_KEY=x"], "WANDB_API_KEY"),
        (["reward=reward"], "choose reward=hybrid or vanilla"),
        (["estimate.tflops=-1"], "estimate.tflops: "),
        (["trainer.rollouts.max_gb=0"], "trainer.rollouts.max_gb"),
    ],
)
def test_what_cannot_work_is_refused_with_the_key(
    overrides: list[str], reason: str, composed: Callable[..., DictConfig]
) -> None:
    with pytest.raises(PlanError, match=reason.replace("[", r"\[")):
        make_plan(composed("grpo_cpu", *overrides))


def test_fused_kernels_are_for_policies_with_tied_embeddings(
    composed: Callable[..., DictConfig], task: Path, tmp_path: Path
) -> None:
    """tests/contract/test_fused_kernels.py shows how verl fails."""
    shutil.copytree(task / "policy", tmp_path / "policy")
    file = tmp_path / "policy" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": False}))
    untied, off = f"policy.path={tmp_path}/policy", "actor_rollout_ref.model.use_fused_kernels=false"
    assert composed("hybrid_grpo").actor_rollout_ref.model.use_fused_kernels
    assert not composed("hybrid_grpo_30b").actor_rollout_ref.model.use_fused_kernels
    with pytest.raises(PlanError, match=r"use_fused_kernels must be false: with fsdp2"):
        make_plan(composed("hybrid_grpo", *SHORT, untied))
    make_plan(composed("hybrid_grpo", *SHORT, untied, off))


def test_verl_accepts_the_settings_that_save_memory(composed: Callable[..., DictConfig]) -> None:
    """They reach the objects that verl's FSDP engine reads."""
    from verl.utils.config import omega_conf_to_dataclass

    config = composed("hybrid_grpo", *SHORT)
    actor: Any = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    assert actor.engine.entropy_from_logits_with_chunking
    assert config.actor_rollout_ref.actor.use_fused_kernels
    assert config.actor_rollout_ref.rollout.gpu_memory_utilization == 0.8
    assert config.data.val_max_samples == 128
    assert config.data.shuffle  # verl draws the rows of validation, instead of taking the first ones
    assert composed("grpo_cpu").data.val_max_samples == -1


def test_a_judge_that_verl_hosts_is_in_the_plan_and_needs_devices_of_its_own(
    composed: Callable[..., DictConfig],
) -> None:
    hosted = [
        f"reward.reward_model.{given}" for given in ("enable=true", "model_path=m", "nnodes=1", "n_gpus_per_node=2")
    ]
    given = [*SHORT, *hosted, "judge.base_url=null"]
    plan = make_plan(composed("hybrid_grpo", *given, "reward.reward_model.enable_resource_pool=true"))
    assert ("judge", "m on 1 x 2 additional devices") in plan.entries
    with pytest.raises(PlanError, match="enable_resource_pool must be true"):
        make_plan(composed("hybrid_grpo", *given))
    asleep = ["reward.reward_model.enable_resource_pool=true", "reward.reward_model.rollout.free_cache_engine=true"]
    with pytest.raises(PlanError, match="free_cache_engine must be false"):
        make_plan(composed("hybrid_grpo", *given, *asleep))


def test_everything_wrong_is_told_at_once(composed: Callable[..., DictConfig]) -> None:
    with pytest.raises(PlanError) as refused:
        make_plan(composed("grpo_cpu", "actor_rollout_ref.rollout.n=1", "data.max_prompt_length=64"))
    assert "grpo compares" in str(refused.value)
    assert "more than data.max_prompt_length 64" in str(refused.value)


def test_the_columns_of_a_row_file_are_checked(composed: Callable[..., DictConfig], tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"prompt": ["x"]}), tmp_path / "rows.parquet")
    with pytest.raises(PlanError, match=r"rows\.parquet.*data_source"):
        make_plan(composed("grpo_cpu", f"data.train_files={tmp_path}/rows.parquet"))


def test_rows_that_need_a_judge_are_refused_without_one(
    composed: Callable[..., DictConfig], task: Path, tmp_path: Path
) -> None:
    from tmas.training.rows import RewardModel, read_rows, write_rows

    first, *others = read_rows(task / "train.parquet")
    judged = first.model_copy(
        update={"data_source": "math_grm", "reward_model": RewardModel(style="model", ground_truth="2")}
    )
    write_rows(tmp_path / "rows.parquet", [judged, *others])
    files = f"data.train_files={tmp_path}/rows.parquet"
    with pytest.raises(PlanError, match=r"rows\.parquet: 1 rows of data_source math_grm"):
        make_plan(composed("grpo_cpu", "reward=vanilla", files))


def test_the_plan_counts_the_candidates_to_verify_by_class(
    composed: Callable[..., DictConfig], task: Path, tmp_path: Path
) -> None:
    from tmas.llm.tokens import ContextWindow, token_counter
    from tmas.rewards.verification import VerificationTruth
    from tmas.training.contexts import TrainingProblem, verification_row
    from tmas.training.rows import TrainingRow, write_rows

    problem = TrainingProblem(problem_id="p", question="What is 1 + 1?", answer="2")
    window = ContextWindow(token_counter("estimate"), 10_000, 0)
    truths = [VerificationTruth(right=n > 0, gold="2", candidate=f"\\boxed{{{2 - (n == 0)}}}") for n in range(3)]
    rows = [row for t in truths if isinstance(row := verification_row(problem, 0, t, window), TrainingRow)]
    write_rows(tmp_path / "rows.parquet", rows)
    files = f"data.train_files=[{task}/train.parquet,{tmp_path}/rows.parquet]"
    lengths = ("data.max_prompt_length=2000", "data.max_response_length=48")
    plan = make_plan(composed("grpo_cpu", files, *lengths))
    [shown] = [text for label, text in plan.entries if label == "rows" and "verification" in text]
    assert "3 rows (3 verification)" in shown
    assert shown.endswith("candidates to verify: 2 right, 1 wrong")


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (["experiment=hybrid_grpo"], "data.train_files, data.val_files, judge.name"),
        (["experiment=vanilla_grpo"], "data.train_files, data.val_files"),
        (["experiment=grpo_cpu", "data.train_files=t", "data.val_files=v"], "policy.path"),
    ],
)
def test_what_is_not_set_is_told_before_anything_is_loaded(tmp_path: Path, given: list[str], missing: str) -> None:
    done = tmas("train", "dry_run=true", f"output_dir={tmp_path}", *given, cwd=CONF.parent)
    assert (done.returncode, done.stderr) == (2, f"tmas: not set: {missing}\n")


def test_a_dry_run_prints_the_plan_and_leaves_nothing(task: Path, tmp_path: Path) -> None:
    given = [f"data.train_files={task}/train.parquet", f"data.val_files={task}/val.parquet", "dry_run=true"]
    given += [f"policy.path={task}/policy", f"output_dir={tmp_path / 'run'}"]
    done = tmas_process("train", "experiment=grpo_cpu", *given, cwd=CONF.parent)
    assert done.returncode == 0, done.stderr
    assert "grpo, grpo_cpu" in done.stdout
    assert "time per step" in done.stdout
    assert "validate_config" not in done.stdout
    assert not (tmp_path / "run").exists()


def test_a_dry_run_estimates_a_step_of_a_known_policy_that_is_not_here(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    given = [f"data.train_files={task}/train.parquet", f"data.val_files={task}/val.parquet", "dry_run=true"]
    given += ["policy.path=missing/Qwen3-4B-Thinking-2507", f"output_dir={tmp_path / 'run'}"]
    done = tmas("train", "experiment=vanilla_grpo", *given, cwd=CONF.parent)
    assert done.returncode == 2
    assert "policy.path missing/Qwen3-4B-Thinking-2507" in done.stderr
    assert "8 x NVIDIA H100 SXM" in done.stdout
    assert "48 GB; 145 GB for the last 3" in done.stdout


def test_the_environment_of_a_cpu_run_is_in_its_config(composed: Callable[..., DictConfig]) -> None:
    assert composed("grpo_cpu").env.VERL_PLATFORM == "cpu"
    assert "VERL_PLATFORM" not in composed("hybrid_grpo", *SHORT).env


LONG_JUDGE = {f"{JUDGE}.name": "long", f"{JUDGE}.base_url": "http://long/v1", f"{JUDGE}.patience.max_attempts": 5}


@pytest.mark.parametrize(
    ("overrides", "judge"),
    [
        (["judge.name=short", "judge.patience.max_attempts=7"], ("short", "http://127.0.0.1:1/v1", 7)),
        ([f"{key}={value}" for key, value in LONG_JUDGE.items()], ("long", "http://long/v1", 5)),
        (["judge.name=short", f"{JUDGE}.name=long"], ("long", "http://127.0.0.1:1/v1", 3)),
    ],
)
def test_the_judge_is_set_by_short_names_and_long_ones_win(
    overrides: list[str], judge: tuple[str, str, int], composed: Callable[..., DictConfig]
) -> None:
    config = composed("hybrid_grpo", *SHORT, *overrides)
    settings = OmegaConf.select(config, JUDGE)
    assert (settings.name, settings.base_url, settings.patience.max_attempts) == judge
    make_plan(config)


@pytest.mark.parametrize("experiment", ["vanilla_grpo", "grpo_cpu"])
def test_a_reward_without_a_judge_has_one_where_it_is_named(
    experiment: str, composed: Callable[..., DictConfig]
) -> None:
    assert OmegaConf.select(composed(experiment), JUDGE) is None
    named = OmegaConf.select(composed(experiment, "judge.name=j", "judge.base_url=http://h/v1"), JUDGE)
    assert (named.name, named.base_url, named.timeout) == ("j", "http://h/v1", 120.0)


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        (["policy=qwen3_30b_a3b_thinking"], "Qwen/Qwen3-30B-A3B-Thinking-2507"),
        (["policy=qwen3_30b_a3b_thinking", "policy.path=folder"], "folder"),
        (["policy.path=folder", f"{MODEL}=other"], "other"),
    ],
)
def test_the_policy_is_chosen_from_its_group_or_by_its_path(overrides: list[str], path: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=["experiment=vanilla_grpo", "output_dir=out", *overrides])
    assert (config.actor_rollout_ref.model.path, config.critic.model.path) == (path, path)


def test_verl_gets_no_key_of_ours(composed: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    """verl's own top-level nodes, and no others: its dataclasses refuse keys that they do not know."""
    from verl.trainer import main_ppo

    from tmas.training.rl.train import _run

    seen: list[DictConfig] = []
    monkeypatch.setattr(main_ppo, "run_ppo", lambda config, **_: seen.append(config))
    _run(composed("grpo_cpu"), {})
    with initialize_config_dir(str(Path(main_ppo.__file__).parent / "config"), version_base="1.3"):
        verls = compose("ppo_trainer")
    assert set(seen[0]) <= set(verls)
