"""Advantages of responses as the trainer computes them, from their rewards alone."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from tmas.rewards.advantage import bonus_advantages, correctness_groups, uncompared
from tmas.rewards.hybrid import correctness_score, impute
from tmas.rewards.settings import AdvantageSettings

GROUP_ESTIMATORS = ("grpo", "grpo_vectorized", "rloo", "rloo_vectorized")
"""verl's estimators whose advantage depends on nothing but the scores of the responses to one prompt."""


def group_advantages(
    rewards: Sequence[Mapping[str, Any]],
    groups: Sequence[Hashable],
    settings: AdvantageSettings,
    estimator: str,
    by_std: bool,
) -> list[float]:
    """The advantage of each response of a step. In :class:`TMASTrainer`, each token of the response has it.

    ``rewards``: reports (:meth:`~tmas.rewards.hybrid.RewardBreakdown.report`). ``groups``: the prompt of each response.
    ``estimator``: one of :data:`GROUP_ESTIMATORS`. ``by_std``: verl's ``norm_adv_by_std_in_grpo``.
    """
    if settings.form == "additive":
        return _estimated(impute(rewards, groups), groups, estimator, by_std)
    compared_in = correctness_groups(rewards, groups)
    correctness = _estimated([correctness_score(reward) or 0.0 for reward in rewards], compared_in, estimator, by_std)
    bonuses = bonus_advantages(rewards, groups, settings.bonus_by_std)
    alone = uncompared(rewards, compared_in, estimator in GROUP_ESTIMATORS)
    return [
        bonus + (0.0 if is_alone else advantage)
        for advantage, bonus, is_alone in zip(correctness, bonuses, alone, strict=True)
    ]


def _estimated(scores: Sequence[float], groups: Sequence[Hashable], estimator: str, by_std: bool) -> list[float]:
    """The advantages of responses with these scores, from verl's estimator, which gets one token for each."""
    import numpy as np
    import torch
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    rewards = torch.tensor([[float(score)] for score in scores])
    options = {"norm_adv_by_std_in_grpo": by_std} if estimator == "grpo" else {}  # verl gives it to no other estimator
    index: Any = np.array([str(group) for group in groups], dtype=object)
    advantages, _ = get_adv_estimator_fn(estimator)(
        token_level_rewards=rewards, response_mask=torch.ones_like(rewards), index=index, config=None, **options
    )
    return advantages[:, 0].tolist()
