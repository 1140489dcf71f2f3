"""Accuracy and tokens of a method, at equal compute and pooled over seeds. The only input is ``evaluation.json``.

Every function takes the evaluations of runs of one method that differ only by seed. The value of a problem is its mean
over these runs. A problem that stopped early keeps the value of its last iteration in all later iterations, so that
early stopping is no disadvantage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tmas.evaluation.estimators import BootstrapSettings, estimate, mean
from tmas.evaluation.intervals import DIFFERENCE, sign_flip_p
from tmas.records.evaluation_files import (
    ROUNDING,
    Estimate,
    EvaluatedProblem,
    EvaluatedStep,
    Evaluation,
    PairedDifference,
)

Key = tuple[str, str]
"""Problem id and digest. The id alone is not unique: two benchmarks may use the same ids."""


@dataclass(frozen=True)
class Measure:
    """The quantities to compare: a metric of docs/evaluation.md, its scoring, and the unit of what was spent.

    ``unit``: ``tokens`` counts prompt and completion tokens, ``generated`` only the latter, and ``money`` is the cost,
    which must be known.
    """

    metric: str = "selected"
    scoring: str = "rule"
    unit: Literal["tokens", "generated", "money"] = "tokens"

    def spent(self, step: EvaluatedStep | EvaluatedProblem) -> float:
        """Return what was spent up to the end of an iteration, or, for a problem, its total."""
        if self.unit == "money":
            assert step.cost is not None
            return step.cost
        return step.completion_tokens + (step.prompt_tokens if self.unit == "tokens" else 0)

    def limit(self, problem: EvaluatedProblem) -> float | None:
        """Return the problem's own budget: money for the unit ``money``, else tokens.

        It is the token budget for the unit ``generated``, too, because generated tokens cannot exceed it.
        """
        return problem.money_limit if self.unit == "money" else problem.limit

    def value(self, step: EvaluatedStep) -> float | None:
        return step.scores[self.scoring][self.metric]

    def upper(self, step: EvaluatedStep) -> float | None:
        """Return the value with undecided answers counted as correct."""
        return step.upper.get(self.scoring, {}).get(self.metric, self.value(step))

    def with_samples(self, problem: EvaluatedProblem, tokens: float, upper: bool = False) -> float | None:
        """Return the value with as many samples as ``tokens`` pay for.

        None if they do not pay for one, or if the problem has no values by number of samples (several iterations).

        A sample costs the problem's tokens divided by the number of samples. ``upper``: count undecided answers as
        correct.
        """
        series = problem.by_samples.get(self.scoring, {}).get(self.metric, ())
        if upper:
            series = problem.upper_by_samples.get(self.scoring, {}).get(self.metric, series)
        k = int(tokens * len(series) / (self.spent(problem) or 1) + ROUNDING)
        return series[min(k, len(series)) - 1] if k and series else None


SELECTED = Measure()


def accuracy_at(
    evaluations: Sequence[Evaluation],
    tokens: float,
    measure: Measure = SELECTED,
    settings: BootstrapSettings | None = None,
) -> Estimate:
    """Estimate the accuracy at a budget of ``tokens`` per problem, counted as ``measure`` says.

    Each problem contributes the metric of its last iteration that ended within the budget. A problem without such an
    iteration contributes 0, or, if its method has one round, the metric with as many samples as fit. If no problem has
    either, the value of the estimate is None. All iterations of a problem count as within the budget if its own token
    limit was at most ``tokens``: the last chunks of its streams may exceed that limit slightly.
    """
    found = estimate([*_at(evaluations, tokens, measure).values()], settings or BootstrapSettings())
    return found.model_copy(update={"upper": mean([*_at(evaluations, tokens, measure, upper=True).values()])})


def accuracy_after(
    evaluations: Sequence[Evaluation],
    iteration: int,
    measure: Measure = SELECTED,
    settings: BootstrapSettings | None = None,
) -> Estimate:
    """Estimate the accuracy after an iteration, as in ``iterations`` of ``evaluation.json``, pooled over seeds."""
    found = estimate([*values_after(evaluations, iteration, measure).values()], settings or BootstrapSettings())
    uppers = _values(evaluations, lambda problem: measure.upper(_step(problem, iteration)))
    return found.model_copy(update={"upper": mean([*uppers.values()])})


def values_after(evaluations: Sequence[Evaluation], iteration: int, measure: Measure) -> dict[Key, float | None]:
    """Return the value of each problem after an iteration, as the mean over seeds."""
    return _values(evaluations, lambda problem: measure.value(_step(problem, iteration)))


def difference_at(
    ours: Sequence[Evaluation],
    theirs: Sequence[Evaluation],
    tokens: float,
    measure: Measure = SELECTED,
    settings: BootstrapSettings | None = None,
) -> Estimate:
    """Estimate :func:`accuracy_at` of ``ours`` minus that of ``theirs``.

    The difference is paired by problem. Only problems that occur on both sides are used.
    """
    our_values, their_values = (_at(side, tokens, measure) for side in (ours, theirs))
    our_uppers, their_uppers = (_at(side, tokens, measure, upper=True) for side in (ours, theirs))
    found = estimate(paired_differences(our_values, their_values), settings or BootstrapSettings(), DIFFERENCE)
    return _bounded(found, our_values, our_uppers, their_values, their_uppers)


def difference_after(
    ours: Sequence[Evaluation],
    theirs: Sequence[Evaluation],
    iteration: int,
    measure: Measure,
    settings: BootstrapSettings,
) -> PairedDifference:
    """Subtract a metric of ``theirs`` from that of ``ours`` after an iteration, paired by problem.

    The value of a problem is its mean over the seeds of a side, so the sides may have different numbers of seeds. Only
    problems that occur on both sides are used; those that have no value on one side are left out. A problem that
    stopped early keeps the value of its last iteration.
    """
    our_values, their_values = (values_after(side, iteration, measure) for side in (ours, theirs))
    our_uppers, their_uppers = (
        _values(side, lambda one: measure.upper(_step(one, iteration))) for side in (ours, theirs)
    )
    differences = paired_differences(our_values, their_values)
    known = [difference for difference in differences if difference is not None]
    return PairedDifference(
        iteration=iteration,
        difference=_bounded(
            estimate(differences, settings, DIFFERENCE), our_values, our_uppers, their_values, their_uppers
        ),
        p=sign_flip_p(known, settings.resamples, settings.seed),
    )


def _bounded(
    difference: Estimate,
    our_values: Mapping[Key, float | None],
    our_uppers: Mapping[Key, float | None],
    their_values: Mapping[Key, float | None],
    their_uppers: Mapping[Key, float | None],
) -> Estimate:
    """Add the lowest and highest difference that undecided answers allow, if there are undecided answers."""
    lower, upper = (
        mean(paired_differences(our_values, their_uppers)),
        mean(paired_differences(our_uppers, their_values)),
    )
    if lower is None or upper is None or upper - lower < ROUNDING:
        return difference
    return difference.model_copy(update={"lower": lower, "upper": upper})


def paired_differences(ours: Mapping[Key, float | None], theirs: Mapping[Key, float | None]) -> list[float | None]:
    """Subtract ``theirs`` from ``ours`` for the problems that occur on both sides. None if a side has no value."""
    pairs = [(ours[problem], theirs[problem]) for problem in sorted(ours.keys() & theirs.keys())]
    return [None if a is None or b is None else a - b for a, b in pairs]


def tokens_after(evaluations: Sequence[Evaluation], iteration: int, measure: Measure = SELECTED) -> float:
    """Return the mean tokens, or cost, per problem up to the end of an iteration; 0 if there are no problems."""
    spent = _values(evaluations, lambda problem: measure.spent(_step(problem, iteration)))
    return mean([*spent.values()]) or 0.0


def tokens_in_all(evaluations: Sequence[Evaluation], measure: Measure = SELECTED) -> float:
    """Return the mean tokens, or cost, per problem; 0 if there are no problems.

    Tokens of an iteration that the budget cut off are included.
    """
    return mean([*_values(evaluations, measure.spent).values()]) or 0.0


def key(problem: EvaluatedProblem) -> Key:
    return problem.problem_id, problem.digest


def _at(
    evaluations: Sequence[Evaluation], tokens: float, measure: Measure, upper: bool = False
) -> dict[Key, float | None]:
    """The value of each problem at a budget. ``upper``: count undecided answers as correct."""
    of = measure.upper if upper else measure.value

    def within(problem: EvaluatedProblem) -> list[EvaluatedStep]:
        limit = measure.limit(problem)
        is_limited = limit is not None and limit <= tokens
        return [step for step in problem.iterations if is_limited or measure.spent(step) <= tokens]

    def value(problem: EvaluatedProblem) -> float | None:
        steps = within(problem)
        return of(steps[-1]) if steps else measure.with_samples(problem, tokens, upper) or 0.0

    has_value = any(  # if no problem has a value at this budget, all are None instead of 0
        within(problem) or measure.with_samples(problem, tokens) is not None
        for evaluation in evaluations
        for problem in evaluation.by_problem
    )
    return _values(evaluations, value if has_value else lambda _: None)


def _values(
    evaluations: Sequence[Evaluation], of: Callable[[EvaluatedProblem], float | None]
) -> dict[Key, float | None]:
    """The mean of ``of`` for each problem over the evaluations that contain it."""
    found: dict[Key, list[float | None]] = {}
    for evaluation in evaluations:
        for problem in evaluation.by_problem:
            found.setdefault(key(problem), []).append(of(problem))
    return {problem: mean(values) for problem, values in found.items()}


def _step(problem: EvaluatedProblem, iteration: int) -> EvaluatedStep:
    steps = problem.iterations
    return steps[min(iteration, len(steps) - 1)]
