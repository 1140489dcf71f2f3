"""evaluation/scores.py, facts.py, verifier.py: exact figures of small problems."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import runs
from tests.support.runs import Line, candidate, iteration
from tmas.evaluation.correctness import Scoring
from tmas.evaluation.estimators import BootstrapSettings
from tmas.evaluation.facts import iteration_facts
from tmas.evaluation.scores import by_mode, problem_scores, undecided_count
from tmas.evaluation.verifier import calibration
from tmas.records.prices import Price
from tmas.records.run_files import Prediction

RULE: Scoring = [{("5", "5"): True, ("5", "5.0"): True, ("5", "6"): False, ("5", "7"): False, ("5", "n"): None}]
CLASSES = {"5": 0, "5.0": 0, "6": 1, "7": 2, "n": 3}


def prediction(*given: Any) -> Prediction:
    return Prediction.model_validate(runs.prediction(*given))


def scores(
    *candidates: Line,
    selected: str | None = "5",
    scoring: Scoring = RULE,
    widths: Any = (2,),
    undecided_as: bool = False,
) -> Any:
    line = prediction("p", "5", [iteration(candidates, selected)])
    [found] = problem_scores(line, scoring, CLASSES, widths, undecided_as)
    return found


def test_the_metrics_of_an_iteration():
    found = scores(
        candidate("5", [1, 1]), candidate("5.0", [0.5]), candidate("6", [1, 0.5]), candidate(None), selected="6"
    )
    assert found == {
        "pass_at_1": 0.5,
        "pass_at_2": pytest.approx(5 / 6),
        "selected": 0.0,
        "vote": 1.0,  # 5 and 5.0 are one class
        "best_of": 1.0,  # the mean grade 1
    }


def test_a_candidate_that_was_cut_short_is_not_correct_and_one_without_answer_neither():
    found = scores(candidate("5"), candidate(None, failure="truncated"), candidate(None))
    assert found["pass_at_1"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("reason", ["endpoint", "timeout", "budget"])
def test_what_the_model_was_never_asked_for_is_in_no_rate(reason: str):
    found = scores(candidate("5"), candidate("6"), candidate(None, failure=reason))
    assert found["pass_at_1"] == 0.5
    assert scores(candidate("5"), candidate(None, failure=reason))["pass_at_2"] is None  # one sample is no pair


def test_undecided_answers_count_as_wrong_in_the_lower_and_as_right_in_the_upper_bound():
    given = (candidate("5", [0.5]), candidate("n", [1.0]), candidate("n"))
    low, high = scores(*given, selected="n"), scores(*given, selected="n", undecided_as=True)
    accuracies = {"pass_at_1": pytest.approx(1 / 3), "pass_at_2": pytest.approx(2 / 3)}
    assert low == accuracies | {"selected": 0.0, "vote": 0.0, "best_of": 0.0}
    assert high == dict.fromkeys(("pass_at_1", "pass_at_2", "selected", "vote", "best_of"), 1.0)


def test_one_decided_answer_among_many_undecided_ones_is_no_certainty():
    """Undecided answers were left out, and this printed a Pass@1 of 1.0."""
    given = (candidate("5"), *[candidate("n")] * 7)
    assert scores(*given)["pass_at_1"] == 1 / 8
    assert scores(*given, undecided_as=True)["pass_at_1"] == 1.0


@given(st.lists(st.sampled_from(["5", "6", "n", None]), min_size=2, max_size=6))
def test_no_decision_about_undecided_answers_leaves_the_bounds(answers: list[str | None]):
    given = [candidate(answer, [i % 3 / 2]) for i, answer in enumerate(answers)]
    low, high = scores(*given, selected=answers[0]), scores(*given, selected=answers[0], undecided_as=True)
    for decided in (True, False):
        scoring = [{**RULE[0], ("5", "n"): decided}]
        found = scores(*given, selected=answers[0], scoring=scoring)
        assert all(low[name] <= found[name] <= high[name] for name in found)
        assert found == (high if decided else low)


def test_right_answers_in_several_wordings_do_not_vote_together():
    """Merged through the gold answer, three right wordings beat four equal wrong answers; no vote could do that."""
    passes: Scoring = [{("5", "5"): True, ("5", "6"): True, ("5", "7"): True, ("5", "n"): False}]
    candidates = [candidate("5"), candidate("6"), candidate("7"), *[candidate("n")] * 4]
    assert scores(*candidates, scoring=passes)["vote"] == 0.0


def test_a_class_is_as_right_as_the_verdicts_on_its_members():
    passes: Scoring = [{("5", "5"): True, ("5", "5.0"): False, ("5", "6"): False, ("5", "7"): False, ("5", "n"): None}]
    found = scores(candidate("5"), candidate("5.0"), candidate("6"), scoring=passes)
    assert found["vote"] == 0.5


def test_an_answer_that_the_passes_are_split_on_keeps_its_class():
    passes: Scoring = [{("5", "5"): True, ("5", "5.0"): right, ("5", "6"): False} for right in (True, False)]
    found = scores(candidate("5"), candidate("5.0"), candidate("6"), scoring=passes)
    assert found["vote"] == 0.75  # 5 and 5.0 are one class, of which all, then half are right


def test_ties_are_the_mean_over_those_that_tie():
    found = scores(candidate("5", [1.0]), candidate("6", [1.0]), candidate("7", [0.0]))
    assert found["vote"] == pytest.approx(1 / 3)
    assert found["best_of"] == 0.5


def test_no_answers_no_grades_no_selection():
    found = scores(candidate(None), candidate(None), selected=None)
    assert (found["vote"], found["best_of"], found["selected"]) == (0.0, None, 0.0)


def test_a_judge_s_metrics_are_the_mean_over_its_passes():
    yes, no, nothing = ({("5", "5"): True, ("5", "6"): verdict} for verdict in (True, False, None))
    found = scores(candidate("5"), candidate("6"), selected="6", scoring=[yes, no, no, nothing])
    assert found["pass_at_1"] == pytest.approx((1 + 0.5 + 0.5 + 0.5) / 4)
    assert found["selected"] == pytest.approx(1 / 4)  # a pass without a verdict counts as wrong
    assert found["pass_at_2"] == pytest.approx(1)


def test_iterations_that_a_budget_left_empty_do_not_count():
    spent = candidate(None, failure="budget")
    some = prediction("p", "5", [iteration([candidate("5")], "5"), iteration([spent, spent], "5")])
    assert len(problem_scores(some, RULE, CLASSES, [2])) == 1
    nothing = problem_scores(prediction("p", "5", [iteration([spent])]), RULE, CLASSES, [2])
    assert nothing == [dict.fromkeys(["pass_at_1", "pass_at_2", "selected", "vote", "best_of"], 0.0)]


@pytest.mark.parametrize("reason", ["endpoint", "timeout"])
def test_a_problem_that_no_server_answered_is_left_out_and_not_wrong(reason: str):
    unserved = iteration([candidate(None, failure=reason), candidate(None, failure="budget")])
    nothing = dict.fromkeys(["pass_at_1", "pass_at_2", "selected", "vote", "best_of"])
    assert problem_scores(prediction("p", "5", [unserved]), RULE, CLASSES, [2]) == [nothing]
    later = prediction("p", "5", [unserved, iteration([candidate("5", [1]), candidate("5")], "5")])
    assert [found["selected"] for found in problem_scores(later, RULE, CLASSES, [2])] == [None, 1.0]


def test_modes_and_undecided_candidates():
    lines = [
        prediction("p", "5", [iteration([candidate("5", mode="explore"), candidate("6", mode="exploit")])]),
        prediction("q", "5", [iteration([candidate("6", mode="explore"), candidate("n", mode="exploit")])]),
    ]
    assert {mode: counts.model_dump() for mode, counts in by_mode(lines, RULE, 0).items()} == {
        "explore": {"candidates": 2, "accuracy": 0.5, "upper": 0.5},
        "exploit": {"candidates": 2, "accuracy": 0.0, "upper": 0.5},
    }
    assert undecided_count(lines, RULE, 0) == 1
    assert undecided_count(lines, RULE, 1) == 0


def test_what_an_iteration_held_and_cost():
    first = iteration([candidate("5", [1, 0], "explore"), candidate(None)], banks=(["E1", "E2"], ["G1"]), added=["E1"])
    second = iteration([candidate(None, failure="truncated")], banks=(["E2", "E3", "E4"], ["G1"]))
    lines = [prediction("p", "5", [first, second], [(10, 20), (30, 40)]), prediction("q", "5", [first], [(2, 4)])]
    prices = {"solution": Price(input=1e6, output=2e6), "verification": Price(input=3e6, output=4e6)}
    zero, one = (SimpleNamespace(**iteration_facts(lines, t, prices)) for t in (0, 1))
    learned, grown = zero.banks["experience"], one.banks["experience"]
    assert (zero.running, one.running) == (2, 1)
    assert (zero.candidates, zero.no_answer, one.failed) == (4, 2, {"truncated": 1})
    assert (zero.mean_grade, zero.explore_share, one.mean_grade) == (0.5, 0.5, None)
    assert (learned.size, learned.turnover, learned.added) == (2, 1, 1)
    assert grown.turnover == pytest.approx(3 / 4)  # E1 gone, E3 and E4 new, of four
    assert one.banks["guideline"].model_dump() == {"size": 1, "turnover": 0} | dict.fromkeys(
        ["added", "merged", "confirmed", "corrected", "dropped", "evicted"]
    )  # no reply of the guideline agent could be read
    assert one.cumulative.model_dump() == {
        "prompt_tokens": 21, "cached_prompt_tokens": 0, "completion_tokens": 32, "cost": 2 * 21 + 3 * 32,
    }  # fmt: skip
    assert "cost" not in iteration_facts(lines, 1, {"solution": prices["solution"]})["cumulative"].model_dump()
    assert one.usage["solution"].completion_tokens == 20


def test_false_accepts_are_a_share_of_the_wrong_candidates_of_a_problem():
    """Problem p: the verifier accepts one of two wrong candidates; q: none of one, and it rejects the right one."""
    p = iteration([candidate("5", [1]), candidate("6", [1, 0.5]), candidate("7", [0.5]), candidate("n", [1])])
    q = iteration([candidate("5", [0.5]), candidate("6", [0])])
    solved = iteration([candidate("5", [1])])
    lines = [prediction(name, "5", [one]) for name, one in (("p", p), ("q", q), ("r", solved))]
    found = calibration(lines, RULE, BootstrapSettings())
    assert (found.false_accept.value, found.false_accept.problems, found.false_accept.left_out) == (0.25, 2, 1)
    assert found.false_reject.value == pytest.approx(1 / 3)
    strict = calibration(lines, RULE, BootstrapSettings(), accept_grade=1.0)
    assert (strict.false_accept.value, strict.false_reject.value) == (0.0, pytest.approx(1 / 3))


def test_calibration_is_of_what_was_graded_and_decided():
    first = iteration([candidate("5", [1, 1]), candidate("6", [0, 0.5]), candidate("n", [1]), candidate("7")])
    found = calibration([prediction("p", "5", [first])], RULE, BootstrapSettings())
    assert (found.pairs, found.auroc, found.accuracy) == (2, 1.0, 0.5)
    assert found.brier == pytest.approx(0.25**2 / 2)
    assert {grade: counts.model_dump() for grade, counts in found.grades.items()} == {
        "0": {"count": 1, "accuracy": 0.0},
        "0.5": {"count": 1, "accuracy": 0.0},
        "1": {"count": 2, "accuracy": 1.0},
    }
