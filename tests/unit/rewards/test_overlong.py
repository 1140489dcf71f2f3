"""The soft overlong penalty: rewards/scorer.py computes it, rewards/hybrid.py subtracts it from correctness."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.rewards.test_hybrid import parts
from tmas.rewards.component import scored
from tmas.rewards.hybrid import correctness_score, impute
from tmas.rewards.scorer import Scorer, overlong_penalty
from tmas.rewards.settings import NoveltySettings, OverlongSettings, RewardSettings

DAPO = OverlongSettings(penalty=0.5, share=0.2)


@pytest.mark.parametrize(
    ("tokens", "penalty"), [(0, 0.0), (800, 0.0), (850, 0.125), (900, 0.25), (1000, 0.5), (1200, 0.5)]
)
def test_the_penalty_grows_linearly_over_the_last_share(tokens: int, penalty: float):
    assert overlong_penalty(tokens, 1000, DAPO) == pytest.approx(penalty)


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.floats(0, 1, exclude_max=True), st.floats(1e-3, 1))
def test_the_penalty_is_bounded(tokens: int, limit: int, penalty: float, share: float):
    found = overlong_penalty(tokens, limit, OverlongSettings(penalty=penalty, share=share))
    assert math.isfinite(found)
    assert 0 <= found <= penalty
    if limit == 0:
        assert found == 0


def test_it_is_part_of_correctness_alone():
    long = parts(1.0, scored(1.0), length_penalty=0.5)
    report = long.report()
    assert (report["score"], report["acc"], report["overlong_penalty"]) == (pytest.approx(0.8), 1.0, 0.5)
    assert report["bonus_weight"] == parts(1.0, scored(1.0)).report()["bonus_weight"]
    assert correctness_score(report) == 0.5


def test_masked_correctness_has_no_penalty():
    report = parts(None, length_penalty=0.5).report()
    assert (report["score"], report["overlong_penalty"], correctness_score(report)) == (0.0, 0.0, None)


def test_the_additive_form_has_it_too():
    reports = [parts(1.0, scored(1.0), length_penalty=0.5).report(), parts(1.0, scored(1.0)).report()]
    assert impute(reports, ["a", "a"]) == pytest.approx([0.8, 1.3])


def test_a_report_of_an_earlier_version_has_no_penalty():
    report = parts(1.0).report()
    del report["overlong_penalty"]
    assert correctness_score(report) == 1.0


@pytest.mark.parametrize(("tokens", "score"), [(80, 1.0), (90, 0.75), (100, 0.5)])
async def test_a_long_right_answer_scores_less(tokens: int, score: float):
    info: dict[str, Any] = {"response_tokens": tokens, "max_response_tokens": 100}
    settings = RewardSettings(overlong=DAPO, experience={"form": "none"}, novelty={"form": "none"})  # type: ignore[arg-type]
    async with Scorer(settings) as scorer:
        report = await scorer.score("math", r"\boxed{4}", "4", info)
    assert (report["score"], report["acc"]) == (pytest.approx(score), 1.0)


def test_a_wrong_answer_with_a_bonus_never_reaches_a_long_right_one():
    form = {"form": "none"}
    strong = NoveltySettings(form="none", weight=0.9)
    with pytest.raises(ValidationError, match=r"overlong\.penalty 0\.5: a wrong answer with a bonus of 0\.54"):
        RewardSettings(overlong=DAPO, wrong_share=0.6, novelty=strong, experience=form)  # type: ignore[arg-type]
    RewardSettings(overlong=DAPO, wrong_share=0.5, novelty=strong, experience=form)  # type: ignore[arg-type]
