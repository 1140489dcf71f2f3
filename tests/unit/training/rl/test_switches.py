"""What each switch of conf/switches does to advantages, loss and sampling, with verl's own code."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("verl")
from tests.support.composing import resolved_training  # noqa: E402
from tests.unit.training.rl.test_trainer import PRAISED, RIGHT, UNSCORED, WRONG, advantages, reward  # noqa: E402

pytestmark = pytest.mark.timeout(3600)
LONG = reward(score=0.5, overlong_penalty=0.5)
FOUR, ONE_PROMPT = [PRAISED, RIGHT, WRONG, WRONG], [*"aaaa"]


def test_dr_grpo_compares_correctness_without_the_standard_deviation(monkeypatch: pytest.MonkeyPatch):
    found, *_ = advantages(monkeypatch, FOUR, ONE_PROMPT, by_std=False)
    assert found == pytest.approx([0.5 + 0.15, 0.5 - 0.15, -0.5, -0.5])
    alone, *_ = advantages(monkeypatch, [*FOUR, UNSCORED], [*"aaaaa"], by_std=False)
    assert alone == pytest.approx([*found, 0.0])


def test_the_overlong_penalty_belongs_to_correctness(monkeypatch: pytest.MonkeyPatch):
    """A long right answer is worse than a short one, better than a wrong one, and compared with both for its bonus."""
    found, *_ = advantages(monkeypatch, [RIGHT, LONG, WRONG], [*"aaa"], by_std=False)
    assert found == pytest.approx([0.5, 0.0, -0.5])
    praised = reward(score=0.8, overlong_penalty=0.5, bonus=1.0)
    found, *_ = advantages(monkeypatch, [RIGHT, praised, WRONG], [*"aaa"], by_std=False)
    assert found == pytest.approx([0.5 - 0.15, 0.0 + 0.15, -0.5])


@pytest.mark.parametrize("estimator", ["grpo", "rloo", "opo", "reinforce_plus_plus_baseline"])
def test_a_right_answer_whose_siblings_are_masked_teaches_nothing(monkeypatch: pytest.MonkeyPatch, estimator: str):
    """verl takes 0 for the mean of a group of one, so it would be reinforced like the only right one among many."""
    found, *_ = advantages(monkeypatch, [RIGHT, UNSCORED, RIGHT, WRONG], [*"aabb"], estimator=estimator)
    assert found[:2] == [0.0, 0.0]
    assert found[2] > 0 > found[3]


def probabilities(store: Any, ratios: list[float]) -> None:
    """Give all tokens of a response the same ratio of the trainer's probability to vLLM's."""
    rows = store.fields["response_mask"]
    store.fields["rollout_log_probs"] = [torch.full_like(row, -1.0) for row in rows]
    store.fields["old_log_probs"] = [row * (-1.0 + torch.tensor(r).log()) for row, r in zip(rows, ratios, strict=True)]


TIS = {"rollout_is": "token", "rollout_is_threshold": 2.0, "bypass_mode": False}
REJECTION = {**TIS, "rollout_rs": "seq_mean_k1", "rollout_rs_threshold": "0.999_1.001"}


@pytest.mark.parametrize(
    ("correction", "weights"),
    [(TIS, [1.0, 2.0, 0.25, 1.0]), ({**TIS, "rollout_is_threshold": "0.5_5.0"}, [1.0, 3.0, 0.0, 1.0])],
)
def test_truncation_and_icepop_weigh_tokens_and_leave_advantages(
    monkeypatch: pytest.MonkeyPatch, correction: dict[str, Any], weights: list[float]
):
    plain, *_ = advantages(monkeypatch, FOUR, ONE_PROMPT)
    found, store, metrics = advantages(
        monkeypatch, FOUR, ONE_PROMPT, correction=correction, prepare=lambda s: probabilities(s, [1.0, 3.0, 0.25, 1.0])
    )
    assert found == plain
    assert [float(row[0]) for row in store.fields["rollout_is_weights"]] == pytest.approx(weights)
    above = 3 / 11 if correction is TIS else 0  # three of eleven tokens
    assert metrics["rollout_corr/rollout_is_ratio_fraction_high"] == pytest.approx(above)


def test_a_rejected_response_has_no_advantage_and_changes_no_other(monkeypatch: pytest.MonkeyPatch):
    plain, *_ = advantages(monkeypatch, FOUR, ONE_PROMPT)
    found, _, metrics = advantages(
        monkeypatch, FOUR, ONE_PROMPT, correction=REJECTION, prepare=lambda s: probabilities(s, [1.0, 3.0, 1.0, 1.0])
    )
    assert found == [plain[0], 0.0, *plain[2:]]
    assert metrics["rollout_corr/rollout_rs_seq_masked_fraction"] == 0.25


def test_gspo_clips_the_ratio_of_a_whole_response() -> None:
    """The tokens' ratios e^0.2 and e^-0.2 cancel out, so that GSPO clips nothing where PPO's clip would."""
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.workers.config import FSDPActorConfig

    shared: Any = {"rollout_n": 2, "use_dynamic_bsz": True}
    clips = {"gspo": (3e-4, 4e-4), "vanilla": (0.2, 0.2)}
    old, new, mask = torch.full((1, 2), -1.0), torch.tensor([[-0.8, -1.2]]), torch.ones(1, 2)
    clipped = {}
    for mode, (low, high) in clips.items():
        config = FSDPActorConfig(clip_ratio_low=low, clip_ratio_high=high, **shared)
        loss = get_policy_loss_fn(mode)
        _, metrics = loss(old, new, torch.ones(1, 2), mask, "seq-mean-token-mean", config)  # type: ignore[call-arg]
        clipped[mode] = metrics["actor/pg_clipfrac"]
    assert clipped == {"gspo": 0.0, "vanilla": 0.5}


@pytest.mark.parametrize(
    ("metric", "kept"),
    [("acc", {"mixed"}), ("score", {"mixed", "praised"}), ("reward", {"mixed", "praised"})],
)
def test_dynamic_sampling_drops_prompts_that_teach_nothing(
    monkeypatch: pytest.MonkeyPatch, metric: str, kept: set[str]
):
    from verl.trainer.ppo.v1 import replay_buffer

    groups = {"mixed": [RIGHT, WRONG], "right": [RIGHT, RIGHT], "wrong": [WRONG, WRONG], "praised": [PRAISED, RIGHT]}
    reports = {f"{uid}_{i}_0": one for uid, group in groups.items() for i, one in enumerate(group)}

    def kv_batch_get(*, keys: list[str], select_fields: list[str], **_: Any) -> dict[str, list[Any]]:
        scores = [torch.tensor([0.0, reports[key]["score"]]) for key in keys]
        extra = [{"reward_extra_info": reports[key]} for key in keys]
        return {"rm_scores": scores} if select_fields == ["rm_scores"] else {"extra_fields": extra}

    monkeypatch.setattr(replay_buffer, "tq", SimpleNamespace(kv_batch_get=kv_batch_get))
    buffer = replay_buffer.ReplayBuffer(
        trainer_mode="sync",
        trainer_config={},  # type: ignore[arg-type]
        max_off_policy_threshold=8,
        max_off_policy_strategy="drop",
        sampler_kwargs={},  # type: ignore[arg-type]
        refill_fn=lambda count: None,
        filter_groups_metric=metric,
    )
    buffer.partitions["train"] = {key: {} for key in reports}
    buffer.finished_keys["train"] = set(groups)
    dropped, counts = buffer._dapo_filtered_keys("train")
    assert set(groups) - dropped == kept
    assert counts == Counter({0.0: 1, 1.0: len(dropped) - 1})


def test_the_updates_of_a_step_see_responses_in_random_order() -> None:
    """verl has them in the order in which they ended; without ``shuffle`` the first update gets the first ones."""
    from tensordict import TensorDict
    from verl.utils.tensordict_utils import make_iterator

    batch = TensorDict({"place": torch.arange(32)}, batch_size=32)
    firsts = {
        shuffle: next(make_iterator(batch, 8, epochs=1, seed=42, dataloader_kwargs={"shuffle": shuffle}))["place"]
        for shuffle in (False, True)
    }
    assert firsts[False].tolist() == list(range(8))
    assert sum(place >= 8 for place in firsts[True].tolist()) >= 4


def test_both_trainers_compute_our_advantage() -> None:
    from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    from tmas.training.rl.trainer import HybridRewardHooks, TMASColocateAsyncTrainer, TMASTrainer

    for ours, verls in ((TMASTrainer, PPOTrainerSync), (TMASColocateAsyncTrainer, PPOTrainerColocateAsync)):
        assert ours._compute_advantage is HybridRewardHooks._compute_advantage
        assert ours._val_metrics_update is HybridRewardHooks._val_metrics_update
        assert ours.on_sample_end is verls.on_sample_end
        assert ours.on_step_end is verls.on_step_end


@pytest.mark.parametrize(("device", "seconds"), [("cpu", 0.1), ("cuda", 2.0)])
def test_only_on_the_cpu_the_trainer_waits_less_for_the_responses(device: str, seconds: float) -> None:
    from tmas.training.rl.trainer import TMASTrainer

    one = object.__new__(TMASTrainer)
    one.trainer_mode = "sync"
    one.config = resolved_training(
        "experiment=grpo_cpu",
        f"trainer.device={device}",
        "policy.path=p",
        "data.train_files=a",
        "data.val_files=b",
        "output_dir=o",
    )
    buffer = one._build_replay_buffer()
    assert buffer.poll_interval == seconds
