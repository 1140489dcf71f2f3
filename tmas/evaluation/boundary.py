"""Boundary analysis: do generation and verification fail on the same problems?

Sorts the problems into bins by difficulty, and measures in each bin how often candidates are right, how often the
verifier accepts wrong ones and rejects right ones, and how well it ranks the candidates of a problem.

The difficulty of a problem is its Pass@1: problems near 0 are the hardest. It is never estimated from the samples
that are measured. Otherwise the accuracy of a bin would only repeat the limits of the bin, and the hardest bin would
collect the problems whose samples were unlucky.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tmas.evaluation.compute import Key, key
from tmas.evaluation.estimators import BootstrapSettings, estimate, mean
from tmas.evaluation.verifier import ACCEPT_GRADE, auroc_of, false_accept, false_reject
from tmas.records.evaluation_files import Boundary, BoundaryBin, EvaluatedStep, Evaluation


class BoundarySettings(BaseModel):
    """Boundary analysis of the verifier."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    edges: tuple[float, ...] = Field(
        default=(0.125, 0.375, 0.625, 0.875),
        description="Pass@1 at which one bin of problems ends and the next one begins, in ascending order.",
    )
    accept_grade: float = Field(
        default=ACCEPT_GRADE,
        gt=0,
        le=1,
        description="Mean grade from which a candidate counts as accepted by the verifier.",
    )

    @field_validator("edges")
    @classmethod
    def _ascend(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if list(edges) != sorted(set(edges)) or not all(0 < edge < 1 for edge in edges):
            raise ValueError("the edges must ascend, and each must be between 0 and 1 (exclusive)")
        return edges


@dataclass
class _Measured:
    """The samples of one problem that fall into a bin."""

    difficulties: list[float] = field(default_factory=list)
    steps: list[EvaluatedStep] = field(default_factory=list)


def boundary(
    evaluations: Sequence[Evaluation], scoring: str, settings: BoundarySettings, bootstrap: BootstrapSettings
) -> Boundary | None:
    """Measure accuracy and verification by difficulty, for runs that differ only by seed.

    With several seeds, the difficulty of a problem in one run is its Pass@1 in iteration 0 of the other runs, and all
    iterations are measured. A problem may then be in several bins: each of its runs is put into the bin of its own
    difficulty. With one seed, the difficulty comes from iteration 0, and the later iterations are measured. Returns
    None if the verifier graded no candidate that could be measured.

    ``evaluations``: one for each seed. ``scoring``: how correctness is decided (``rule`` or ``judge``).
    """
    limits = [0.0, *settings.edges, 1.0]
    bins: list[dict[Key, _Measured]] = [{} for _ in limits[1:]]
    left_out = {key(problem) for evaluation in evaluations for problem in evaluation.by_problem}
    for number, evaluation in enumerate(evaluations):
        difficulties = _difficulties(evaluations, number, scoring)
        for problem in evaluation.by_problem:
            # With one seed, iteration 0 has given the difficulty, so it is not measured.
            name, steps = key(problem), problem.iterations[0 if len(evaluations) > 1 else 1 :]
            difficulty = difficulties.get(name)
            if difficulty is None or not steps:
                continue
            left_out.discard(name)
            found = bins[sum(difficulty >= edge for edge in settings.edges)].setdefault(name, _Measured())
            found.difficulties.append(difficulty)
            found.steps.extend(steps)
    if not any(step.graded.get(scoring) for by_problem in bins for m in by_problem.values() for step in m.steps):
        return None
    return Boundary(
        difficulty_from="other_seeds" if len(evaluations) > 1 else "iteration_0",
        seeds=tuple(evaluation.run.seed for evaluation in evaluations),
        left_out=len(left_out),
        bins=tuple(
            _bin(low, high, list(by_problem.values()), scoring, settings.accept_grade, bootstrap)
            for low, high, by_problem in zip(limits, limits[1:], bins, strict=False)
        ),
    )


def _difficulties(evaluations: Sequence[Evaluation], number: int, scoring: str) -> dict[Key, float]:
    """Estimate the Pass@1 of each problem from iteration 0 of the other runs, or of the only run."""
    others = [e for i, e in enumerate(evaluations) if i != number] or evaluations
    found: dict[Key, list[float | None]] = {}
    for evaluation in others:
        for problem in evaluation.by_problem:
            found.setdefault(key(problem), []).append(problem.iterations[0].scores[scoring]["pass_at_1"])
    means = {name: mean(values) for name, values in found.items()}
    return {name: value for name, value in means.items() if value is not None}


def _bin(
    low: float,
    high: float,
    problems: Sequence[_Measured],
    scoring: str,
    accept_grade: float,
    bootstrap: BootstrapSettings,
) -> BoundaryBin:
    """Measure the problems with a difficulty between ``low`` and ``high``. All problems have the same weight."""
    accuracy = [mean([step.scores[scoring]["pass_at_1"] for step in problem.steps]) for problem in problems]
    outcomes = [[o for step in problem.steps for o in step.graded.get(scoring, ())] for problem in problems]
    return BoundaryBin(
        low=low,
        high=high,
        problems=len(problems),
        difficulty=mean([mean(problem.difficulties) for problem in problems]),
        accuracy=estimate(accuracy, bootstrap),
        false_accept=estimate([false_accept(one, accept_grade) for one in outcomes], bootstrap),
        false_reject=estimate([false_reject(one, accept_grade) for one in outcomes], bootstrap),
        auroc=estimate([auroc_of(one) for one in outcomes], bootstrap),
    )
