"""Scores a method of one round with k of its samples, for comparisons at smaller budgets.

A run of 64 samples also shows how 8 samples would have scored: the mean over random subsets of 8. Without this, a
method of one round would score 0 at every budget below its own cost.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tmas.evaluation.correctness import Scoring
from tmas.evaluation.scores import Classes, correctness_of
from tmas.records.run_files import PredictedCandidate, Prediction

Series = dict[str, tuple[float, ...]]
"""Metric -> value with k samples, at index k - 1."""
Ints = npt.NDArray[np.int64]


def by_samples(
    line: Prediction, scoring: Scoring, classes: Classes, subsets: int, seed: int, undecided_as: bool = False
) -> Series:
    """Return each metric with k = 1, 2, ... of the samples of a problem with a gold answer.

    ``undecided_as``: False for the lower bounds, True for the upper bounds.

    Each value is a mean over the passes of the judge and over ``subsets`` random subsets: the first k samples in each
    of as many random orders, which are drawn from ``seed`` and the problem's id. ``selected`` applies the method's
    selection rule; it is missing if that rule is not ``vote`` or ``grade``. Empty unless the problem has exactly one
    round, with two or more samples.
    """
    if len(line.iterations) != 1 or not line.rounds or line.gold is None:
        return {}
    [round_] = line.rounds
    samples = round_.samples
    if len(samples) < 2:
        return {}
    rule = round_.selected.rule if round_.selected else None
    draws = np.random.default_rng([seed, zlib.crc32(line.problem_id.encode())])
    orders = [draws.permutation(len(samples)) for _ in range(subsets)]
    gold = line.gold
    found = [
        _series(
            samples,
            [undecided_as if v is None else v for v in correctness_of(gold, samples, correct)],
            classes,
            rule,
            orders,
        )
        for correct in scoring
    ]
    return {name: tuple(round(float(v), 4) for v in np.mean([one[name] for one in found], axis=0)) for name in found[0]}


def _series(
    samples: Sequence[PredictedCandidate],
    verdicts: Sequence[bool],
    classes: Classes,
    rule: str | None,
    orders: Sequence[Ints],
) -> dict[str, list[float]]:
    drawn = [
        _Sample(index, None if s.answer is None else classes[s.answer], s.mean_grade, right)
        for index, (s, right) in enumerate(zip(samples, verdicts, strict=True))
    ]
    metrics: dict[str, Callable[[], _Metric]] = {"vote": _LargestClass}
    if any(sample.grade is not None for sample in drawn):
        metrics["best_of"] = _BestGrade
    if rule in ("vote", "grade"):
        metrics["selected"] = partial(_MethodsChoice, by_vote=rule == "vote")
    series = {"pass_at_1": [fmean(verdicts)] * len(drawn)}
    for name, metric in metrics.items():
        values = [map(metric().add, (drawn[index] for index in order)) for order in orders]
        series[name] = [fmean(by_order) for by_order in zip(*values, strict=True)]
    return series


class _Sample(NamedTuple):
    place: int
    answer: int | None
    """The class of its answer."""
    grade: float | None
    right: bool


class _Metric(Protocol):
    """A metric of the samples so far."""

    def add(self, sample: _Sample) -> float:
        """Add a sample and return the new value."""
        ...


class _LargestClass:
    """The share of right answers in the largest class, averaged over tied classes; 0 without answers."""

    def __init__(self) -> None:
        self._sizes: defaultdict[int, int] = defaultdict(int)
        self._rights: defaultdict[int, int] = defaultdict(int)
        self._largest = self._tied = 0
        self._shares = 0.0  # sum over the tied classes

    def add(self, sample: _Sample) -> float:
        if sample.answer is not None:
            self._sizes[sample.answer] += 1
            self._rights[sample.answer] += sample.right
            size = self._sizes[sample.answer]
            if size > self._largest:
                self._largest, self._tied, self._shares = size, 0, 0.0
            if size == self._largest:
                self._tied += 1
                self._shares += self._rights[sample.answer] / size
        return self._shares / self._tied if self._tied else 0.0


class _BestGrade:
    """The share of right samples among those with the highest grade; 0 without a grade."""

    def __init__(self) -> None:
        self._grade = -1.0
        self._count = self._rights = 0

    def add(self, sample: _Sample) -> float:
        if sample.grade is not None:
            if sample.grade > self._grade:
                self._grade, self._count, self._rights = sample.grade, 0, 0
            if sample.grade == self._grade:
                self._count += 1
                self._rights += sample.right
        return self._rights / self._count if self._count else 0.0


class _MethodsChoice:
    """Whether the sample that :mod:`tmas.methods.selection` selects is right.

    Each class of answers is represented by its best sample: the highest grade, and of equal grades the first sample. A
    new sample can only raise its own class, so one comparison with the best class so far is enough.
    """

    def __init__(self, by_vote: bool) -> None:
        self._by_vote = by_vote
        self._votes: defaultdict[int, int] = defaultdict(int)
        self._best: dict[int, tuple[float, int, bool]] = {}
        self._selected: tuple[bool, float, float, int, bool] | None = None

    def add(self, sample: _Sample) -> float:
        best = (-1.0 if sample.grade is None else sample.grade, -sample.place, sample.right)
        votes = 0
        if sample.answer is not None:
            self._votes[sample.answer] += 1
            votes = self._votes[sample.answer]
            best = self._best[sample.answer] = max(best, self._best.get(sample.answer, best))
        grade, place, right = best
        primary, secondary = (votes, grade) if self._by_vote else (grade, votes)
        candidate = (sample.answer is not None, primary, secondary, place, right)
        self._selected = max(candidate, self._selected or candidate)
        return float(self._selected[-1])
