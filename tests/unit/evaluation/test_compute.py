"""evaluation/compute.py and compare.py: equal compute and pooled seeds, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tmas.errors import UserError
from tmas.evaluation.compare import by_benchmark, comparison, group_runs, rounded_up_money, shared_currency
from tmas.evaluation.compute import SELECTED, Measure, accuracy_after, accuracy_at, difference_at, tokens_after
from tmas.evaluation.estimators import BootstrapSettings
from tmas.records.evaluation_files import (
    BootstrapUsed,
    EvaluatedIteration,
    EvaluatedProblem,
    EvaluatedRun,
    EvaluatedStep,
    Evaluation,
    SettingsUsed,
)
from tmas.records.prices import Cost

FEW = BootstrapSettings(resamples=100)
Steps = list[tuple[int, int, float | None]]


def evaluation(
    problems: dict[str, Steps],
    seed: int = 0,
    group: str = "g",
    method: str = "tmas",
    benchmark: str = "imo",
    spent: int | None = None,
    limit: int | None = None,
) -> Evaluation:
    """Each step: prompt tokens, completion tokens (both cumulative), the selected answer's correctness.

    ``spent``: tokens of each problem in all, where it is more than its last step. ``limit``: its token budget.
    Only what these functions read is filled in.
    """
    return Evaluation.model_construct(
        run=EvaluatedRun(group=group, method=method, seed=seed, benchmark=benchmark, models={}),
        cost=None,
        settings=SettingsUsed(judge=None, bootstrap=BootstrapUsed(resamples=100, confidence=0.95, seed=0)),
        iterations=(EvaluatedIteration.model_construct(),) * max(len(steps) for steps in problems.values()),
        by_problem=tuple(
            EvaluatedProblem(
                problem_id=name,
                digest=f"{name} of {benchmark}",
                stop="max_iterations",
                limit=limit,
                prompt_tokens=steps[-1][0] if spent is None else spent,
                completion_tokens=steps[-1][1] if spent is None else 0,
                iterations=tuple(
                    EvaluatedStep(
                        prompt_tokens=prompt,
                        completion_tokens=completion,
                        scores={"rule": dict.fromkeys(("selected", "pass_at_1", "vote", "best_of"), value)},
                    )
                    for prompt, completion, value in steps
                ),
            )
            for name, steps in problems.items()
        ),
    )


ONE = evaluation({"p": [(10, 10, 0.0), (20, 20, 1.0)], "q": [(5, 5, 1.0)], "r": [(30, 30, None)]})


@pytest.mark.parametrize(
    ("tokens", "value"),
    [
        (9, None),  # nobody has a whole iteration: nothing can be said
        (10, 1 / 3),  # q
        (20, 1 / 3),  # p's first iteration is wrong
        (40, 2 / 3),  # p's second is right, q keeps its only one
        (60, 1.0),  # r is undecided now, and left out
        (10**9, 1.0),
    ],
)
def test_accuracy_at_equal_tokens(tokens: int, value: float | None):
    assert accuracy_at([ONE], tokens, settings=FEW).value == pytest.approx(value)


@pytest.mark.parametrize(("tokens", "value"), [(99, None), (100, 1.0)])
def test_a_run_under_a_hard_limit_is_within_it_whatever_its_last_chunks_took(tokens: int, value: float | None):
    limited = evaluation({"p": [(53, 50, 1.0)]}, limit=100)
    assert accuracy_at([limited], tokens, settings=FEW).value == value


def test_completion_tokens_can_be_counted_alone():
    assert accuracy_at([ONE], 20, Measure(unit="generated"), FEW).value == pytest.approx(2 / 3)


def test_a_problem_that_stopped_keeps_its_last_iteration():
    assert accuracy_after([ONE], 0, settings=FEW).value == 0.5
    assert accuracy_after([ONE], 7, settings=FEW).value == 1.0
    assert tokens_after([ONE], 7) == pytest.approx((40 + 10 + 60) / 3)


def test_seeds_are_pooled_by_problem():
    other = evaluation({"p": [(10, 10, 1.0)], "q": [(5, 5, None)], "s": [(1, 1, 0.0)]}, seed=1)
    found = accuracy_after([ONE, other], 0, settings=FEW)
    assert found.value == pytest.approx((0.5 + 1.0 + 0.0) / 3)  # p, q from one seed alone, s; r is undecided
    assert (found.problems, found.left_out) == (3, 1)


def test_differences_are_paired_by_problem():
    other = evaluation({"q": [(5, 5, 0.0)], "p": [(10, 10, 1.0)], "s": [(1, 1, 1.0)]})
    found = difference_at([ONE], [other], 40, settings=FEW)
    assert (found.value, found.problems) == (0.5, 2)  # p: 1 - 1, q: 1 - 0
    none = difference_at([ONE], [ONE], 40, settings=FEW)
    assert (none.low, none.high, none.value) == (0, 0, 0)


def test_runs_that_differ_by_their_seed_are_one_group():
    runs = [Path(name) for name in ("a", "b", "c", "d")]
    evaluations = [
        ONE,
        evaluation({"p": [(1, 1, 1.0)]}, group="h", method="vote"),
        evaluation({"p": [(1, 1, 1.0)]}, seed=1),
        evaluation({"p": [(1, 1, 1.0)]}, group="i"),
    ]
    groups = group_runs(runs, evaluations)
    assert [(group.label, group.seeds) for group in groups] == [("tmas (a)", [0, 1]), ("vote", [0]), ("tmas (d)", [0])]


def test_a_comparison_is_over_the_common_problems():
    wide = evaluation({"p": [(10, 10, 1.0)], "t": [(900, 900, 1.0)]}, group="h", method="vote")
    found = comparison(group_runs([Path("a"), Path("b")], [ONE, wide]), [], FEW)
    assert found is not None
    assert found.problems == 1
    assert found.budgets == (20,)  # the first iterations of both
    first, second = found.groups
    assert [estimate.value for estimate in first.accuracy["selected"]] == [0.0]
    assert [estimate.value for estimate in second.accuracy["selected"]] == [1.0]
    assert second.difference["selected"][-1].value == 1.0


@pytest.mark.parametrize(
    ("dear", "budgets"),
    [
        ([(20, 20, 0.0), (900, 900, 1.0)], (40, 47, 54, 60)),  # up to the end of the cheapest one
        ([(900, 900, 1.0)], (1800,)),  # its first iteration takes more than the cheapest one in all
    ],
)
def test_every_method_has_a_value_at_each_budget(dear: Steps, budgets: tuple[int, ...]):
    steps = {"p": [(10, 10, 1.0)], "q": [(10, 10, 1.0), (30, 30, 1.0)]}
    cheap = evaluation(steps, group="h", method="vote")
    found = comparison(group_runs([Path("a"), Path("b")], [cheap, evaluation({"p": dear, "q": dear})]), [], FEW)
    assert found is not None
    assert found.budgets == budgets
    values = [e.value for group in found.groups for e in group.accuracy["selected"]]
    assert None not in values
    assert found.groups[0].accuracy["selected"][-1].value == 1.0


def test_a_sampling_method_has_a_value_from_its_first_sample_on():
    votes = evaluation({"p": [(60, 40, 1.0)]}, group="h", method="vote")
    sampled = votes.by_problem[0].model_copy(update={"by_samples": {"rule": {"selected": (0.2, 0.6, 0.8, 1.0)}}})
    [group] = group_runs([Path("a")], [votes.model_copy(update={"by_problem": (sampled,)})])
    assert (group.first_spent(SELECTED), group.largest_spent(SELECTED)) == (25, 100)
    assert accuracy_at(group.evaluations, 25, settings=FEW).value == 0.2


def test_methods_are_compared_at_their_ends_with_a_chosen_baseline():
    runs = [Path(name) for name in ("a-0", "a-1", "b-0")]
    evaluations = [
        evaluation({"p": [(1, 1, 0.0), (2, 2, 1.0)], "q": [(1, 1, 1.0), (2, 2, 1.0)]}),
        evaluation({"p": [(1, 1, 0.0), (2, 2, 0.0)], "q": [(1, 1, 1.0), (2, 2, 1.0)]}, seed=1),
        evaluation({"p": [(9, 9, 0.0)], "q": [(9, 9, 1.0)]}, group="h", method="vote"),
    ]
    for baseline in ("vote", "b-0"):
        found = comparison(group_runs(runs, evaluations, baseline), [], FEW)
        assert found is not None
        vote, tmas = found.groups
        assert (vote.label, tmas.label, tmas.seeds) == ("vote", "tmas", (0, 1))
        assert (vote.final["selected"].value, tmas.final["selected"].value) == (0.5, 0.75)
        assert vote.final_difference == {}
        assert tmas.final_difference["selected"].difference.value == 0.25
    with pytest.raises(UserError, match=r"no method has this name: rse\. Give one of: tmas, vote\."):
        group_runs(runs, evaluations, "rse")


def test_undecided_answers_bound_a_difference_and_sums_in_another_order_do_not():
    def with_upper(problem: EvaluatedProblem, upper: float) -> EvaluatedProblem:
        bounded = problem.iterations[0].model_copy(update={"upper": {"rule": {"selected": upper}}})
        return problem.model_copy(update={"iterations": (bounded,)})

    one, other = (evaluation({"p": [(1, 1, 0.25)], "q": [(1, 1, 0.5)]}, group=name) for name in ("g", "h"))
    p, q = one.by_problem
    open_ = one.model_copy(update={"by_problem": (with_upper(p, 0.75), q)})
    found = difference_at([open_], [other], 10, settings=FEW)
    assert (found.lower, found.value, found.upper) == (0.0, 0.0, 0.25)
    back = difference_at([other], [open_], 10, settings=FEW)
    assert (back.lower, back.upper) == (-0.25, 0.0)
    assert difference_at([other], [other], 10, settings=FEW).upper is None
    assert accuracy_at([open_], 10, settings=FEW).bound == 0.625
    rounded = accuracy_at([other], 10, settings=FEW).model_copy(update={"upper": 0.375 + 1e-16})
    assert rounded.bound is None


def priced(evaluated: Evaluation, price: float) -> Evaluation:
    """Every token costs ``price``."""

    def with_cost(spent: Any) -> dict[str, float]:
        return {"cost": price * (spent.prompt_tokens + spent.completion_tokens)}

    problems = [
        problem.model_copy(
            update={
                "iterations": tuple(step.model_copy(update=with_cost(step)) for step in problem.iterations),
                **with_cost(problem),
            }
        )
        for problem in evaluated.by_problem
    ]
    cost = Cost(currency="USD", total=1, by_role={"solution": 1})
    return evaluated.model_copy(update={"by_problem": tuple(problems), "cost": cost})


def test_methods_are_compared_at_equal_costs():
    """Three times the tokens at a ninth of the price."""
    small = priced(evaluation({"p": [(3, 3, 0.0), (30, 30, 1.0)]}), 0.001)
    large = priced(evaluation({"p": [(10, 10, 1.0)]}, group="h", method="vote"), 0.009)
    groups = group_runs([Path("a"), Path("b")], [small, large])
    found = comparison(groups, [], FEW, "money")
    assert found is not None
    assert (found.unit, found.currency, found.budgets) == ("money", "USD", (0.18,))
    assert [group.accuracy["selected"][0].value for group in found.groups] == [1.0, 1.0]
    assert [group.cost_per_problem for group in found.groups] == pytest.approx([0.06, 0.18])
    found = comparison(groups, [0.05, 0.06], FEW, "money")
    assert found is not None
    assert [estimate.value for estimate in found.groups[0].accuracy["selected"]] == [0.0, 1.0]
    assert [estimate.value for estimate in found.groups[1].accuracy["selected"]] == [None, None]
    in_tokens = comparison(groups, [], FEW)
    assert in_tokens is not None
    assert (in_tokens.unit, in_tokens.currency, in_tokens.budgets) == ("tokens", "USD", (20,))
    unpriced = group_runs([Path("a"), Path("b")], [small.model_copy(update={"cost": None}), large])
    assert shared_currency(unpriced) is None
    [problem] = large.by_problem  # a reply without token counts: the run's total is known, that of a problem is not
    unknown = large.model_copy(update={"by_problem": (problem.model_copy(update={"cost": None}),)})
    assert shared_currency(group_runs([Path("a"), Path("b")], [small, unknown])) is None


@pytest.mark.parametrize("amount", [0.0, 0.000123, 0.1, 0.12, 0.1201, 1 / 3, 1.0, 9.99, 1234.5, 0.12 * 3, 1e-9])
def test_a_budget_in_money_covers_what_it_was_rounded_up_from(amount: float):
    assert amount <= rounded_up_money(amount) <= 1.1 * amount


@pytest.mark.parametrize("amount", [0.0, 0.00056, 0.07, 0.56, 0.57, 1.1, 9.9, 10.0, 560.0, 5600.0])
def test_an_amount_of_two_digits_is_not_rounded(amount: float):
    assert rounded_up_money(amount) == amount


def test_labels_tell_runs_of_one_name_apart():
    runs = [Path("a/tmas"), Path("b/tmas")]
    groups = group_runs(runs, [ONE, evaluation({"p": [(1, 1, 1.0)]}, group="h")])
    assert [group.label for group in groups] == ["tmas (a/tmas)", "tmas (b/tmas)"]


def test_groups_are_compared_within_their_benchmark_and_ids_alone_make_no_pair():
    hle = evaluation({"p": [(1, 1, 1.0)]}, group="h", benchmark="hle")
    vote = evaluation({"p": [(1, 1, 1.0)]}, group="i", method="vote")
    groups = group_runs([Path("a"), Path("b"), Path("c")], [ONE, hle, vote])
    found = {name: [group.label for group in own] for name, own in by_benchmark(groups).items()}
    assert found == {"imo": ["tmas", "vote"], "hle": ["tmas"]}
    assert comparison(groups[:2], [], FEW) is None
    assert difference_at([ONE], [hle], 10**9, settings=FEW).problems == 0


def test_what_a_problem_cost_has_the_iteration_that_its_budget_cut_off():
    cut_off = evaluation({"p": [(10, 10, 1.0)], "q": [(20, 20, 1.0)]}, spent=100)
    [group] = group_runs([Path("a")], [cut_off])
    assert group.tokens == 100
    assert accuracy_at([cut_off], 40, settings=FEW).value == 1.0  # but its answers were there before


def test_runs_without_a_common_problem_are_not_compared():
    other = evaluation({"x": [(1, 1, 1.0)]}, group="h")
    assert comparison(group_runs([Path("a"), Path("b")], [ONE, other]), [], FEW) is None
