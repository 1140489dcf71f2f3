"""rewards/advantage.py: the bonus is bounded by its weight, and what is masked moves nobody."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.rewards.test_hybrid import everything, parts
from tmas.rewards.advantage import bonus_advantages, correctness_groups, uncompared
from tmas.rewards.component import masked, scored
from tmas.rewards.hybrid import RewardBreakdown

batches = st.lists(st.tuples(everything, st.sampled_from("abc")), max_size=12)


def bonuses(batch: Sequence[tuple[RewardBreakdown, str]], by_std: bool = False) -> list[float]:
    return bonus_advantages([some.report() for some, _ in batch], [group for _, group in batch], by_std)


def group(*samples: RewardBreakdown) -> list[tuple[RewardBreakdown, str]]:
    return [(sample, "a") for sample in samples]


@pytest.mark.parametrize("weight", [0.01, 0.3])
def test_one_bonus_in_a_right_group_counts_in_proportion_to_its_weight(weight: float):
    """Divided by the group's standard deviation, it was worth 2.47 whatever its weight."""
    eight = group(parts(1.0, scored(1.0), weight=weight), *[parts(1.0, scored(0.0), weight=weight)] * 7)
    assert bonuses(eight) == pytest.approx([weight * 7 / 8, *[-weight / 8] * 7])
    assert bonuses(eight, by_std=True) == pytest.approx([weight, *[-weight / 7] * 7])


def test_a_wrong_answer_is_compared_with_wrong_answers_at_its_share():
    batch = group(
        parts(1.0, scored(1.0), wrong_share=0.5),
        parts(0.0, scored(1.0), wrong_share=0.5),
        parts(0.0, scored(0.0), wrong_share=0.5),
    )
    assert bonuses(batch) == pytest.approx([0.0, 0.075, -0.075])
    without = [(sample.model_copy(update={"wrong_share": 0.0}), name) for sample, name in batch]
    assert bonuses(without) == [0.0, 0.0, 0.0]


@given(batches, st.booleans())
def test_a_bonus_is_worth_at_most_its_weight(batch: list[tuple[RewardBreakdown, str]], by_std: bool):
    for (sample, _), value in zip(batch, bonuses(batch, by_std), strict=True):
        assert math.isfinite(value)
        assert abs(value) <= sample.effective_weight * (1 + 1e-9)
        if "masked" in (sample.correctness.state, sample.bonus.state):
            assert value == 0


@given(batches, everything, st.sampled_from(["correctness", "bonus"]), st.booleans())
def test_a_masked_sample_changes_no_other_advantage(
    batch: list[tuple[RewardBreakdown, str]], some: RewardBreakdown, what: str, by_std: bool
):
    hidden = parts(None).correctness if what == "correctness" else masked("timeout")
    more = [*batch, (some.model_copy(update={what: hidden}), "a")]
    assert bonuses(more, by_std)[:-1] == bonuses(batch, by_std)
    if what == "correctness":
        groups = correctness_groups([sample.report() for sample, _ in more], [name for _, name in more])
        assert groups.count(groups[-1]) == 1
        assert groups[:-1] == correctness_groups([s.report() for s, _ in batch], [name for _, name in batch])


@given(batches)
def test_without_weight_there_is_only_correctness(batch: list[tuple[RewardBreakdown, str]]):
    light = [(sample.model_copy(update={"weight": 0.0}), name) for sample, name in batch]
    assert set(bonuses(light)) <= {0.0}


@given(batches)
def test_equally_right_samples_of_a_prompt_share_nothing_in_total(batch: list[tuple[RewardBreakdown, str]]):
    plain = [(s.model_copy(update={"weight": 0.5, "wrong_share": 1.0}), name) for s, name in batch]
    values = bonuses(plain)
    for name in "abc":
        for right in (0.0, 1.0):
            chosen = [
                value
                for (s, n), value in zip(plain, values, strict=True)
                if n == name and s.correctness.state == s.bonus.state == "scored" and s.correctness.value == right
            ]
            assert not chosen or fmean(chosen) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("compares", "lone"), [(True, True), (False, False)])
def test_a_sample_is_uncompared_if_it_is_masked_or_alone(compares: bool, lone: bool):
    samples = [parts(1.0), parts(0.0), parts(None), parts(1.0), parts(None)]
    reports = [sample.report() for sample in samples]
    groups = correctness_groups(reports, [*"aaabb"])
    assert uncompared(reports, groups, compares) == [False, False, True, lone, True]
