"""rewards/hybrid.py: a wrong answer never reaches a right one, and what is masked moves nobody."""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import fmean
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmas.rewards.component import Component, absent, masked, mean_of, scored
from tmas.rewards.correctness import Correctness, Outcome
from tmas.rewards.hybrid import RewardBreakdown, Source, impute

units = st.floats(0, 1)
components = units.map(scored) | st.sampled_from([masked("timeout"), masked("judge"), absent(), absent("off")])
outcomes = st.sampled_from(get_args(Outcome))
corrects = st.builds(
    Correctness,
    state=st.just("scored"),
    value=st.sampled_from([0.0, 0.5, 1.0]),
    outcome=outcomes,
    answer=st.text(max_size=3),
) | st.builds(Correctness, state=st.just("masked"), why=st.just("endpoint"), outcome=outcomes)
everything = st.builds(
    RewardBreakdown,
    source=st.sampled_from(get_args(Source)),
    correctness=corrects,
    bonus=components,
    weight=st.floats(0, 1, exclude_max=True),
    wrong_share=units,
)


def parts(
    correct: float | None, bonus: Component | None = None, source: str = "experience", **changes: Any
) -> RewardBreakdown:
    """With the default weights; ``correct`` None is masked."""
    state = {"state": "scored", "value": correct} if correct is not None else {"state": "masked", "why": "timeout"}
    given = {"source": source, "correctness": state | {"outcome": "answered"}, "bonus": bonus or absent()}
    return RewardBreakdown.model_validate(given | {"weight": 0.3, "wrong_share": 0.5} | changes)


def imputed(*samples: RewardBreakdown, groups: str | None = None) -> list[float]:
    return impute([sample.report() for sample in samples], [*(groups or "a" * len(samples))])


# --- the formula


@pytest.mark.parametrize(
    ("correct", "bonus", "score"),
    [(1.0, 1.0, 1.3), (1.0, 0.5, 1.15), (1.0, 0.0, 1.0), (0.0, 1.0, 0.15), (0.0, 0.5, 0.075), (0.0, 0.0, 0.0)],
)
def test_the_score_is_correctness_and_the_weighted_bonus(correct: float, bonus: float, score: float):
    assert parts(correct, scored(bonus)).score == pytest.approx(score)


@given(everything, everything)
def test_no_bonus_lets_a_wrong_answer_reach_a_right_one(wrong: RewardBreakdown, right: RewardBreakdown):
    answers = [Correctness(state="scored", value=value, outcome="answered") for value in (0.0, 1.0)]
    low, high = (one.model_copy(update={"correctness": c}) for one, c in zip((wrong, right), answers, strict=True))
    assert low.score < 1 <= high.score


@given(everything, units, units)
def test_more_bonus_is_never_less_score(some: RewardBreakdown, a: float, b: float):
    low, high = (some.model_copy(update={"bonus": scored(value)}).score for value in sorted((a, b)))
    assert low <= high


@given(everything, everything)
def test_every_response_reports_the_same_flat_keys_of_the_same_types(one: RewardBreakdown, other: RewardBreakdown):
    assert {k: type(v) for k, v in one.report().items()} == {k: type(v) for k, v in other.report().items()}
    assert {type(value) for value in one.report().values()} == {float, str}


@given(everything)
def test_what_is_masked_or_absent_adds_nothing_to_the_score(some: RewardBreakdown):
    if some.bonus.state != "scored" or some.correctness.state != "scored":
        assert some.report()["score"] == some.correctness.value


def test_the_bonus_is_reported_under_its_own_name():
    report = parts(1.0, scored(0.5)).report()
    assert (report["experience"], report["experience_state"]) == (0.5, "scored")
    assert (report["novelty"], report["novelty_state"]) == (0.0, "absent")
    report = parts(1.0, masked("timeout"), source="guideline").report()
    assert (report["novelty_state"], report["novelty_why"], report["experience_state"]) == (
        "masked",
        "timeout",
        "absent",
    )


# --- passes


def test_passes_are_averaged_and_failed_ones_left_out():
    assert mean_of([scored(1.0), masked("timeout"), scored(0.5)]) == scored(0.75)
    assert mean_of([masked("timeout"), masked("judge")]) == masked("timeout")
    assert mean_of([masked("judge"), scored(0.0, "known")]) == scored(0.0, "known")


# --- imputation


def test_a_masked_bonus_becomes_the_mean_of_the_siblings_that_are_as_right():
    samples = [parts(1.0, masked("judge")), parts(1.0, scored(1.0)), parts(1.0, scored(0.5)), parts(0.0, scored(0.2))]
    assert imputed(*samples) == pytest.approx([1.225, 1.3, 1.15, 0.03])
    samples = [parts(0.0, masked("judge")), parts(0.0, scored(1.0)), parts(1.0, scored(0.0))]
    assert imputed(*samples) == pytest.approx([0.15, 0.15, 1.0])


def test_masked_correctness_becomes_the_mean_of_the_siblings_scores():
    samples = [parts(None), parts(1.0, scored(1.0)), parts(0.0, masked("judge")), parts(0.0, scored(0.0))]
    assert imputed(*samples) == pytest.approx([(1.3 + 0 + 0) / 3, 1.3, 0.0, 0.0])


def test_a_group_that_tells_nothing_is_filled_in_from_the_batch_of_its_source():
    samples = [parts(None), parts(None), parts(1.0, scored(0.0)), parts(0.0, source="guideline", bonus=scored(1.0))]
    assert imputed(*samples, groups="aabc") == [1.0, 1.0, 1.0, 0.15]
    bonuses = [parts(1.0, masked("judge")), parts(1.0, scored(0.5)), parts(0.0, scored(1.0))]
    assert imputed(*bonuses, groups="abc") == pytest.approx([1.15, 1.15, 0.15])


def test_with_every_judge_down_the_reward_is_correctness():
    samples = [parts(1.0, masked("endpoint")), parts(0.0, masked("endpoint"))]
    assert imputed(*samples) == [1.0, 0.0]
    assert imputed(parts(None), parts(None)) == [0.0, 0.0]


def test_a_response_without_an_answer_says_nothing_about_a_masked_bonus():
    cut_off = parts(0.0, absent("truncated"))
    assert imputed(parts(0.0, masked("judge")), parts(0.0, scored(1.0)), cut_off)[0] == pytest.approx(0.15)


batches = st.lists(st.tuples(everything, st.sampled_from("abc")), max_size=12)


@given(batches)
def test_only_what_was_masked_changes(batch: list[tuple[RewardBreakdown, str]]):
    scores = imputed(*(some for some, _ in batch), groups="".join(group for _, group in batch))
    for (some, _), score in zip(batch, scores, strict=True):
        assert math.isfinite(score)
        if "masked" not in (some.correctness.state, some.bonus.state):
            assert score == some.report()["score"]
        elif some.correctness.state == "scored":
            assert some.correctness.value <= score <= some.correctness.value + some.effective_weight


@given(batches)
def test_a_masked_correctness_has_no_advantage_in_its_group(batch: list[tuple[RewardBreakdown, str]]):
    scores = imputed(*(some for some, _ in batch), groups="".join(group for _, group in batch))
    members: defaultdict[str, list[tuple[RewardBreakdown, float]]] = defaultdict(list)
    for (some, group), score in zip(batch, scores, strict=True):
        members[group].append((some, score))
    for group in members.values():
        if len({some.source for some, _ in group}) > 1 and all(some.correctness.state == "masked" for some, _ in group):
            continue  # a group is the samples of one row, so of one source
        mean = fmean(score for _, score in group)
        assert all(score == pytest.approx(mean) for some, score in group if some.correctness.state == "masked")


@given(st.lists(units | st.none(), min_size=1, max_size=8).filter(lambda bonuses: any(b is not None for b in bonuses)))
def test_a_masked_bonus_leaves_the_mean_of_its_siblings_as_it_is(bonuses: list[float | None]):
    samples = [parts(1.0, masked("judge") if bonus is None else scored(bonus)) for bonus in bonuses]
    known = fmean(1 + 0.3 * bonus for bonus in bonuses if bonus is not None)
    assert fmean(imputed(*samples)) == pytest.approx(known)


@given(batches, st.randoms(use_true_random=False))
def test_the_order_of_the_batch_does_not_matter(batch: list[tuple[RewardBreakdown, str]], random: Any):
    def scores_of(places: list[int]) -> dict[int, float]:
        samples = [batch[place][0].report() for place in places]
        return dict(zip(places, impute(samples, [batch[place][1] for place in places]), strict=True))

    shuffled = random.sample(range(len(batch)), len(batch))
    assert scores_of([*range(len(batch))]) == pytest.approx(scores_of(shuffled))
