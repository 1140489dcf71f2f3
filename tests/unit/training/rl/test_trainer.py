"""The two places where the trainer touches verl's data: masked scores filled in, and validation metrics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("verl")
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


class Store:
    """TransferQueue's two calls, over what a rollout wrote."""

    def __init__(self, rewards: list[dict[str, Any]], uids: list[str]) -> None:
        rows = [torch.zeros(3) for _ in rewards]
        for row, given in zip(rows, rewards, strict=True):
            row[-1] = given["score"]
        nested = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
        self.data = {"uid": uids, "extra_fields": [{"reward_extra_info": r} for r in rewards], "rm_scores": nested}
        self.written: Any = None

    def kv_batch_get(self, **_: Any) -> dict[str, Any]:
        return self.data

    def kv_batch_put(self, *, fields: Any, **_: Any) -> None:
        self.written = fields["rm_scores"].to_padded_tensor(0.0)


def filled_in(
    monkeypatch: pytest.MonkeyPatch, rewards: list[dict[str, Any]], uids: list[str], padding: int = 0
) -> tuple[Store, dict[str, float]]:
    from tmas.training.rl import trainer

    store = Store(rewards, uids)
    monkeypatch.setattr(trainer, "tq", store)
    tags = [{"is_padding": i >= len(rewards) - padding} for i in range(len(rewards))]
    metrics: dict[str, float] = {}

    class Batch(SimpleNamespace):
        def __len__(self) -> int:
            return len(self.keys)

    batch = Batch(keys=[str(i) for i in range(len(rewards))], partition_id="train", tags=tags)
    trainer.TMASTrainer._impute_masked_scores(SimpleNamespace(), batch, metrics)  # type: ignore[arg-type]
    return store, metrics


def test_a_masked_bonus_becomes_that_of_its_siblings_at_the_last_token(monkeypatch: pytest.MonkeyPatch):
    scored = reward(score=1.3, bonus=1.0)
    masked = reward(bonus_state="masked", novelty_state="masked", novelty_why="timeout")
    store, metrics = filled_in(
        monkeypatch, [scored, masked, reward(score=0.0, correctness=0.0, acc=0.0, bonus_weight=0.15)], ["a", "a", "b"]
    )
    assert store.written[1].tolist() == pytest.approx([0.0, 0.0, 1.3])
    assert store.written[0].tolist() == pytest.approx([0.0, 0.0, 1.3])
    assert metrics["reward/all/imputed"] == 1
    assert metrics["reward/guideline/novelty_masked/timeout"] == 1


def test_what_nothing_could_fill_in_is_counted_too(monkeypatch: pytest.MonkeyPatch):
    lost = reward(score=0.0, correctness=0.0, acc=0.0, correctness_state="masked", bonus_state="absent")
    store, metrics = filled_in(monkeypatch, [lost, lost], ["a", "a"])
    assert store.written.tolist() == [[0.0] * 3] * 2
    assert metrics["reward/all/imputed"] == 2
    assert "reward/all/acc" not in metrics


def test_nothing_is_written_where_nothing_was_masked(monkeypatch: pytest.MonkeyPatch):
    store, metrics = filled_in(
        monkeypatch, [reward(), reward(score=0.0, correctness=0.0, acc=0.0, bonus_weight=0.15)], ["a", "a"]
    )
    assert store.written is None
    assert metrics["reward/all/imputed"] == 0


def test_padding_is_neither_logged_nor_a_sibling(monkeypatch: pytest.MonkeyPatch):
    masked = reward(bonus_state="masked", novelty_state="masked", novelty_why="judge")
    scored = reward(score=1.3, bonus=1.0)
    store, metrics = filled_in(monkeypatch, [masked, scored, reward(score=1.0)], ["a", "a", "a"], padding=1)
    assert metrics["reward/all/samples"] == 2
    assert store.written[0].tolist() == pytest.approx([0.0, 0.0, 1.3])
