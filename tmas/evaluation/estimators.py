"""Statistics of an evaluation: pass@k, means over problems with intervals, and calibration of grades.

All functions are pure. Suffixes of array names give the shape: P problems, R resamples, C columns (one per quantity).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from tmas.evaluation.intervals import DIFFERENCE, SHARE, Bounds, Floats, bca_interval, t_interval, unanimous_interval
from tmas.records.evaluation_files import CalibrationBin, Estimate


class BootstrapSettings(BaseModel):
    """Confidence intervals of means over problems."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    resamples: int = Field(default=2000, ge=100, description="Number of bootstrap resamples of the problems.")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="Confidence level of the intervals.")
    seed: int = Field(default=0, description="Seed of the resampling.")
    subsets: int = Field(
        default=100,
        ge=1,
        description="A method with one iteration can be scored at a budget below its own cost, with only some of its"
        " samples. The score is the mean over this many random subsets of the samples.",
    )
    interval: Literal["auto", "t", "bca", "percentile"] = Field(
        default="auto",
        description="t: Student's t. bca: the bias-corrected and accelerated bootstrap. percentile: the percentile"
        " bootstrap. auto: t for differences and for fewer problems than few_problems, otherwise bca.",
    )
    few_problems: int = Field(
        default=10, ge=2, description="Smallest number of problems for which interval=auto uses bca instead of t."
    )


def pass_at_k(correct: int, samples: int, k: int) -> float | None:
    """Estimate the probability that at least one of k samples is correct. Returns None for fewer than k samples.

    The k samples are drawn without replacement from ``samples``, of which ``correct`` are correct. This is the
    unbiased estimator of Chen et al., Evaluating Large Language Models Trained on Code (arXiv 2107.03374).
    """
    return None if samples < k else 1 - comb(samples - correct, k) / comb(samples, k)


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are no such values."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def estimates(
    rows: Sequence[Sequence[float | None]], settings: BootstrapSettings, bounds: Bounds = SHARE
) -> list[Estimate]:
    """Estimate the mean of each column of ``rows`` (P, C). All columns use the same resamples of the problems.

    ``rows`` must hold at least one problem. None marks a problem without a value; it is left out. ``bounds``:
    the lowest and highest possible value (``DIFFERENCE`` for a difference of two shares).
    """
    values_PC = np.array(rows, dtype=np.float64)  # None becomes nan
    known_PC = ~np.isnan(values_PC)
    sizes_C = known_PC.sum(axis=0)
    low_C, high_C = _intervals(values_PC, known_PC, settings, bounds)
    return [
        Estimate(
            value=float(values_PC[known_PC[:, c], c].mean()) if size else None,
            low=float(low_C[c]) if size else None,
            high=float(high_C[c]) if size else None,
            problems=int(size),
            left_out=int(len(rows) - size),
        )
        for c, size in enumerate(sizes_C)
    ]


def estimate(values: Sequence[float | None], settings: BootstrapSettings, bounds: Bounds = SHARE) -> Estimate:
    """Estimate the mean of one quantity from one value per problem. Without problems, mean and interval are None."""
    if not values:
        return Estimate(value=None, low=None, high=None, problems=0, left_out=0)
    return estimates([[value] for value in values], settings, bounds)[0]


def _intervals(
    values_PC: Floats, known_PC: npt.NDArray[np.bool_], settings: BootstrapSettings, bounds: Bounds
) -> tuple[Floats, Floats]:
    """Compute the intervals of all columns. Columns with values for the same problems are computed together."""
    if settings.interval == "percentile":
        return _percentile_intervals(values_PC, known_PC, settings)
    low_C, high_C = np.full((2, values_PC.shape[1]), np.nan)
    patterns, pattern_C = np.unique(known_PC, axis=1, return_inverse=True)
    for number, known_P in enumerate(patterns.T):
        problems = int(known_P.sum())
        columns = np.flatnonzero(pattern_C == number)
        found_PC = values_PC[np.ix_(known_P, columns)]
        varies_C = (found_PC != found_PC[:1]).any(axis=0)
        for c in columns[~varies_C] if problems else []:
            value = float(values_PC[known_P, c][0])
            low_C[c], high_C[c] = unanimous_interval(value, problems, settings.confidence, bounds)
        if not varies_C.any():
            continue
        # In simulations, BCa is too narrow for differences that are 0 for most problems.
        prefers_t = problems < settings.few_problems or bounds == DIFFERENCE
        varying_PC, varying = found_PC[:, varies_C], columns[varies_C]
        if settings.interval == "t" or (settings.interval == "auto" and prefers_t):
            low_C[varying], high_C[varying] = t_interval(varying_PC, settings.confidence, bounds)
        else:
            low_C[varying], high_C[varying] = bca_interval(
                varying_PC, settings.confidence, settings.resamples, settings.seed
            )
    return low_C, high_C


def _percentile_intervals(
    values_PC: Floats, known_PC: npt.NDArray[np.bool_], settings: BootstrapSettings
) -> tuple[Floats, Floats]:
    resamples, problems = settings.resamples, len(values_PC)
    drawn_RP = np.random.default_rng(settings.seed).integers(problems, size=(resamples, problems))
    cells_RP = drawn_RP + problems * np.arange(resamples)[:, None]
    # How often each resample draws each problem, counted for all resamples at once.
    draws_RP = np.bincount(cells_RP.ravel(), minlength=resamples * problems).reshape(resamples, problems).astype(float)
    sums_RC = draws_RP @ np.where(known_PC, values_PC, 0.0)
    sizes_RC = draws_RP @ known_PC
    means_RC = np.divide(sums_RC, sizes_RC, out=np.full_like(sums_RC, np.nan), where=sizes_RC > 0)
    means_RC[:, ~known_PC.any(axis=0)] = 0.0  # these columns are not used; 0 avoids a warning
    tail = (1 - settings.confidence) / 2
    low_C, high_C = np.nanquantile(means_RC, [tail, 1 - tail], axis=0)
    return low_C, high_C


def auroc(grades: Sequence[float], correct: Sequence[bool]) -> float | None:
    """Return the area under the ROC curve of ``grades``.

    It is the probability that a correct item has a higher grade than an incorrect one, where ties count half (the
    Mann-Whitney statistic). Returns None unless there are both correct and incorrect items.
    """
    right = np.array([g for g, c in zip(grades, correct, strict=True) if c])
    wrong = np.sort([g for g, c in zip(grades, correct, strict=True) if not c])
    if not len(right) or not len(wrong):
        return None
    below = np.searchsorted(wrong, right, side="left") + np.searchsorted(wrong, right, side="right")
    return float(below.sum() / 2 / (len(right) * len(wrong)))


def brier(grades: Sequence[float], correct: Sequence[bool]) -> float | None:
    """Return the Brier score: the mean squared difference of grade and correctness (0 or 1). None without grades."""
    return mean([(g - c) ** 2 for g, c in zip(grades, correct, strict=True)])


def reliability(grades: Sequence[float], correct: Sequence[bool], bins: int = 10) -> list[CalibrationBin]:
    """Sort grades in [0, 1] into ``bins`` bins of equal width. Grade 1 belongs to the last bin.

    Returns the number of grades, the mean grade and the share of correct items of each bin.
    """
    index = [min(int(g * bins), bins - 1) for g in grades]
    return [
        CalibrationBin(
            low=b / bins,
            high=(b + 1) / bins,
            count=index.count(b),
            mean_grade=mean([g for g, i in zip(grades, index, strict=True) if i == b]),
            accuracy=mean([float(c) for c, i in zip(correct, index, strict=True) if i == b]),
        )
        for b in range(bins)
    ]


def expected_calibration_error(bins: Sequence[CalibrationBin]) -> float | None:
    """Return the mean absolute difference of mean grade and accuracy over the bins of :func:`reliability`.

    Bins are weighted by count. Returns None if all bins are empty.
    """
    total = sum(b.count for b in bins)
    gaps = [
        b.count * abs(b.mean_grade - b.accuracy) for b in bins if b.mean_grade is not None and b.accuracy is not None
    ]
    return sum(gaps) / total if total else None
