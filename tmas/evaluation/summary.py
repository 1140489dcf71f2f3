"""Summarises one run: computes most fields of ``evaluation.json``. docs/evaluation.md explains each field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tmas.evaluation.correctness import Scoring
from tmas.evaluation.estimators import BootstrapSettings, estimates, mean
from tmas.evaluation.facts import cost_until, iteration_facts, tokens_until, usage_by_role
from tmas.evaluation.runs import RunData
from tmas.evaluation.sampling import Series, by_samples
from tmas.evaluation.scores import Classes, Scores, by_mode, metric_names, problem_scores, undecided_count
from tmas.evaluation.verifier import calibration, grade_outcomes
from tmas.records.evaluation_files import Estimate, EvaluatedIteration, EvaluatedProblem, EvaluatedStep, ProblemCounts
from tmas.records.prices import Price, cost_of, cost_of_entries
from tmas.records.run_files import Prediction

ByScoring = dict[str, list[Scores]]
"""Scoring -> metrics of one problem by iteration."""


@dataclass(frozen=True)
class ScoredProblem:
    """A problem with a gold answer, and its metrics by scoring.

    Undecided answers count as wrong in ``lower`` and ``samples``, and as right in ``upper`` and ``upper_samples``.
    ``samples``: the metrics by number of samples, for methods of one iteration.
    """

    line: Prediction
    lower: ByScoring
    upper: ByScoring
    samples: dict[str, Series]
    upper_samples: dict[str, Series]


def summary(
    run: RunData,
    scorings: Mapping[str, Scoring],
    classes: Mapping[str, Classes],
    settings: BootstrapSettings,
    accept_grade: float,
    prices: Mapping[str, Price],
) -> dict[str, Any]:
    """Return the fields of ``Evaluation`` from ``problems`` on, by name.

    ``classes``: problem id -> result of :func:`~tmas.evaluation.correctness.answer_classes`, for each problem with a
    gold answer. ``accept_grade``: mean grade from which a candidate counts as accepted. ``prices``: those of each
    role's model, where they are known.
    """
    golden = [line for line in run.lines if line.gold is not None]
    widths = _widths(run.lines)
    depth = max(len(line.iterations) for line in run.lines)
    scored = [_scored(line, scorings, classes[line.problem_id], widths, settings) for line in golden]
    estimated = _estimates(scored, list(scorings), metric_names(widths), depth, settings)
    roles = usage_by_role(entry for line in run.lines for entry in line.usage)
    own_prices = prices == (run.manifest.prices or {})
    return {
        "problems": ProblemCounts(
            finished=len(run.lines),
            unfinished=len(run.manifest.problems) - len(run.lines),
            without_gold=len(run.lines) - len(golden),
            stops=dict(Counter(line.stop for line in run.lines)),
        ),
        "iterations": tuple(
            EvaluatedIteration(
                **iteration_facts(run.lines, t, prices),
                scores=estimated[t],
                undecided={name: undecided_count(golden, scoring, t) for name, scoring in scorings.items()},
                modes={name: by_mode(golden, scoring, t) for name, scoring in scorings.items()},
            )
            for t in range(depth)
        ),
        "calibration": {name: calibration(golden, s, settings, accept_grade) for name, s in scorings.items()},
        "roles": roles,
        "cost": cost_of(roles, prices) if prices else None,
        "by_problem": tuple(
            _problem(p, run.manifest.problems[p.line.problem_id], scorings, prices, own_prices) for p in scored
        ),
    }


def _scored(
    line: Prediction,
    scorings: Mapping[str, Scoring],
    classes: Classes,
    widths: Sequence[int],
    settings: BootstrapSettings,
) -> ScoredProblem:
    lower, upper = (
        {name: problem_scores(line, scoring, classes, widths, bound) for name, scoring in scorings.items()}
        for bound in (False, True)
    )
    samples, upper_samples = (
        {
            name: by_samples(line, scoring, classes, settings.subsets, settings.seed, bound)
            for name, scoring in scorings.items()
        }
        for bound in (False, True)
    )
    return ScoredProblem(line, lower, upper, samples, upper_samples)


def _widths(lines: Sequence[Prediction]) -> list[int]:
    """Return the k of pass@k: 2, 4, 8, ... up to the largest number of candidates in an iteration, and that number."""
    largest = max((len(r.candidates) for line in lines for r in line.iterations), default=1)
    return sorted({k for k in (*(2**i for i in range(1, 20)), largest) if 1 < k <= largest})


def _estimates(
    problems: Sequence[ScoredProblem],
    scorings: Sequence[str],
    metrics: Sequence[str],
    depth: int,
    settings: BootstrapSettings,
) -> list[dict[str, dict[str, Estimate]]]:
    """Estimate every metric, as iteration -> scoring -> metric -> estimate.

    A problem that stopped early keeps the values of its last iteration in all later iterations.
    """
    if not problems:
        return [{}] * depth
    columns = [(t, scoring, metric) for t in range(depth) for scoring in scorings for metric in metrics]
    rows, upper_rows = (
        [[p[scoring][min(t, len(p[scoring]) - 1)][metric] for t, scoring, metric in columns] for p in bounds]
        for bounds in ([problem.lower for problem in problems], [problem.upper for problem in problems])
    )
    upper_means = [mean(column) for column in zip(*upper_rows, strict=True)]
    found: list[dict[str, dict[str, Estimate]]] = [{scoring: {} for scoring in scorings} for _ in range(depth)]
    for (t, scoring, metric), estimate, upper in zip(columns, estimates(rows, settings), upper_means, strict=True):
        found[t][scoring][metric] = estimate.model_copy(update={"upper": upper})
    return found


def _problem(
    problem: ScoredProblem,
    digest: str,
    scorings: Mapping[str, Scoring],
    prices: Mapping[str, Price],
    own_prices: bool,
) -> EvaluatedProblem:
    """The record of one problem. ``own_prices``: the prices are those with which the run was made."""
    line = problem.line
    used = line.total_usage
    spent = [tokens_until(line, t) for t in range(max(len(line.rounds), 1))]
    return EvaluatedProblem(
        problem_id=line.problem_id,
        digest=digest,
        stop=line.stop,
        limit=line.terms.tokens_per_problem,
        # the limit applied only at the run's own prices
        money_limit=line.terms.money_per_problem if own_prices else None,
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
        cost=cost_of_entries(line.usage, prices),
        iterations=tuple(
            EvaluatedStep(
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                cost=cost_until(line, t, prices),
                scores={name: by_iteration[t] for name, by_iteration in problem.lower.items()},
                upper={
                    name: {m: value for m, value in found[t].items() if value != problem.lower[name][t][m]}
                    for name, found in problem.upper.items()
                },
                graded={name: grade_outcomes(line, scoring, t) for name, scoring in scorings.items()},
            )
            for t, usage in enumerate(spent)
        ),
        by_samples={name: found for name, found in problem.samples.items() if found},
        upper_by_samples=_differing(problem.upper_samples, problem.samples),
    )


def _differing(uppers: Mapping[str, Series], lowers: Mapping[str, Series]) -> dict[str, Series]:
    """Return the series that differ from the lower bounds, by scoring."""
    differing = {
        name: {metric: series for metric, series in found.items() if series != lowers[name][metric]}
        for name, found in uppers.items()
    }
    return {name: found for name, found in differing.items() if found}
