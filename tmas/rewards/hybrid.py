"""The hybrid reward: correctness and, depending on the row's source, one bonus. docs/rewards.md has the formulas."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

from tmas.records import Record
from tmas.rewards.component import Component, absent
from tmas.rewards.correctness import Correctness

Source = Literal["normal", "experience", "guideline", "verification"]
BONUS: Mapping[str, str] = {"experience": "experience", "guideline": "novelty", "verification": "critique"}
"""The bonus component of each source with a bonus: it is rewarded in addition to correctness."""


class RewardBreakdown(Record):
    """The parts of one response's reward.

    ``weight``: weight w of the bonus of the response's source. ``wrong_share``: share of the bonus that a wrong answer
    keeps. ``overlong``: the penalty for its length, subtracted from a scored correctness. ``label``: for a
    verification, whether the candidate that it grades is right or wrong.
    """

    source: Source
    correctness: Correctness
    bonus: Component
    weight: float
    wrong_share: float
    overlong: float = 0.0
    label: Literal["right", "wrong", ""] = ""

    @property
    def bonus_weight(self) -> float:
        """The amount that a bonus of 1 adds to this response's score."""
        if self.correctness.state != "scored" or self.bonus.state == "absent":
            return 0.0
        return self.weight * (1.0 if self.correctness.value == 1 else self.wrong_share)

    @property
    def score(self) -> float:
        """R = c - p + w b, or c - p + wrong_share w b if c < 1, where p is the penalty for the response's length.

        Masked parts count as 0; :func:`impute` fills them in.
        """
        return self.correctness.value - self.overlong_penalty + self.bonus_weight * self.bonus.value

    @property
    def overlong_penalty(self) -> float:
        return self.overlong if self.correctness.state == "scored" else 0.0

    def report(self) -> dict[str, str | float]:
        """The reward and its parts as a flat mapping, with the same keys and types for every response."""
        components = {"correctness": self.correctness, **dict.fromkeys(BONUS.values(), absent())}
        if self.source in BONUS:
            components[BONUS[self.source]] = self.bonus
        named = {
            f"{name}{suffix}": value
            for name, part in components.items()
            for suffix, value in (("", part.value), ("_state", part.state), ("_why", part.why))
        }
        return {
            "score": self.score,
            "acc": self.correctness.value,
            "pred": self.correctness.answer,
            "outcome": self.correctness.outcome,
            "source": self.source,
            "overlong_penalty": self.overlong_penalty,
            "label": self.label,
            "bonus": self.bonus.value,
            "bonus_state": self.bonus.state,
            "bonus_weight": self.bonus_weight,
            **named,
        }


def is_masked(sample: Mapping[str, Any]) -> bool:
    """Whether :func:`impute` has to fill in a part of the sample."""
    return "masked" in (sample["correctness_state"], sample["bonus_state"])


def impute(samples: Sequence[Mapping[str, Any]], groups: Sequence[Hashable]) -> list[float]:
    """Return the samples' scores with masked parts filled in, so that they favour no sample over its siblings.

    ``samples`` are reports (:meth:`RewardBreakdown.report`), and ``groups`` identifies the prompt of each sample.
    Siblings are samples with the same prompt. A masked bonus becomes the mean bonus of the siblings with the same
    correctness. A masked correctness makes the whole score the mean of the siblings' scores. Where no sibling was
    scored, the mean is over the batch's samples of the same source; without these it is 0.
    """
    sources = [sample["source"] for sample in samples]
    rights = [(sample["correctness_state"], sample["correctness"]) for sample in samples]
    bonuses = _filled(
        [sample["bonus"] if sample["bonus_state"] == "scored" else None for sample in samples],
        [*zip(groups, rights, strict=True)],
        [*zip(sources, rights, strict=True)],
    )
    scores = [
        None if score is None else score + sample["bonus_weight"] * bonus
        for sample, score, bonus in zip(samples, map(correctness_score, samples), bonuses, strict=True)
    ]
    return _filled(scores, groups, sources)


def correctness_score(sample: Mapping[str, Any]) -> float | None:
    """The correctness of a sample minus the penalty for its length; None if its correctness is masked."""
    if sample["correctness_state"] == "masked":
        return None
    return sample["correctness"] - sample.get("overlong_penalty", 0.0)


def _filled(values: Sequence[float | None], *levels: Sequence[Hashable]) -> list[float]:
    """Replace each None in ``values`` by the mean of the known values with the same key.

    The first level with such values is used; without any, 0.
    """
    means = [_means(values, keys) for keys in levels]
    fillers = (
        next((known[key] for known, key in zip(means, keys, strict=True) if key in known), 0.0)
        for keys in zip(*levels, strict=True)
    )
    return [filler if value is None else value for value, filler in zip(values, fillers, strict=True)]


def _means(values: Sequence[float | None], keys: Sequence[Hashable]) -> dict[Hashable, float]:
    known: defaultdict[Hashable, list[float]] = defaultdict(list)
    for value, key in zip(values, keys, strict=True):
        if value is not None:
            known[key].append(value)
    return {key: fmean(members) for key, members in known.items()}
