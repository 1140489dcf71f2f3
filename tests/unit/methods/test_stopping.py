"""The rule that ends the checks of a candidate: its decisions, and its error rates by exact enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from pydantic import ValidationError

from tmas.methods.stopping import VerificationSettings, accepted, next_checks, rejected

M = 8
FAIR = VerificationSettings()
UNEVEN = VerificationSettings(right=0.7, wrong=0.3, alpha=0.05, beta=0.2, half=0.5, round_size=1)


def outcomes(
    grade: Mapping[float, float], settings: VerificationSettings, full: int = M
) -> tuple[float, float, float, float]:
    """Exact probabilities (rejected, accepted), their sum with undecided, and the mean number of checks.

    ``grade``: the probability of each grade. Follows every possible sequence of rounds.
    """
    states: dict[tuple[float, ...], float] = {(): 1.0}
    reject = accept = total = checks = 0.0
    while states:
        following: dict[tuple[float, ...], float] = {}
        for grades, probability in states.items():
            if count := next_checks(grades, full, settings):
                for new in itertools.product(grade, repeat=count):
                    key = tuple(sorted((*grades, *new)))  # the order makes no difference to the rule
                    likely = probability
                    for one in new:
                        likely *= grade[one]
                    following[key] = following.get(key, 0.0) + likely
                continue
            total += probability
            checks += probability * len(grades)
            reject += probability * rejected(grades, settings)
            accept += probability * accepted(grades, full, settings)
        states = following
    return reject, accept, total, checks


@pytest.mark.parametrize("settings", [FAIR, UNEVEN])
@pytest.mark.parametrize("half", [0.0, 0.1])
def test_error_rates_are_at_most_alpha_and_beta(settings: VerificationSettings, half: float):
    """At the border of each hypothesis, with some grades of 0.5, whose score is ``settings.half``."""
    for p, error, most in [(settings.right, 0, settings.beta), (settings.wrong, 1, settings.alpha)]:
        one = p - half * settings.half
        found = outcomes({1.0: one, 0.5: half, 0.0: 1 - one - half}, settings)
        assert found[2] == pytest.approx(1)
        assert 0 < found[error] <= most


def test_exact_rates_and_costs_of_the_default():
    """The figures of docs/adaptive.md."""
    wrong, right = outcomes({1.0: 0.2, 0.0: 0.8}, FAIR), outcomes({1.0: 0.8, 0.0: 0.2}, FAIR)
    assert wrong[1] == pytest.approx(8.4e-5, rel=0.01)  # 7 or 8 of 8 checks
    assert right[0] == pytest.approx(0.060, abs=0.001)
    assert wrong[3] < 3.5 < 7.5 < right[3]


def test_two_checks_that_fail_a_candidate_end_its_checks():
    assert next_checks([], M, FAIR) == 2
    assert next_checks([0.0, 0.5], M, FAIR) == 0
    assert next_checks([1.0, 0.0], M, FAIR) == 2


def test_a_round_is_as_large_as_it_takes_to_decide():
    assert next_checks([1.0, 1.0], M, FAIR) == 4  # three zeros would not reject it
    assert next_checks([1.0] * 6, M, FAIR) == 2  # it cannot be rejected any more
    assert next_checks([1.0] * 8, M, FAIR) == 0
    assert accepted([1.0] * 7 + [0.0], M, FAIR)
    assert not accepted([1.0] * 7, M, FAIR)


def test_a_candidate_that_cannot_reach_the_best_grade_is_not_checked_further():
    slow = VerificationSettings(beta=1e-6)
    assert next_checks([0.0, 1.0], M, slow, best=7 / 8) == 2
    assert next_checks([0.0, 0.0], M, slow, best=7 / 8) == 0
    assert next_checks([0.0, 0.0], M, slow, best=0.85) == 0
    assert next_checks([0.0, None], M, slow, best=0.85) > 0  # a failed check is in no mean: 6 of 7 is within reach
    assert next_checks([0.0, 0.0], M, slow, best=6 / 8) > 0  # it may still be as good


def test_earlier_checks_of_the_same_answer_count_against_it_and_never_for_it():
    one = FAIR.model_copy(update={"round_size": 1})
    assert next_checks([], M, one, earlier=[0.0, 0.0]) == 1
    assert next_checks([0.0], M, one, earlier=[0.0, 0.0]) == 0
    assert next_checks([1.0], M, one, earlier=[0.0, 0.0]) > 0  # its first check disagrees with the earlier ones
    assert not rejected([], FAIR, earlier=[0.0])
    assert next_checks([0.0, 0.0], M, FAIR, earlier=[1.0] * 8) == 0


def test_settings_that_cannot_be_tested_are_refused():
    with pytest.raises(ValidationError, match="must be below right"):
        VerificationSettings(right=0.5, wrong=0.5)
