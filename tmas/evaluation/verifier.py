"""Calibration of the verifier: compares the grades of candidates with their correctness."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tmas.evaluation.correctness import Scoring
from tmas.evaluation.estimators import auroc, brier, expected_calibration_error, mean, reliability
from tmas.evaluation.scores import judged
from tmas.records.evaluation_files import Calibration, GradeCounts
from tmas.records.run_files import PredictedCandidate, Prediction


def calibration(lines: Sequence[Prediction], scoring: Scoring) -> Calibration:
    """Compare mean grades, and single grades, with the correctness of the candidates.

    ``lines`` must have gold answers. Iterations and passes of the judge are pooled: ``pairs`` counts a graded candidate
    once for each pass that decided about it.
    """
    found = [pair for line in lines for pair in _graded(line, scoring)]
    grades = [c.mean_grade for c, _ in found if c.mean_grade is not None]
    correct = [right for _, right in found]
    single = [(grade, right) for c, right in found for grade in c.grades]
    bins = reliability(grades, correct)
    return Calibration(
        pairs=len(found),
        accuracy=mean([float(right) for right in correct]),
        brier=brier(grades, correct),
        ece=expected_calibration_error(bins),
        auroc=auroc(grades, correct),
        bins=tuple(bins),
        grades={f"{grade:g}": _of_grade(grade, single) for grade in (0.0, 0.5, 1.0)},
    )


def _graded(line: Prediction, scoring: Scoring) -> Iterator[tuple[PredictedCandidate, bool]]:
    assert line.gold is not None
    candidates = [c for r in line.rounds for c in r.samples if c.mean_grade is not None]
    for correct in scoring:
        verdicts = judged(line.gold, candidates, correct)
        yield from ((c, right) for c, right in zip(candidates, verdicts, strict=True) if right is not None)


def _of_grade(grade: float, single: Sequence[tuple[float, bool]]) -> GradeCounts:
    outcomes = [float(right) for given, right in single if given == grade]
    return GradeCounts(count=len(outcomes), accuracy=mean(outcomes))
