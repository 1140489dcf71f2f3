"""verl's synchronous and asynchronous V1 trainers with three additions for the hybrid reward, one for safety, and one
for the short steps of small policies.

By default, the advantage of a response is the sum of two advantages: that of its correctness, which verl computes, and
that of its bonus (:mod:`tmas.rewards.advantage`). Every component of the reward is logged by ``_source``. The responses
of each step are kept with their rewards. A training ends with an error if a vLLM server or another actor that it
depends on dies. On the CPU, the trainer pauses for a shorter time between two checks for finished responses.
"""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportCallIssue=false, reportAbstractUsage=false
# verl and its dependencies have incomplete types.
from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import compress
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.debug import marked_timer

from tmas.rewards.advantage import bonus_advantages, correctness_groups, uncompared
from tmas.rewards.hybrid import correctness_score, impute, is_masked
from tmas.rewards.settings import WITHOUT_JUDGE, AdvantageSettings, RewardSettings
from tmas.settings import flatten
from tmas.training.rl.liveness import watch_actors
from tmas.training.rl.objective_checks import COMPARES_SAMPLES
from tmas.training.rl.reward_metrics import reward_metrics
from tmas.training.rl.rollouts import UNKEPT, KeptPrompt, KeptResponse, KeptStep, kept_response, prompt_text, write_step
from tmas.training.rl.settings import REWARD_KEY, RolloutSettings

VERL_METRICS = ("reward", "score", "acc", "pred")
"""The results for which verl logs mean@N, best@N and maj@N in validation. By default verl logs them for all results."""
CPU_POLL_SECONDS = 0.1
"""On the CPU: pause between two checks whether all responses are there. verl's own pause is 2 s, and small policies
generate the responses of a step in about as long."""
Reward = dict[str, Any]
"""The result of :func:`tmas.rewards.verl_entry.compute_score` for one sample."""


class HybridRewardHooks(PPOTrainer):
    """Computes the advantage, logs the reward's components, keeps the responses, and watches the actors.

    Everything else is verl's trainer.

    verl's variants of the objective work with it: Dr. GRPO changes the advantage of correctness, which verl computes.
    GSPO, clips and the correction of vLLM's probabilities change the loss alone. Dynamic sampling drops prompts before
    this class sees them.
    """

    def _build_replay_buffer(self) -> ReplayBuffer:
        buffer = super()._build_replay_buffer()
        if self.config.trainer.device == "cpu":
            buffer.poll_interval = CPU_POLL_SECONDS
        return buffer

    def fit(self, agent_loop_manager: Any) -> None:
        """Train, or raise :class:`~tmas.training.rl.liveness.ActorDied`."""
        actors = {
            "actor": self.actor_rollout_wg.workers,
            "vLLM server": [server for replica in self.llm_server_manager.get_replicas() for server in replica.servers],
            "agent loop": agent_loop_manager.agent_loop_workers,
            "reward": self.get_reward_handles() or [],
        }
        with watch_actors(actors):
            super().fit(agent_loop_manager)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        data = _get(batch, "uid", "extra_fields", "rm_scores")
        rewards: list[Reward] = [fields["reward_extra_info"] for fields in data["extra_fields"]]
        real = [not tag.get("is_padding", False) for tag in batch.tags]
        metrics.update(reward_metrics("reward", list(compress(rewards, real))))
        metrics["reward/all/masked"] = float(sum(map(is_masked, compress(rewards, real))))
        # Each padding sample gets a group of its own, so that no sample is compared with it.
        numbered = enumerate(zip(data["uid"], real, strict=True))
        uids = [str(uid) if is_real else f"padding {i}" for i, (uid, is_real) in numbered]
        settings = _advantage_settings(self.config)
        if settings.form == "additive":
            filled = iter(impute(list(compress(rewards, real)), list(compress(uids, real))))
            _put(
                batch,
                rm_scores=_at_last_token(data["rm_scores"], [next(filled) if is_real else 0.0 for is_real in real]),
            )
            return super()._compute_advantage(batch, metrics)
        # verl computes the advantage of correctness. Afterwards the scores and groups are restored for verl's metrics.
        # A padding sample has a copy of a real sample's reward, but verl gives it the score 0.
        scores = [(correctness_score(reward) or 0.0) * is_real for reward, is_real in zip(rewards, real, strict=True)]
        groups = [str(group) for group in correctness_groups(rewards, uids)]
        _put(batch, rm_scores=_at_last_token(data["rm_scores"], scores), uid=groups)
        batch = super()._compute_advantage(batch, metrics)
        _put(batch, rm_scores=data["rm_scores"], uid=list(data["uid"]))
        bonuses = bonus_advantages(rewards, uids, settings.bonus_by_std)
        metrics["reward/all/bonus_advantage"] = fmean(map(abs, compress(bonuses, real)))
        self._add_bonuses(
            batch, bonuses, uncompared(rewards, groups, self.config.algorithm.adv_estimator in COMPARES_SAMPLES)
        )
        return batch

    def _add_bonuses(self, batch: KVBatchMeta, bonuses: Sequence[float], uncompared: Sequence[bool]) -> None:
        """Add the bonus of each sample to the advantage of its tokens.

        The advantage of correctness is 0 for a sample that has no other sample to be compared with (``uncompared``).
        """
        data = _get(batch, "advantages", "response_mask")
        rows = zip(data["advantages"].unbind(), data["response_mask"].unbind(), bonuses, uncompared, strict=True)
        found = [(torch.zeros_like(a) if alone else a) + bonus * mask for a, mask, bonus, alone in rows]
        _put(batch, advantages=found)

    def _log_rollout_data(self, batch: KVBatchMeta, timing_raw: dict[str, float], rollout_data_dir: str) -> None:
        """Keep the responses of a step in this project's form (:mod:`tmas.training.rl.rollouts`), in verl's thread for
        such files."""
        with marked_timer("dump_rollout_generations", timing_raw, color="green"):
            settings = RolloutSettings.model_validate(self.config.trainer.get("rollouts", {}))
            prompts = self._kept_prompts(batch, settings.thinking)
            write = partial(write_step, Path(rollout_data_dir), self._kept_step(), prompts, settings.max_gb * 1e9)
            self._dump_futures.append(self._dump_executor.submit(write))
            for future in [future for future in self._dump_futures if future.done()]:
                future.result()  # raises the error of a write that failed
                self._dump_futures.remove(future)

    def _kept_step(self) -> KeptStep:
        given: Any = OmegaConf.to_container(OmegaConf.select(self.config, REWARD_KEY), resolve=True)
        reward = RewardSettings.model_validate({**given, "judge": None}, context=WITHOUT_JUDGE)
        algorithm = {key: self.config.algorithm.get(key) for key in ("adv_estimator", "norm_adv_by_std_in_grpo")}
        chosen = reward.model_dump(mode="json", exclude={*UNKEPT})
        return KeptStep(
            step=self.global_steps,
            algorithm=algorithm,
            reward=flatten(chosen),
            max_response_tokens=self.config.data.max_response_length,
        )

    def _kept_prompts(self, batch: KVBatchMeta, thinking: bool) -> list[KeptPrompt]:
        keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        row = ("uid", "data_source", "reward_model", "extra_info", "raw_prompt")
        tokenwise = ("responses", "advantages", "response_mask")
        names = [*row, *tokenwise, "extra_fields"]
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=names)
        responses: defaultdict[str, list[KeptResponse]] = defaultdict(list)
        tensors = [data[name].unbind() for name in tokenwise]
        for uid, fields, tokens, advantages, mask in zip(data["uid"], data["extra_fields"], *tensors, strict=True):
            text = self.tokenizer.decode(tokens, skip_special_tokens=True)
            advantage = float((advantages * mask).sum() / max(mask.sum(), 1))
            responses[uid].append(kept_response(text, fields["reward_extra_info"], advantage, thinking))
        rows = {values[0]: values[1:] for values in zip(*(data[name] for name in row), strict=True)}
        return [
            KeptPrompt(
                uid=uid,
                data_source=data_source,
                gold=reward_model["ground_truth"],
                prompt=prompt_text(messages),
                extra_info=extra_info,
                responses=tuple(responses[uid]),
            )
            for uid, (data_source, reward_model, extra_info, messages) in rows.items()
        ]

    def _val_metrics_update(
        self,
        data_sources: Sequence[str],
        sample_uids: Sequence[str],
        reward_extra_infos_dict: dict[str, list[Any]],
        sample_turns: Sequence[int],
        expected_acc_counts: dict[tuple[str, str], int] | None = None,
    ) -> dict[str, float]:
        for_verl = {name: values for name, values in reward_extra_infos_dict.items() if name in VERL_METRICS}
        metrics = super()._val_metrics_update(data_sources, sample_uids, for_verl, sample_turns, expected_acc_counts)
        names = list(reward_extra_infos_dict)
        rewards = [dict(zip(names, row, strict=True)) for row in zip(*reward_extra_infos_dict.values(), strict=True)]
        return {**metrics, **reward_metrics("val-reward", rewards)}


class TMASTrainer(HybridRewardHooks, PPOTrainerSync):
    """The synchronous trainer (``trainer.v1.trainer_mode=sync``)."""


class TMASColocateAsyncTrainer(HybridRewardHooks, PPOTrainerColocateAsync):
    """The asynchronous trainer whose generation shares the devices (``trainer.v1.trainer_mode=colocate_async``)."""


def _advantage_settings(config: DictConfig) -> AdvantageSettings:
    found = OmegaConf.select(config, f"{REWARD_KEY}.advantage")
    return AdvantageSettings() if found is None else AdvantageSettings.model_validate(OmegaConf.to_container(found))


def _get(batch: KVBatchMeta, *fields: str) -> Any:
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(fields))


def _put(batch: KVBatchMeta, **fields: Any) -> None:
    """Write fields of the batch. A list of tensors of different lengths becomes a nested tensor."""
    tensors = {
        name: torch.nested.as_nested_tensor(value, layout=torch.jagged)
        if isinstance(value, list) and isinstance(value[0], torch.Tensor)
        else NonTensorStack(*value)
        if isinstance(value, list)
        else value
        for name, value in fields.items()
    }
    tq.kv_batch_put(
        keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(tensors, batch_size=len(batch.keys))
    )


def _at_last_token(rows: torch.Tensor, scores: Sequence[float]) -> list[torch.Tensor]:
    """Token-level scores in the shape of ``rows``: the score of each sample at its last token, else 0."""
    found = []
    for row, score in zip(rows.unbind(), scores, strict=True):
        found.append(torch.zeros_like(row))
        found[-1][-1] = score
    return found
