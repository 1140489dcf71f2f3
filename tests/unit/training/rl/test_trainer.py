"""Where the trainer touches verl's data: the advantages, with verl's own GRPO between, and the metrics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

torch = pytest.importorskip("torch")
pytest.importorskip("verl")
from tensordict import NonTensorStack, TensorDict  # noqa: E402

pytestmark = pytest.mark.timeout(3600)


def reward(source: str = "guideline", **parts: Any) -> dict[str, Any]:
    components = dict.fromkeys(("correctness", "experience", "novelty"), 0.0)
    states = {f"{name}_state": "absent" for name in components} | {
        "correctness_state": "scored",
        "bonus_state": "scored",
    }
    whys = {f"{name}_why": "" for name in components}
    numbers = {"score": 1.0, "acc": 1.0, "truncated": 0, "response_tokens": 3, "bonus": 0.0, "bonus_weight": 0.3}
    return {
        **components,
        **states,
        **whys,
        **numbers,
        "source": source,
        "outcome": "answered",
        "correctness": 1.0,
        **parts,
    }


class Batch(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.keys)


class Store:
    """TransferQueue's two calls, over what a rollout wrote."""

    def __init__(self, rewards: list[dict[str, Any]], uids: list[str]) -> None:
        lengths = [2 + i % 3 for i in range(len(rewards))]
        rows = [torch.zeros(length) for length in lengths]
        for row, given in zip(rows, rewards, strict=True):
            row[-1] = given["score"]
        self.fields: dict[str, list[Any]] = {
            "uid": uids,
            "extra_fields": [{"reward_extra_info": r} for r in rewards],
            "rm_scores": rows,
            "response_mask": [torch.ones(length) for length in lengths],
        }

    def kv_batch_get(self, *, select_fields: list[str], **_: Any) -> TensorDict:
        found = {name: stacked(self.fields[name]) for name in select_fields if name in self.fields}
        return TensorDict(found, batch_size=len(self.fields["uid"]))

    def kv_batch_put(self, *, keys: list[str], fields: TensorDict, **_: Any) -> Batch:
        for name in fields.keys():  # noqa: SIM118 - iterating over a TensorDict yields its rows
            values = fields[name]
            self.fields[name] = list(values.unbind()) if isinstance(values, torch.Tensor) else list(values)
        return Batch(keys=keys, partition_id="train", tags=[{} for _ in keys])


def stacked(values: list[Any]) -> Any:
    if isinstance(values[0], torch.Tensor):
        return torch.nested.as_nested_tensor(values, layout=torch.jagged)
    return NonTensorStack(*values)


def advantages(
    monkeypatch: pytest.MonkeyPatch,
    rewards: list[dict[str, Any]],
    uids: list[str],
    *,
    padding: int = 0,
    estimator: str = "grpo",
    by_std: bool = True,
    **settings: Any,
) -> tuple[list[float], Store, dict[str, float]]:
    """The advantage of each sample (that of all of its tokens), what is stored then, and the metrics."""
    from verl.trainer.ppo.v1 import trainer_base

    from tmas.training.rl import trainer

    store = Store(rewards, uids)
    monkeypatch.setattr(trainer, "tq", store)
    monkeypatch.setattr(trainer_base, "tq", store)
    config = OmegaConf.create(
        {
            "algorithm": {
                "use_kl_in_reward": False,
                "adv_estimator": estimator,
                "gamma": 1.0,
                "lam": 1.0,
                "norm_adv_by_std_in_grpo": by_std,
            },
            "actor_rollout_ref": {"rollout": {"n": len(rewards)}},
            "reward": {"custom_reward_function": {"reward_kwargs": {"settings": {"advantage": settings}}}},
        }
    )
    one = object.__new__(trainer.TMASTrainer)
    one.config = config
    tags = [{"is_padding": i >= len(rewards) - padding} for i in range(len(rewards))]
    keys = [f"{uid}_{i}_0" for i, uid in enumerate(uids)]
    metrics: dict[str, float] = {}
    one._compute_advantage(Batch(keys=keys, partition_id="train", tags=tags), metrics)
    rows = store.fields["advantages"]
    assert all(len(set(row.tolist())) == 1 for row in rows)
    return [float(row[0]) for row in rows], store, metrics


RIGHT, WRONG = reward(), reward(score=0.0, correctness=0.0, acc=0.0, bonus_weight=0.0)
PRAISED = reward(score=1.3, bonus=1.0)
UNJUDGED = reward(bonus_state="masked", novelty_state="masked", novelty_why="timeout")
UNSCORED = reward(score=0.0, correctness=0.0, acc=0.0, correctness_state="masked", bonus_state="absent")


def test_the_bonus_moves_a_right_answer_by_no_more_than_its_weight(monkeypatch: pytest.MonkeyPatch):
    """With form=additive, one bonus among eight right answers is worth 2.47 at every weight."""
    eight = [PRAISED, *[RIGHT] * 7]
    found, *_ = advantages(monkeypatch, eight, ["a"] * 8)
    assert found == pytest.approx([0.3 * 7 / 8, *[-0.3 / 8] * 7], abs=1e-6)
    found, *_ = advantages(monkeypatch, eight, ["a"] * 8, form="additive")
    assert found[0] == pytest.approx(2.47, abs=0.01)


@pytest.mark.parametrize("form", ["decoupled", "additive"])
@pytest.mark.parametrize("by_std", [True, False])
def test_without_a_bonus_the_advantage_is_that_of_verl(monkeypatch: pytest.MonkeyPatch, form: str, by_std: bool):
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    batch, uids = [RIGHT, WRONG, WRONG, RIGHT, WRONG], [*"aaabb"]
    found, *_ = advantages(monkeypatch, batch, uids, form=form, by_std=by_std)
    scores = torch.tensor([[one["correctness"]] for one in batch])
    vanilla, _ = compute_grpo_outcome_advantage(
        scores,
        torch.ones_like(scores),
        uids,  # type: ignore[arg-type]
        norm_adv_by_std_in_grpo=by_std,
    )
    assert found == vanilla[:, 0].tolist()


def test_a_verification_is_compared_by_grade_and_its_critique_with_other_right_grades(monkeypatch: pytest.MonkeyPatch):
    """In the same batch as answers: right grades with and without the bonus, an undecided and an opposite one."""

    def graded(right: float, **parts: Any) -> dict[str, Any]:
        none = {"bonus_state": "absent", "bonus_weight": 0.0}
        given = {"outcome": "graded", "label": "wrong", "pred": f"{1 - right:g}", "acc": right, "correctness": right}
        return reward("verification", score=right, **given, **(parts or none))

    named = {"bonus": 1.0, "bonus_weight": 0.3, "critique": 1.0, "critique_state": "scored", "critique_why": ""}
    unnamed = {**named, "bonus": 0.0, "critique": 0.0, "critique_why": "not_named"}
    absent = {"critique": 0.0, "critique_state": "absent", "critique_why": ""}
    verified = [graded(1.0, **named), graded(1.0, **unnamed), graded(0.5), graded(0.0)]
    batch = [{**absent, "label": "", "pred": "", **one} for one in (*verified, RIGHT, WRONG)]
    found, _, metrics = advantages(monkeypatch, batch, [*"vvvvaa"], by_std=False)
    by_grade = [c - 0.625 for c in (1.0, 1.0, 0.5, 0.0)]
    assert found == pytest.approx([by_grade[0] + 0.15, by_grade[1] - 0.15, *by_grade[2:], 0.5, -0.5])
    assert metrics["reward/verification/acc"] == 0.625
    assert metrics["reward/verification/critique"] == 0.5
    assert metrics["reward/verification/false_accept"] == 0.25
    assert metrics["reward/guideline/acc"] == 0.5


def test_a_masked_sample_changes_no_other_advantage(monkeypatch: pytest.MonkeyPatch):
    """Filled in with the mean of its group, it makes the advantages of the others larger."""
    batch, uids = [PRAISED, RIGHT, WRONG], [*"aaa"]
    alone, *_ = advantages(monkeypatch, batch, uids)
    for hidden in (UNSCORED, UNJUDGED):
        found, _, metrics = advantages(monkeypatch, [*batch, hidden], [*uids, "a"])
        assert metrics["reward/all/masked"] == 1
        if hidden is UNSCORED:
            assert found == [*alone, 0.0]
        else:  # its correctness is known and counts, as that of any sample
            vanilla, *_ = advantages(monkeypatch, [RIGHT, RIGHT, WRONG, RIGHT], [*uids, "a"])
            assert [a - v for a, v in zip(found, vanilla, strict=True)] == pytest.approx([0.15, -0.15, 0, 0], abs=1e-6)
    swollen, *_ = advantages(monkeypatch, [*batch, UNSCORED], [*uids, "a"], form="additive")
    assert swollen[:3] != pytest.approx(alone)


def test_padding_is_neither_logged_nor_compared(monkeypatch: pytest.MonkeyPatch):
    found, _, metrics = advantages(monkeypatch, [PRAISED, RIGHT, RIGHT], [*"aaa"], padding=1)
    assert metrics["reward/all/samples"] == 2
    assert found[:2] == pytest.approx([0.15, -0.15], abs=1e-6)


def test_verls_metrics_see_the_scores_and_prompts_of_the_rollout(monkeypatch: pytest.MonkeyPatch):
    batch = [PRAISED, RIGHT, UNSCORED]
    _, store, metrics = advantages(monkeypatch, batch, [*"aaa"])
    assert [row[-1].item() for row in store.fields["rm_scores"]] == pytest.approx([1.3, 1.0, 0.0])
    assert store.fields["uid"] == [*"aaa"]
    assert metrics["reward/all/bonus_advantage"] == pytest.approx(0.1)


def test_the_additive_form_fills_in_what_is_masked(monkeypatch: pytest.MonkeyPatch):
    _, store, metrics = advantages(monkeypatch, [PRAISED, UNJUDGED, WRONG], [*"aab"], form="additive")
    assert [row[-1].item() for row in store.fields["rm_scores"]] == pytest.approx([1.3, 1.3, 0.0])
    assert metrics["reward/guideline/novelty_masked/timeout"] == 1


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_a_prompt_of_masked_samples_teaches_nothing(monkeypatch: pytest.MonkeyPatch, estimator: str):
    found, *_ = advantages(monkeypatch, [UNSCORED, UNSCORED], [*"aa"], estimator=estimator)
    assert found == [0.0, 0.0]
