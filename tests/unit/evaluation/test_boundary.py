"""evaluation/boundary.py and the AUROC within problems: by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.runs import candidate, iteration
from tests.unit.evaluation.test_scores import RULE, prediction
from tmas.evaluation.boundary import BoundarySettings, boundary
from tmas.evaluation.estimators import BootstrapSettings, auroc
from tmas.evaluation.verifier import auroc_of, calibration, grade_outcomes
from tmas.records.evaluation_files import EvaluatedProblem, EvaluatedRun, EvaluatedStep, Evaluation, GradeOutcomes

FEW = BootstrapSettings(resamples=100)
HALVES = BoundarySettings(edges=(0.5,))
Outcomes = dict[float, tuple[int, int]]
"""Mean grade -> right and wrong candidates."""


def outcomes(counts: Outcomes) -> tuple[GradeOutcomes, ...]:
    return tuple(GradeOutcomes(grade=grade, right=n[0], wrong=n[1]) for grade, n in counts.items())


def step(counts: Outcomes) -> EvaluatedStep:
    right, wrong = (sum(n[i] for n in counts.values()) for i in (0, 1))
    return EvaluatedStep(
        prompt_tokens=0,
        completion_tokens=0,
        scores={"rule": {"pass_at_1": right / (right + wrong)}},
        graded={"rule": outcomes(counts)},
    )


def evaluation(problems: dict[str, list[Outcomes]], seed: int = 0) -> Evaluation:
    return Evaluation.model_construct(
        run=EvaluatedRun(group="g", method="tmas", seed=seed, benchmark="imo", models={}),
        by_problem=tuple(
            EvaluatedProblem.model_construct(
                problem_id=name, digest=name, iterations=tuple(step(counts) for counts in steps)
            )
            for name, steps in problems.items()
        ),
    )


EASY, HARD = {1.0: (3, 0), 0.0: (0, 1)}, {1.0: (0, 1), 0.0: (0, 3)}


def test_with_one_seed_iteration_0_gives_the_difficulty_and_is_not_measured():
    run = evaluation(
        {
            "easy": [EASY, {1.0: (2, 1), 0.5: (1, 0)}],
            "hard": [HARD, {1.0: (0, 1), 0.0: (1, 2)}],
            "hard too": [HARD, {0.0: (0, 4)}],
            "stopped": [EASY],
        }
    )
    found = boundary([run], "rule", HALVES, FEW)
    assert found is not None
    assert (found.difficulty_from, found.left_out) == ("iteration_0", 1)
    hard, easy = found.bins
    assert (hard.low, hard.high, hard.problems, hard.difficulty) == (0, 0.5, 2, 0)
    assert hard.accuracy.value == pytest.approx((1 / 4 + 0) / 2)  # in iteration 0 it was 0
    assert hard.false_accept.value == pytest.approx((1 / 3 + 0) / 2)
    assert (hard.false_reject.value, hard.false_reject.problems, hard.false_reject.left_out) == (1.0, 1, 1)
    assert hard.auroc.value == pytest.approx(1 / 3)  # the right one has grade 0: 0 + 1/2 + 1/2 of 3
    assert (easy.problems, easy.difficulty, easy.accuracy.value) == (1, 0.75, 0.75)
    assert (easy.false_accept.value, easy.false_reject.value) == (1.0, pytest.approx(1 / 3))
    assert easy.auroc.value == pytest.approx((0.5 + 0.5 + 0) / 3)


def test_with_several_seeds_the_others_give_the_difficulty():
    lucky, unlucky = evaluation({"p": [EASY]}), evaluation({"p": [HARD]}, seed=1)
    found = boundary([lucky, unlucky], "rule", HALVES, FEW)
    assert found is not None
    assert found.difficulty_from == "other_seeds"
    hard, easy = found.bins
    assert (hard.accuracy.value, easy.accuracy.value) == (0.75, 0.0)  # each run is in the bin of the other one
    assert (hard.problems, easy.problems, found.left_out) == (1, 1, 0)


def test_a_chance_hit_in_the_sample_does_not_make_a_problem_easy():
    """All problems are equal. Bins by the measured samples would differ in accuracy; these do not."""
    always = [{1.0: (1, 1)}] * 2
    lucky = [{1.0: (2, 0)}, {1.0: (1, 1)}]
    unlucky = [{1.0: (0, 2)}, {1.0: (1, 1)}]
    found = boundary([evaluation({"a": always, "b": lucky, "c": unlucky})], "rule", BoundarySettings(), FEW)
    assert found is not None
    assert [one.accuracy.value for one in found.bins if one.problems] == [0.5, 0.5, 0.5]


def test_where_nothing_can_be_measured_there_is_no_analysis():
    assert boundary([evaluation({"p": [EASY]})], "rule", BoundarySettings(), FEW) is None
    ungraded = evaluation({"p": [EASY, EASY]})
    steps = tuple(one.model_copy(update={"graded": {}}) for one in ungraded.by_problem[0].iterations)
    problem = ungraded.by_problem[0].model_copy(update={"iterations": steps})
    without = ungraded.model_copy(update={"by_problem": (problem,)})
    assert boundary([without], "rule", BoundarySettings(), FEW) is None


@pytest.mark.parametrize("edges", [(0.5, 0.5), (0.7, 0.2), (0.0, 0.5), (1.0,)])
def test_edges_ascend_between_0_and_1(edges: tuple[float, ...]):
    with pytest.raises(ValueError, match="ascend"):
        BoundarySettings(edges=edges)


GRADED = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.booleans()), max_size=12)


@given(GRADED)
def test_the_auroc_of_counts_is_that_of_the_candidates_and_depends_on_the_order_of_grades_alone(
    graded: list[tuple[float, bool]],
):
    counts: Outcomes = {}
    for grade, is_right in graded:
        right, wrong = counts.get(grade, (0, 0))
        counts[grade] = (right + is_right, wrong + (not is_right))
    expected = auroc([grade for grade, _ in graded], [is_right for _, is_right in graded])
    transformed = {grade**3 / 7 + 0.1: n for grade, n in counts.items()}
    assert auroc_of(outcomes(counts)) == (None if expected is None else pytest.approx(expected))
    assert auroc_of(outcomes(transformed)) == auroc_of(outcomes(counts))


def test_grades_that_only_separate_easy_from_hard_problems_do_not_rank_candidates():
    """Within each problem the grades are uninformative, but pooled over problems they look good."""
    easy = iteration([candidate("5", [1]), candidate("5", [1]), candidate("5", [1]), candidate("6", [1])])
    hard = iteration([candidate("5", [0]), candidate("6", [0]), candidate("6", [0]), candidate("7", [0])])
    solved = iteration([candidate("5", [1]), candidate("5", [1])])
    lines = [prediction(name, "5", [one]) for name, one in (("p", easy), ("q", hard), ("r", solved))]
    found = calibration(lines, RULE, FEW)
    assert found.auroc == pytest.approx((5 * 3 + 0.5 * (5 * 1 + 1 * 3)) / (6 * 4))
    assert (found.within_problems.value, found.within_problems.problems, found.within_problems.left_out) == (0.5, 2, 1)


def test_a_candidate_counts_as_most_passes_of_the_judge_say():
    line = prediction(
        "p", "5", [iteration([candidate("5", [1]), candidate("6", [1, 0]), candidate("7"), candidate("n", [0])])]
    )
    passes = [
        {("5", "5"): True, ("5", "6"): six, ("5", "7"): False, ("5", "n"): n}
        for six, n in ((False, True), (False, False), (True, None))
    ]
    assert grade_outcomes(line, passes, 0) == outcomes({0.5: (0, 1), 1.0: (1, 0)})  # n: one pass against one
    assert grade_outcomes(line, passes, 1) == ()
