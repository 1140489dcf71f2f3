"""The hybrid reward: correctness and, depending on the source of the training row, one bonus.

docs/rewards.md has the formulas.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

from tmas.records import Record
from tmas.rewards.component import Component, absent
from tmas.rewards.correctness import Correctness

Source = Literal["normal", "experience", "guideline", "verification"]
"""The kind of prompt of a training row, which decides its bonus: without memory, with the experience bank, with the
guideline bank, or a prompt that asks for a verification."""
BONUS: Mapping[str, str] = {"experience": "experience", "guideline": "novelty", "verification": "critique"}
"""For each source that has a bonus, the name of the bonus component. The bonus is added to correctness."""


class RewardBreakdown(Record):
    """The parts of the reward of one sample, which is one response to a prompt.

    ``weight``: weight w of the bonus of the response's source. ``wrong_share``: share of the bonus that a wrong answer
    keeps. ``length_penalty``: the penalty for the length of the response; it is only applied to a scored correctness.
    ``label``: for a verification, whether the candidate that it grades is right or wrong.
    """

    source: Source
    correctness: Correctness
    bonus: Component
    weight: float
    wrong_share: float
    length_penalty: float = 0.0
    label: Literal["right", "wrong", ""] = ""

    @property
    def effective_weight(self) -> float:
        """The amount that a bonus of 1 adds to the score of this response: w, less for a wrong answer, or 0."""
        if self.correctness.state != "scored" or self.bonus.state == "absent":
            return 0.0
        return self.weight * (1.0 if self.correctness.value == 1 else self.wrong_share)

    @property
    def score(self) -> float:
        """c - p + w * b; if c < 1, c - p + wrong_share * w * b.

        c: correctness, b: bonus, w: weight, p: penalty for the length. Masked parts count as 0; :func:`impute` fills
        them in.
        """
        return self.correctness.value - self.applied_length_penalty + self.effective_weight * self.bonus.value

    @property
    def applied_length_penalty(self) -> float:
        return self.length_penalty if self.correctness.state == "scored" else 0.0

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
            # verl's names for the correctness and the final answer
            "acc": self.correctness.value,
            "pred": self.correctness.answer,
            "outcome": self.correctness.outcome,
            "source": self.source,
            "overlong_penalty": self.applied_length_penalty,
            "label": self.label,
            "bonus": self.bonus.value,
            "bonus_state": self.bonus.state,
            "bonus_weight": self.effective_weight,
            **named,
        }


def is_masked(sample: Mapping[str, Any]) -> bool:
    """Whether :func:`impute` has to fill in a part of the sample."""
    return "masked" in (sample["correctness_state"], sample["bonus_state"])


def impute(samples: Sequence[Mapping[str, Any]], groups: Sequence[Hashable]) -> list[float]:
    """Return the scores of the samples. Each masked part is replaced by a mean.

    So no sample has an advantage over its siblings because of a masked part. ``samples`` are reports
    (:meth:`RewardBreakdown.report`), and ``groups`` identifies the prompt of each sample. Siblings are samples with the
    same prompt.

    - A masked bonus becomes the mean bonus of the siblings with the same correctness.
    - A masked correctness makes the whole score the mean of the siblings' scores.
    - If no such sibling has a value, the mean is over the batch's samples of the same source (for a bonus: with the
      same correctness, too). If none of these has a value either, it is 0.
    """
    sources = [sample["source"] for sample in samples]
    correctness_keys = [(sample["correctness_state"], sample["correctness"]) for sample in samples]
    bonuses = _filled(
        [sample["bonus"] if sample["bonus_state"] == "scored" else None for sample in samples],
        [*zip(groups, correctness_keys, strict=True)],
        [*zip(sources, correctness_keys, strict=True)],
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

    ``levels``: lists with one key per value, in the order in which they are tried. The first level in which a known
    value has the same key is used. If there is none, the value becomes 0.
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
