"""Compares the grades of candidates with their correctness: calibration, false accepts, ranking within a problem."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tmas.evaluation.correctness import Scoring
from tmas.evaluation.estimators import (
    BootstrapSettings,
    auroc,
    brier,
    estimate,
    expected_calibration_error,
    mean,
    reliability,
)
from tmas.evaluation.scores import correctness_of
from tmas.records.evaluation_files import Calibration, GradeCounts, GradeOutcomes
from tmas.records.run_files import PredictedCandidate, Prediction

ACCEPT_GRADE = 0.75
"""Mean grade from which a candidate counts as accepted by the verifier."""


def calibration(
    lines: Sequence[Prediction], scoring: Scoring, settings: BootstrapSettings, accept_grade: float = ACCEPT_GRADE
) -> Calibration:
    """Compare mean grades, and single grades, with the correctness of the candidates.

    ``lines`` must have gold answers. Iterations and passes of the judge are pooled: ``pairs`` counts a graded candidate
    once for each pass that decided about it. ``false_accept``, ``false_reject`` and ``within_problems`` use the
    majority of the passes.
    """
    outcomes = [[o for t in range(len(line.rounds)) for o in grade_outcomes(line, scoring, t)] for line in lines]
    found = [pair for line in lines for pair in _graded(line, scoring)]
    grades = [c.mean_grade for c, _ in found if c.mean_grade is not None]
    correct = [right for _, right in found]
    single = [(grade, right) for c, right in found for grade in c.grades]
    bins = reliability(grades, correct)
    samples = [c for line in lines for r in line.rounds for c in r.samples]
    without_grade = [c for c in samples if c.mean_grade is None]
    return Calibration(
        pairs=len(found),
        graded=len(samples) - len(without_grade),
        ungraded=sum(c.failure is None for c in without_grade),
        unwritten=sum(c.failure is not None for c in without_grade),
        accuracy=mean([float(right) for right in correct]),
        brier=brier(grades, correct),
        ece=expected_calibration_error(bins),
        auroc=auroc(grades, correct),
        false_accept=estimate([false_accept(one, accept_grade) for one in outcomes], settings),
        false_reject=estimate([false_reject(one, accept_grade) for one in outcomes], settings),
        within_problems=estimate([auroc_of(one) for one in outcomes], settings),
        bins=tuple(bins),
        grades={f"{grade:g}": _of_grade(grade, single) for grade in (0.0, 0.5, 1.0)},
    )


def grade_outcomes(line: Prediction, scoring: Scoring, t: int) -> tuple[GradeOutcomes, ...]:
    """Count the right and wrong candidates of iteration t for each mean grade, in ascending order of grades.

    A candidate is right or wrong as most passes of the judge say. It is left out if it has no grade, if no pass decided
    about it, or if as many passes find it right as wrong.
    """
    assert line.gold is not None
    rounds = line.rounds
    candidates = [c for c in rounds[t].samples if c.mean_grade is not None] if t < len(rounds) else []
    by_pass = [correctness_of(line.gold, candidates, correct) for correct in scoring]
    counts: dict[float, list[int]] = {}  # grade -> numbers of right and wrong candidates
    for candidate, *verdicts in zip(candidates, *by_pass, strict=True):
        share = mean([None if verdict is None else float(verdict) for verdict in verdicts])
        if candidate.mean_grade is not None and share is not None and share != 0.5:
            counts.setdefault(candidate.mean_grade, [0, 0])[share < 0.5] += 1
    return tuple(GradeOutcomes(grade=grade, right=n[0], wrong=n[1]) for grade, n in sorted(counts.items()))


def auroc_of(outcomes: Sequence[GradeOutcomes]) -> float | None:
    """Compute the AUROC of candidates that are counted by grade. A grade may occur several times.

    Returns None unless there are right and wrong candidates.
    """
    grades = [o.grade for o in outcomes for _ in range(o.right + o.wrong)]
    return auroc(grades, [is_right for o in outcomes for is_right in [True] * o.right + [False] * o.wrong])


def false_accept(outcomes: Sequence[GradeOutcomes], accept_grade: float) -> float | None:
    """Return the share of wrong candidates that are accepted. None without wrong candidates."""
    wrong = sum(o.wrong for o in outcomes)
    return sum(o.wrong for o in outcomes if o.grade >= accept_grade) / wrong if wrong else None


def false_reject(outcomes: Sequence[GradeOutcomes], accept_grade: float) -> float | None:
    """Return the share of right candidates that are not accepted. None without right candidates."""
    right = sum(o.right for o in outcomes)
    return sum(o.right for o in outcomes if o.grade < accept_grade) / right if right else None


def _graded(line: Prediction, scoring: Scoring) -> Iterator[tuple[PredictedCandidate, bool]]:
    assert line.gold is not None
    candidates = [c for r in line.rounds for c in r.samples if c.mean_grade is not None]
    for correct in scoring:
        verdicts = correctness_of(line.gold, candidates, correct)
        yield from ((c, right) for c, right in zip(candidates, verdicts, strict=True) if right is not None)


def _of_grade(grade: float, single: Sequence[tuple[float, bool]]) -> GradeCounts:
    outcomes = [float(right) for given, right in single if given == grade]
    return GradeCounts(count=len(outcomes), accuracy=mean(outcomes))
