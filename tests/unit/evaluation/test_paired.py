"""evaluation/paired.py: differences at equal iterations, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.evaluation.test_compute import FEW, ONE, evaluation
from tmas.evaluation.boundary import BoundarySettings
from tmas.evaluation.compare import group_runs
from tmas.evaluation.compute import Measure
from tmas.evaluation.paired import difference_after, differences_by_iteration, with_group_analyses
from tmas.records.evaluation_files import Evaluation

Values = list[list[float | None]]
VALUES = st.lists(st.lists(st.sampled_from([None, 0.0, 0.25, 1.0]), min_size=1, max_size=3), min_size=1, max_size=5)


def run(problems: dict[str, list[float | None]], seed: int = 0, group: str = "g") -> Evaluation:
    steps = {name: [(t + 1, t + 1, value) for t, value in enumerate(values)] for name, values in problems.items()}
    return evaluation(steps, seed=seed, group=group)


def test_differences_are_paired_by_problem_after_pooling_the_seeds():
    ours = [run({"p": [1.0], "q": [0.5], "only ours": [1.0]}), run({"p": [0.5], "q": [0.5]}, seed=1)]
    theirs = [run({"q": [0.25], "p": [0.5], "only theirs": [0.0]}, group="h")]
    found = difference_after(ours, theirs, 0, Measure(), FEW)
    differences = [0.75 - 0.5, 0.5 - 0.25]
    assert found.difference.value == pytest.approx(sum(differences) / 2)
    assert (found.difference.low, found.difference.high) == (0.25, 0.25)  # both differences are the same
    assert (found.difference.problems, found.p) == (2, pytest.approx(2 / 4))  # of the four signs, ++ and --


def test_the_interval_is_that_of_the_paired_t_test():
    ours = run({name: [value] for name, value in zip("abcd", (0.5, 0.75, 1.0, 0.75), strict=True)})
    theirs = run({name: [0.5] for name in "abcd"}, group="h")
    found = difference_after([ours], [theirs], 0, Measure(), FEW).difference
    half = 3.1824 * (0.125 / 3) ** 0.5 / 2  # differences 0, 1/4, 1/2, 1/4; 3.1824: t with 3 degrees of freedom
    assert [found.low, found.value, found.high] == pytest.approx([0.25 - half, 0.25, 0.25 + half], abs=1e-4)


def test_undecided_pairs_are_left_out_and_stopped_problems_keep_their_last_iteration():
    theirs = run({"p": [0.0], "q": [0.0, 1.0], "r": [0.0]}, group="h")
    found = difference_after([ONE], [theirs], 1, Measure(), FEW)
    assert found.difference.value == pytest.approx(((1 - 0) + (1 - 1)) / 2)
    assert (found.difference.problems, found.difference.left_out) == (2, 1)


@given(VALUES)
def test_a_run_compared_with_itself_has_no_difference(values: Values):
    one = run({str(i): own for i, own in enumerate(values)})
    for t in range(3):
        found = difference_after([one], [one], t, Measure(), FEW)
        if found.difference.problems > 1:
            assert (found.difference.low, found.difference.value, found.difference.high) == (0, 0, 0)
        assert found.p in (None, 1.0)


@given(VALUES, VALUES)
def test_the_difference_changes_its_sign_with_the_sides(
    left: list[list[float | None]], right: list[list[float | None]]
):
    one, other = (run({str(i): own for i, own in enumerate(values)}) for values in (left, right))
    forth, back = (difference_after([a], [b], 1, Measure(), FEW) for a, b in ((one, other), (other, one)))
    if forth.difference.value is not None:
        assert back.difference.value == pytest.approx(-forth.difference.value)
        assert (back.difference.low, back.difference.high) == pytest.approx(
            (-forth.difference.high, -forth.difference.low)
        )
    assert back.p == forth.p


def test_each_group_is_compared_with_the_first_one_of_its_benchmark_at_the_iterations_of_both():
    runs = [Path(name) for name in ("vanilla-0", "hybrid-0", "hybrid-1")]
    evaluations = [
        run({"p": [0.0, 0.0, 0.0], "q": [0.0, 0.0, 0.0]}),
        run({"p": [1.0, 1.0], "q": [0.0, 1.0]}, group="h"),
        run({"p": [1.0, 1.0], "q": [1.0, 1.0]}, group="h", seed=1),
    ]
    first, second = group_runs(runs, evaluations)
    found = differences_by_iteration(second, first, FEW)
    assert (found.label, found.other, found.seeds, found.other_seeds) == (second.label, first.label, (0, 1), (0,))
    assert [step.difference.value for step in found.differences["selected"]] == [0.75, 1.0]
    assert found.differences.keys() == {"pass_at_1", "selected"}
    complete = [one.model_copy(update={"calibration": {}}) for one in evaluations]
    assert [one.differences for one in with_group_analyses(runs, complete, BoundarySettings(), FEW)] == [
        *(None, found, found)
    ]
