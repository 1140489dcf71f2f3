"""The decoupled advantage: A = A_correctness + w * A_bonus. docs/rewards.md has the formulas and the bound.

Correctness and bonus are compared separately, each within its own groups. So no bonus can outweigh correctness, and a
failed judge does not affect other samples.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import Any


def correctness_groups(samples: Sequence[Mapping[str, Any]], groups: Sequence[Hashable]) -> list[Hashable]:
    """The group of each sample for the advantage of correctness.

    ``samples`` are reports (:meth:`~tmas.rewards.hybrid.RewardBreakdown.report`), and ``groups`` identifies the prompt
    of each sample. A sample whose correctness is masked is alone in a group, so that the others are compared without
    it.
    """
    return [
        ("masked", place) if sample["correctness_state"] == "masked" else group
        for place, (sample, group) in enumerate(zip(samples, groups, strict=True))
    ]


def uncompared(samples: Sequence[Mapping[str, Any]], groups: Sequence[Hashable], compares: bool) -> list[bool]:
    """For each sample, whether it teaches nothing about correctness: it is masked, or it is alone in its group.

    ``groups``: from :func:`correctness_groups`. ``compares``: whether the estimator compares the samples of a group.
    verl's estimators take 0 for the mean of a group of one, so that a right answer without siblings would be
    reinforced like the only right one among many.
    """
    size = Counter(groups)
    return [
        sample["correctness_state"] == "masked" or (compares and size[group] == 1)
        for sample, group in zip(samples, groups, strict=True)
    ]


def bonus_advantages(samples: Sequence[Mapping[str, Any]], groups: Sequence[Hashable], by_std: bool) -> list[float]:
    """w * A_bonus of each sample: its bonus minus the mean bonus of the samples it is compared with, times its weight.

    A sample is compared with those samples of its prompt that are equally right and whose bonus was scored. A sample
    whose bonus was not scored, or that is compared with no other sample, gets 0. |A_bonus| <= 1 always: with ``by_std``
    the difference is divided by the standard deviation and by (n - 1) / sqrt(n), the largest value that a standardised
    sample of n can have.
    """
    members: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, (sample, group) in enumerate(zip(samples, groups, strict=True)):
        if sample["correctness_state"] == sample["bonus_state"] == "scored":
            members[group, sample["correctness"]].append(place)
    advantages = [0.0] * len(samples)
    for places in members.values():
        centred = _centred([samples[place]["bonus"] for place in places], by_std)
        for place, value in zip(places, centred, strict=True):
            advantages[place] = samples[place]["bonus_weight"] * value
    return advantages


def _centred(bonuses: Sequence[float], by_std: bool) -> list[float]:
    mean, n = fmean(bonuses), len(bonuses)
    spread = stdev(bonuses) * (n - 1) / sqrt(n) if by_std and n > 1 else 1.0
    return [(bonus - mean) / spread if spread else 0.0 for bonus in bonuses]
