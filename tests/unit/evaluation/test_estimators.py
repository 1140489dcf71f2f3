"""evaluation/estimators.py: against enumeration, by hand, and by properties."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmas.evaluation.estimators import (
    BootstrapSettings,
    auroc,
    brier,
    estimate,
    estimates,
    expected_calibration_error,
    pass_at_k,
    reliability,
)

Graded = list[tuple[float, bool]]


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(1, 9))
def test_pass_at_k_is_the_mean_over_all_choices_of_k_samples(correct: list[bool], k: int):
    found = pass_at_k(sum(correct), len(correct), k)
    choices = [any(choice) for choice in combinations(correct, k)]
    assert found == (pytest.approx(sum(choices) / len(choices)) if choices else None)


def test_pass_at_k_by_hand():
    assert pass_at_k(2, 8, 1) == 0.25
    assert pass_at_k(2, 4, 2) == pytest.approx(5 / 6)  # 1 of the 6 pairs has neither
    assert pass_at_k(0, 4, 4) == 0.0
    assert pass_at_k(3, 3, 4) is None


def test_an_estimate_is_over_the_problems_that_say_something():
    found = estimate([1.0, None, 0.0, 0.5], BootstrapSettings())
    assert found.value == 0.5
    assert (found.problems, found.left_out) == (3, 1)
    assert 0.0 <= found.low < 0.5 < found.high <= 1.0


@pytest.mark.parametrize(("values", "left_out"), [([], 0), ([None, None], 2)])
def test_where_nothing_can_be_said_there_is_no_number(values: list[None], left_out: int):
    nothing = {"value": None, "low": None, "high": None, "problems": 0, "left_out": left_out, "upper": None}
    assert estimate(values, BootstrapSettings()).model_dump() == nothing


def test_the_bootstrap_is_reproducible_by_its_seed():
    values = [float(i % 3 == 0) for i in range(40)]
    first, again = (estimate(values, BootstrapSettings(seed=1)) for _ in range(2))
    assert first == again
    widths = {estimate(values, BootstrapSettings(seed=seed, resamples=100)).low for seed in range(5)}
    assert len(widths) > 1


def test_the_interval_covers_as_often_as_it_says():
    """Of a fair coin's mean over 60 problems the 80 % interval is the normal one, 0.083 to each side of the middle."""
    found = estimate([float(i % 2) for i in range(60)], BootstrapSettings(resamples=20_000, confidence=0.8))
    assert found.low == pytest.approx(0.5 - 1.2816 * 0.5 / 60**0.5, abs=0.01)
    assert found.high == pytest.approx(0.5 + 1.2816 * 0.5 / 60**0.5, abs=0.01)


def test_columns_share_their_resamples():
    rows = [[float(i % 2), 1 - float(i % 2), None] for i in range(20)]
    one, other, nothing = estimates(rows, BootstrapSettings())
    assert one.low == pytest.approx(1 - other.high)
    assert nothing.value is None


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), max_size=12))
def test_auroc_is_the_share_of_pairs_in_the_right_order(graded: Graded):
    right, wrong = ([g for g, c in graded if c is kind] for kind in (True, False))
    pairs = [(a > b) + 0.5 * (a == b) for a in right for b in wrong]
    found = auroc([g for g, _ in graded], [c for _, c in graded])
    assert found == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


def test_calibration_by_hand():
    grades, correct = [0.0, 0.0, 0.5, 1.0, 1.0], [False, True, True, True, False]
    assert brier(grades, correct) == pytest.approx((0 + 1 + 0.25 + 0 + 1) / 5)
    bins = reliability(grades, correct, bins=4)
    assert [b.count for b in bins] == [2, 0, 1, 2]
    assert [b.accuracy for b in bins] == [0.5, None, 1.0, 0.5]
    assert expected_calibration_error(bins) == pytest.approx((2 * 0.5 + 1 * 0.5 + 2 * 0.5) / 5)


def test_calibration_of_nothing():
    assert brier([], []) is None
    assert auroc([], []) is None
    assert expected_calibration_error(reliability([], [])) is None
