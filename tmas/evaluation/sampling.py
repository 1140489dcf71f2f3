"""A method of one round, scored with the first k of its samples, for comparisons at smaller budgets.

A run of 64 samples also tells how 8 samples would have done: the mean over random subsets of 8. Without this a method
that samples once scored 0 at every budget below its own cost.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tmas.evaluation.correctness import Scoring
from tmas.evaluation.scores import Classes, judged
from tmas.records.run_files import PredictedCandidate, Prediction

Series = dict[str, tuple[float, ...]]
"""Metric -> value with k samples, at index k - 1."""
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def by_samples(
    line: Prediction, scoring: Scoring, classes: Classes, subsets: int, seed: int, undecided_as: bool = False
) -> Series:
    """Return each metric with k = 1, 2, ... of the samples of a problem with a gold answer.

    ``undecided_as``: False for the lower bounds, True for the upper bounds.

    Each value is a mean over ``subsets`` random subsets, the prefixes of random orders drawn from ``seed`` and the
    problem's id, and over the passes of the judge. ``selected`` repeats the method's rule of selection; it is missing
    if that rule is not ``vote`` or ``grade``. Empty unless the problem has exactly one round, with two or more samples.
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
            [undecided_as if v is None else v for v in judged(gold, samples, correct)],
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
) -> dict[str, Floats]:
    """Shapes: N samples, K = N prefixes, C classes of answers, G grades in ascending order."""
    right_N = np.array(verdicts, dtype=float)
    answered_N = np.array([s.answer is not None for s in samples])
    class_NC = _one_hot([None if s.answer is None else classes[s.answer] for s in samples])
    grades = sorted({s.mean_grade for s in samples if s.mean_grade is not None})
    grade_N = np.array([-1 if s.mean_grade is None else grades.index(s.mean_grade) for s in samples])
    grade_NG = _one_hot([None if g < 0 else int(g) for g in grade_N])
    series = {"pass_at_1": np.full(len(samples), right_N.mean()), "vote": np.zeros(len(samples))}
    if grades:
        series["best_of"] = np.zeros(len(samples))
    if rule in ("vote", "grade"):
        series["selected"] = np.zeros(len(samples))
    for order in orders:
        votes_KC = class_NC[order].cumsum(axis=0)
        series["vote"] += _share_of_largest(votes_KC, (class_NC * right_N[:, None])[order].cumsum(axis=0))
        if "best_of" in series:
            counts_KG = grade_NG[order].cumsum(axis=0)
            series["best_of"] += _share_of_best(counts_KG, (grade_NG * right_N[:, None])[order].cumsum(axis=0))
        if "selected" in series:
            votes_KN = votes_KC @ class_NC.T
            series["selected"] += right_N[_selected(votes_KN, grade_N, answered_N, order, rule == "vote")]
    return {name: values if name == "pass_at_1" else values / len(orders) for name, values in series.items()}


def _one_hot(labels: Sequence[int | None]) -> Floats:
    known = sorted({label for label in labels if label is not None})
    return np.array([[float(label == one) for one in known] for label in labels]).reshape(len(labels), len(known))


def _share_of_largest(sizes_KC: Floats, rights_KC: Floats) -> Floats:
    """The share of right answers in the largest class, averaged over tied classes; 0 without answers."""
    if not sizes_KC.shape[1]:
        return np.zeros(len(sizes_KC))
    largest_KC = (sizes_KC == sizes_KC.max(axis=1, keepdims=True)) & (sizes_KC > 0)
    shares_KC = np.divide(rights_KC, sizes_KC, out=np.zeros_like(rights_KC), where=sizes_KC > 0)
    return (shares_KC * largest_KC).sum(axis=1) / np.maximum(largest_KC.sum(axis=1), 1)


def _share_of_best(counts_KG: Floats, rights_KG: Floats) -> Floats:
    """The share of right samples among those with the highest grade; 0 without a grade."""
    best_K = counts_KG.shape[1] - 1 - np.argmax(counts_KG[:, ::-1] > 0, axis=1)
    rows = np.arange(len(counts_KG))
    counts_K = counts_KG[rows, best_K]
    return np.divide(rights_KG[rows, best_K], counts_K, out=np.zeros(len(counts_KG)), where=counts_K > 0)


def _selected(votes_KN: Floats, grade_N: Ints, answered_N: npt.NDArray[np.bool_], order: Ints, by_vote: bool) -> Ints:
    """The index of the sample that :mod:`tmas.methods.selection` selects from each prefix of ``order``."""
    n = len(order)
    place_N = np.empty(n, dtype=np.int64)
    place_N[order] = np.arange(n)
    scale = float(grade_N.max() + 2)
    primary_KN, secondary_KN = (
        (votes_KN, grade_N + 1) if by_vote else ((grade_N + 1) * np.ones_like(votes_KN), votes_KN)
    )
    base = max(scale, n + 1.0)
    key_KN = ((answered_N * base + primary_KN) * base + secondary_KN) * (n + 1) + (n - np.arange(n))
    key_KN[place_N[None, :] > np.arange(n)[:, None]] = -1
    return np.argmax(key_KN, axis=1)
