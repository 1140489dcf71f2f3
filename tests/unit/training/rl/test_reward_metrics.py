"""Component rewards as curves by source."""

from __future__ import annotations

from typing import Any

import pytest

from tmas.training.rl.reward_metrics import reward_metrics


def reward(source: str, score: float, **parts: Any) -> dict[str, Any]:
    components = dict.fromkeys(("correctness", "experience", "novelty"), 0.0)
    states = {f"{name}_state": "absent" for name in components}
    whys = {f"{name}_why": "" for name in components}
    given = {
        "correctness_state": "scored",
        "bonus_state": "scored",
        "acc": score,
        "truncated": 0.0,
        "response_tokens": 10.0,
    }
    return {**components, **states, **whys, **given, "source": source, "score": score, "outcome": "answered", **parts}


def test_means_are_by_source_and_over_all() -> None:
    found = reward_metrics("reward", [reward("normal", 1.0), reward("normal", 0.0), reward("guideline", 1.0)])
    assert found["reward/normal/score"] == 0.5
    assert found["reward/guideline/score"] == 1.0
    assert found["reward/all/score"] == pytest.approx(2 / 3)
    assert (found["reward/all/samples"], found["reward/normal/samples"]) == (3, 2)


def test_a_masked_component_is_counted_by_reason_and_left_out_of_its_mean() -> None:
    found = reward_metrics(
        "reward",
        [
            reward("experience", 1.3, experience=1.0, experience_state="scored"),
            reward("experience", 1.0, experience_state="masked", experience_why="timeout"),
            reward("experience", 1.0, experience_state="masked", experience_why="endpoint"),
        ],
    )
    assert found["reward/experience/experience"] == 1.0
    assert found["reward/experience/experience_masked"] == 2
    assert found["reward/experience/experience_masked/timeout"] == 1
    assert found["reward/experience/experience_masked/endpoint"] == 1


def test_what_nothing_was_scored_in_has_no_value_rather_than_zero() -> None:
    all_masked = [reward("guideline", 0.0, novelty_state="masked", novelty_why="judge")]
    found = reward_metrics("reward", all_masked)
    assert "reward/guideline/novelty" not in found
    assert found["reward/guideline/novelty_masked"] == 1
    assert not any("experience" in key for key in found)


def test_a_judge_that_failed_moves_neither_score_nor_accuracy() -> None:
    lost = reward("normal", 0.0, correctness_state="masked", correctness_why="endpoint")
    found = reward_metrics("val-reward", [reward("normal", 1.0), lost, lost, lost])
    assert (found["val-reward/all/acc"], found["val-reward/all/score"]) == (1.0, 1.0)
    assert found["val-reward/all/correctness_masked/endpoint"] == 3
    assert "val-reward/all/acc" not in reward_metrics("val-reward", [lost])
    right, unjudged = reward("experience", 1.3, acc=1.0), reward("experience", 1.0, bonus_state="masked")
    found = reward_metrics("reward", [right, unjudged])
    assert (found["reward/all/acc"], found["reward/all/score"]) == (1.0, 1.3)


def test_outcomes_are_shares() -> None:
    found = reward_metrics(
        "val-reward", [reward("normal", 0.0, outcome="truncated", truncated=1.0), reward("normal", 1.0)]
    )
    assert found["val-reward/normal/outcome/truncated"] == 0.5
    assert found["val-reward/normal/truncated"] == 0.5


def test_no_samples_give_no_metrics() -> None:
    assert reward_metrics("reward", []) == {}


def test_the_overlong_penalty_is_logged_where_there_is_one() -> None:
    found = reward_metrics("reward", [reward("normal", 0.5, overlong_penalty=0.5), reward("guideline", 1.0)])
    assert (found["reward/normal/overlong_penalty"], found["reward/all/overlong_penalty"]) == (0.5, 0.25)
    assert "reward/guideline/overlong_penalty" not in found


def test_verifications_have_rates_of_false_accepts_and_false_rejects() -> None:
    graded = [
        reward("verification", 0.0, label=label, pred=grade, outcome="graded")
        for label, grades in (("wrong", ["1", "0", "0.5", "0"]), ("right", ["0", "1"]))
        for grade in grades
    ]
    unread = reward("verification", 0.0, label="wrong", pred="", outcome="no_grade")
    found = reward_metrics("reward", [*graded, unread, reward("normal", 1.0, label="", pred="1")])
    rates = {name: found[f"reward/verification/{name}"] for name in ("false_accept", "false_reject", "half")}
    assert rates == {"false_accept": 0.25, "false_reject": 0.5, "half": pytest.approx(1 / 6)}
    assert "reward/normal/false_accept" not in found


def test_the_critiques_bonus_has_a_curve_of_its_own() -> None:
    scored = {"critique": 1.0, "critique_state": "scored", "critique_why": ""}
    masked = {"critique": 0.0, "critique_state": "masked", "critique_why": "timeout"}
    found = reward_metrics("reward", [reward("verification", 1.3, **scored), reward("verification", 1.0, **masked)])
    assert found["reward/verification/critique"] == 1.0
    assert found["reward/verification/critique_masked/timeout"] == 1
