"""Runs the trainer's own code on rewards without a training: advantages, and the files of kept rollouts.

:class:`Store` stands in for TransferQueue, and :class:`Words` for the tokenizer.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportAbstractUsage=false
# verl and its dependencies have incomplete types.
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from omegaconf import OmegaConf
from tensordict import NonTensorStack, TensorDict


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

    def kv_batch_get(self, *, keys: list[str], select_fields: list[str], **_: Any) -> TensorDict:
        places = [int(key.split("_")[1]) for key in keys]
        found = {
            name: stacked([self.fields[name][place] for place in places])
            for name in select_fields
            if name in self.fields
        }
        return TensorDict(found, batch_size=len(places))

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
    correction: dict[str, Any] | None = None,
    prepare: Callable[[Store], None] = lambda store: None,
    **settings: Any,
) -> tuple[list[float], Store, dict[str, float]]:
    """The advantage of each sample (that of all of its tokens), what is stored then, and the metrics."""
    from verl.trainer.ppo.v1 import trainer_base

    from tmas.training.rl import trainer

    store = Store(rewards, uids)
    prepare(store)
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
                "rollout_correction": correction,
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


class KeptRow(NamedTuple):
    """A response, and the fields of its row. ``prompt``: messages."""

    response: str
    data_source: str
    gold: str
    extra_info: dict[str, Any]
    prompt: list[dict[str, str]]


class Words:
    """A tokenizer whose tokens are words, separated by single spaces."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._words = sorted({word for text in texts for word in text.split(" ")})

    def encode(self, text: str) -> torch.Tensor:
        return torch.tensor([self._words.index(word) for word in text.split(" ")])

    def decode(self, tokens: Any, skip_special_tokens: bool = False) -> str:
        return " ".join(self._words[int(token)] for token in tokens)


def keep(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    store: Store,
    rows: Sequence[KeptRow],
    settings: Mapping[str, Any],
    *,
    step: int = 1,
    padding: int = 0,
    estimator: str = "grpo",
    rollouts: Mapping[str, Any] | None = None,
    max_response_tokens: int = 128,
) -> None:
    """Write the responses of a step to ``folder``, as the trainer does. ``store``: with the step's advantages.

    ``settings``: of the reward. ``padding``: the last samples are padding. ``rollouts``: ``trainer.rollouts``.
    """
    from tmas.training.rl import trainer

    monkeypatch.setattr(trainer, "tq", store)
    one = object.__new__(trainer.TMASTrainer)
    one.tokenizer = Words([row.response for row in rows])
    store.fields |= {
        "responses": [one.tokenizer.encode(row.response) for row in rows],
        "data_source": [row.data_source for row in rows],
        "reward_model": [{"style": "rule", "ground_truth": row.gold} for row in rows],
        "extra_info": [row.extra_info for row in rows],
        "raw_prompt": [row.prompt for row in rows],
    }
    reward = {"custom_reward_function": {"reward_kwargs": {"settings": settings}}}
    algorithm = {"adv_estimator": estimator, "norm_adv_by_std_in_grpo": True}
    one.config = OmegaConf.create(
        {
            "algorithm": algorithm,
            "data": {"max_response_length": max_response_tokens},
            "trainer": {"rollouts": rollouts or {}},
            "reward": reward,
        }
    )
    one.global_steps = step
    one._dump_executor, one._dump_futures = ThreadPoolExecutor(1), []
    tags = [{"is_padding": i >= len(rows) - padding} for i in range(len(rows))]
    keys = [f"{uid}_{i}_0" for i, uid in enumerate(store.fields["uid"])]
    one._log_rollout_data(Batch(keys=keys, partition_id="train", tags=tags), {}, str(folder))
    one._shutdown_dump_executor()
