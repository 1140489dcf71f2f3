"""verl's synchronous V1 trainer with two additions for the hybrid reward.

Before advantages are computed, a score that a failed judge left open is imputed from the other samples of the prompt.
Every component of the reward is logged by ``_source``.
"""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportCallIssue=false
# verl and its dependencies have incomplete types.
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from tmas.rewards.hybrid import impute, is_masked
from tmas.training.rl.reward_metrics import reward_metrics

VERL_METRICS = ("reward", "score", "acc", "pred")
"""The results for which verl logs mean@N, best@N and maj@N in validation. By default verl logs them for all results."""
Reward = dict[str, Any]
"""The result of :func:`tmas.rewards.verl_entry.compute_score` for one sample."""


class TMASTrainer(PPOTrainerSync):
    """Imputes masked scores and logs the reward's components. Everything else is verl's trainer."""

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        self._impute_masked_scores(batch, metrics)
        return super()._compute_advantage(batch, metrics)

    def _impute_masked_scores(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> None:
        """Log the components, and write the imputed scores to the batch (see :func:`~tmas.rewards.hybrid.impute`)."""
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["uid", "extra_fields", "rm_scores"]
        )
        rewards: list[Reward] = [fields["reward_extra_info"] for fields in data["extra_fields"]]
        real = [not tag.get("is_padding", False) for tag in batch.tags]
        metrics.update(reward_metrics("reward", [r for r, is_real in zip(rewards, real, strict=True) if is_real]))
        # Each padding sample gets a group of its own, so that no score is imputed from it.
        uids = enumerate(zip(data["uid"], real, strict=True))
        scores = impute(rewards, [str(uid) if is_real else f"padding {i}" for i, (uid, is_real) in uids])
        masked = [is_masked(reward) and is_real for reward, is_real in zip(rewards, real, strict=True)]
        metrics["reward/all/imputed"] = float(sum(masked))
        if any(masked):
            rows = [
                _score_at_last_token(row, score) for row, score in zip(data["rm_scores"].unbind(), scores, strict=True)
            ]
            nested = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
            fields = TensorDict({"rm_scores": nested}, batch_size=len(batch))
            tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)

    def _val_metrics_update(
        self,
        data_sources: Sequence[str],
        sample_uids: Sequence[str],
        reward_extra_infos_dict: dict[str, list[Any]],
        sample_turns: Sequence[int],
        expected_acc_counts: dict[tuple[str, str], int] | None = None,
    ) -> dict[str, float]:
        own = {name: values for name, values in reward_extra_infos_dict.items() if name in VERL_METRICS}
        metrics = super()._val_metrics_update(data_sources, sample_uids, own, sample_turns, expected_acc_counts)
        names = list(reward_extra_infos_dict)
        rewards = [dict(zip(names, row, strict=True)) for row in zip(*reward_extra_infos_dict.values(), strict=True)]
        return {**metrics, **reward_metrics("val-reward", rewards)}


def _score_at_last_token(row: torch.Tensor, score: float) -> torch.Tensor:
    """Token-level scores with the shape of ``row``, ``[response_length]``: ``score`` at the last token, else 0."""
    scores = torch.zeros_like(row)
    scores[-1] = score
    return scores
