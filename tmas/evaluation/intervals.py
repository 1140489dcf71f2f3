"""Confidence intervals of means over problems, and the paired test. scipy does the statistics.

Suffixes of array names give the shape: P problems, C columns (one per quantity).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bounds = tuple[float, float]
"""The lowest and highest possible value of a quantity."""
SHARE: Bounds = (0.0, 1.0)
DIFFERENCE: Bounds = (-1.0, 1.0)
BATCH_CELLS = 4_000_000
"""Maximum number of resampled values in memory at the same time."""


def t_interval(values_PC: Floats, confidence: float, bounds: Bounds) -> tuple[Floats, Floats]:
    """Return Student's t interval of the mean of each column, cut off at ``bounds``.

    A single problem says nothing about other problems: its interval is ``bounds``.
    """
    from scipy.special import stdtrit

    problems = len(values_PC)
    if problems == 1:
        return np.full(values_PC.shape[1], bounds[0]), np.full(values_PC.shape[1], bounds[1])
    quantile = stdtrit(problems - 1, (1 + confidence) / 2)
    mean_C = values_PC.mean(axis=0)
    half_C = quantile * values_PC.std(axis=0, ddof=1) / np.sqrt(problems)
    return np.maximum(mean_C - half_C, bounds[0]), np.minimum(mean_C + half_C, bounds[1])


def bca_interval(values_PC: Floats, confidence: float, resamples: int, seed: int) -> tuple[Floats, Floats]:
    """Return the bias-corrected and accelerated bootstrap interval (BCa; Efron 1987) of the mean of each column.

    All columns use the same resamples. Each column must hold at least two different values.
    """
    from scipy.stats import bootstrap

    found = bootstrap(
        (values_PC.T,),
        np.mean,
        axis=-1,
        n_resamples=resamples,
        batch=max(1, BATCH_CELLS // values_PC.size),
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return np.asarray(found.low), np.asarray(found.high)


def unanimous_interval(value: float, problems: int, confidence: float, bounds: Bounds) -> Bounds:
    """Return the interval of a mean if every problem has the same ``value``.

    If all shares are 0 (or all are 1), the limit is that of Clopper and Pearson for no success (or no failure). It is
    also valid for shares of several samples: if their true mean is m, the share of a problem is above 0 with a
    probability of at least m. Any other value has an interval without width, or the interval ``bounds`` if there is
    only one problem.
    """
    limit = ((1 - confidence) / 2) ** (1 / problems)
    if bounds == SHARE and value == 0:
        return 0.0, 1 - limit
    if bounds == SHARE and value == 1:
        return limit, 1.0
    return bounds if problems == 1 else (value, value)


def sign_flip_p(differences: Sequence[float], resamples: int, seed: int) -> float | None:
    """Return the two-sided p-value of a paired permutation test that the mean difference is 0. None without pairs.

    Under the null hypothesis, each difference is equally likely to have either sign. All sign patterns are tried if
    there are at most ``resamples`` of them, otherwise a random sample of that size.
    """
    from scipy.stats import permutation_test

    if not differences:
        return None
    if len(differences) == 1 or not any(differences):
        return 1.0
    found = permutation_test(
        (np.array(differences),),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, BATCH_CELLS // len(differences)),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)
