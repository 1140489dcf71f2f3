"""Methods at equal compute, and seeds pooled: from what ``evaluation.json`` holds, and nothing else.

Every function takes the evaluations of one method's runs, which differ only by seed: a problem's value is its mean
over them. A problem carries its last iteration forward, so that stopping early is no disadvantage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tmas.evaluation.estimators import BootstrapSettings, estimate, mean
from tmas.records.evaluation_files import Estimate, EvaluatedProblem, EvaluatedStep, Evaluation

Key = tuple[str, str]
"""Tells problems apart: two benchmarks may use the same ids."""


@dataclass(frozen=True)
class Measure:
    """What is compared: a metric of docs/evaluation.md, by which scoring, against which count of tokens."""

    metric: str = "selected"
    scoring: str = "rule"
    tokens: Literal["all", "completion"] = "all"

    def spent(self, step: EvaluatedStep | EvaluatedProblem) -> int:
        """Tokens of a problem up to the end of an iteration, or (of the problem itself) in all."""
        return step.completion_tokens + (step.prompt_tokens if self.tokens == "all" else 0)

    def value(self, step: EvaluatedStep) -> float | None:
        return step.scores[self.scoring][self.metric]


SELECTED = Measure()


def accuracy_at(
    evaluations: Sequence[Evaluation],
    tokens: float,
    measure: Measure = SELECTED,
    settings: BootstrapSettings | None = None,
) -> Estimate:
    """The accuracy if every problem had been given ``tokens`` and had ended with its last whole iteration in them.

    A problem that has none has solved nothing: 0. Where no problem has one, nothing can be said. A problem whose own
    limit was no more than ``tokens`` ended within them: what the last chunks of its streams took beyond does not count.
    """
    return estimate([*_at(evaluations, tokens, measure).values()], settings or BootstrapSettings())


def accuracy_after(
    evaluations: Sequence[Evaluation],
    iteration: int,
    measure: Measure = SELECTED,
    settings: BootstrapSettings | None = None,
) -> Estimate:
    """The accuracy after an iteration, as in ``iterations`` of ``evaluation.json``, with the seeds pooled."""
    values = _values(evaluations, lambda problem: measure.value(_step(problem, iteration)))
    return estimate([*values.values()], settings or BootstrapSettings())


def difference_at(
    ours: Sequence[Evaluation],
    theirs: Sequence[Evaluation],
    tokens: float,
    measure: Measure = SELECTED,
    settings: BootstrapSettings | None = None,
) -> Estimate:
    """:func:`accuracy_at` of ``ours`` less that of ``theirs``, paired by problem, over the problems of both."""
    left, right = (_at(side, tokens, measure) for side in (ours, theirs))
    pairs = [(left[problem], right[problem]) for problem in sorted(left.keys() & right.keys())]
    differences = [None if a is None or b is None else a - b for a, b in pairs]
    return estimate(differences, settings or BootstrapSettings())


def tokens_after(evaluations: Sequence[Evaluation], iteration: int, measure: Measure = SELECTED) -> float:
    """Mean tokens of a problem up to the end of an iteration."""
    spent = _values(evaluations, lambda problem: measure.spent(_step(problem, iteration)))
    return mean([*spent.values()]) or 0.0


def tokens_in_all(evaluations: Sequence[Evaluation], measure: Measure = SELECTED) -> float:
    """Mean tokens of a problem, with those of an iteration that its budget cut off."""
    return mean([*_values(evaluations, measure.spent).values()]) or 0.0


def key(problem: EvaluatedProblem) -> Key:
    return problem.problem_id, problem.digest


def _at(evaluations: Sequence[Evaluation], tokens: float, measure: Measure) -> dict[Key, float | None]:
    def within(problem: EvaluatedProblem) -> list[EvaluatedStep]:
        limit = problem.limit
        is_limited = limit is not None and limit <= tokens
        return [step for step in problem.iterations if is_limited or measure.spent(step) <= tokens]

    def value(problem: EvaluatedProblem) -> float | None:
        steps = within(problem)
        return measure.value(steps[-1]) if steps else 0.0

    begun = any(within(problem) for evaluation in evaluations for problem in evaluation.by_problem)
    return _values(evaluations, value if begun else lambda _: None)


def _values(
    evaluations: Sequence[Evaluation], of: Callable[[EvaluatedProblem], float | None]
) -> dict[Key, float | None]:
    """A number for each problem with a gold answer, its mean over the evaluations that have the problem."""
    found: dict[Key, list[float | None]] = {}
    for evaluation in evaluations:
        for problem in evaluation.by_problem:
            found.setdefault(key(problem), []).append(of(problem))
    return {problem: mean(values) for problem, values in found.items()}


def _step(problem: EvaluatedProblem, iteration: int) -> EvaluatedStep:
    steps = problem.iterations
    return steps[min(iteration, len(steps) - 1)]
