"""Metrics of a problem by iteration, under one scoring, with bounds.

An undecided answer counts as wrong in a metric's value, which is thus a lower bound, and as correct in its upper bound.
A metric is None if it is not defined: nothing was sampled, no candidate was graded (``best_of``), or there are fewer
than k candidates (``pass_at_k``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tmas.evaluation.correctness import Correct, Scoring
from tmas.evaluation.estimators import mean, pass_at_k
from tmas.records import FailureReason, Selection
from tmas.records.evaluation_files import ModeCounts
from tmas.records.run_files import PredictedCandidate, PredictedIteration, Prediction

Scores = dict[str, float | None]
Classes = Mapping[str, int]


def metric_names(widths: Sequence[int]) -> list[str]:
    """Return the names of the metrics of docs/evaluation.md. ``widths``: the k of pass@k, without 1."""
    return ["pass_at_1", *(f"pass_at_{k}" for k in widths), "selected", "vote", "best_of"]


def problem_scores(
    line: Prediction, scoring: Scoring, classes: Classes, widths: Sequence[int], undecided_as: bool = False
) -> list[Scores]:
    """Compute the metrics of a problem with a gold answer, as one dictionary per iteration (at least one).

    ``undecided_as``: False for the lower bounds, True for the upper bounds. If the problem has no sampled candidate,
    all metrics are 0 if the budget was the only reason, otherwise None.
    """
    found = line.rounds
    if not found:
        reasons = {c.failure for r in line.iterations for c in r.candidates}
        value = 0.0 if reasons <= {FailureReason.BUDGET} else None
        return [dict.fromkeys(metric_names(widths), value)]
    assert line.gold is not None
    by_pass = [[_scores(line.gold, r, correct, classes, widths, undecided_as) for r in found] for correct in scoring]
    return [{name: mean([one[t][name] for one in by_pass]) for name in metric_names(widths)} for t in range(len(found))]


def correctness_of(
    gold: str, candidates: Sequence[PredictedCandidate | Selection], correct: Correct
) -> list[bool | None]:
    """Return whether each candidate is correct. A candidate without an answer is not. None: undecided."""
    return [False if c.answer is None else correct[gold, c.answer] for c in candidates]


def _bounded(
    gold: str, candidates: Sequence[PredictedCandidate | Selection], correct: Correct, undecided_as: bool
) -> list[bool]:
    return [undecided_as if verdict is None else verdict for verdict in correctness_of(gold, candidates, correct)]


def _scores(
    gold: str,
    round_: PredictedIteration,
    correct: Correct,
    classes: Classes,
    widths: Sequence[int],
    undecided_as: bool,
) -> Scores:
    candidates, selected = round_.samples, round_.selected
    verdicts = _bounded(gold, candidates, correct, undecided_as)
    return {
        **{f"pass_at_{k}": _pass_at(k, verdicts) for k in (1, *widths)},
        "selected": float(_bounded(gold, [selected], correct, undecided_as)[0])
        if selected
        else 0.0
        if candidates
        else None,
        "vote": _vote(candidates, verdicts, classes) if candidates else None,
        "best_of": _best_of(candidates, verdicts),
    }


def _pass_at(k: int, verdicts: Sequence[bool]) -> float | None:
    return pass_at_k(sum(verdicts), len(verdicts), k)


def _vote(candidates: Sequence[PredictedCandidate], verdicts: Sequence[bool], classes: Classes) -> float | None:
    """Return the share of correct answers in the largest class, or the mean over tied classes; 0 without answers."""
    votes = [(classes[c.answer], v) for c, v in zip(candidates, verdicts, strict=True) if c.answer is not None]
    sizes = Counter(class_ for class_, _ in votes)
    largest = [class_ for class_, size in sizes.items() if size == max(sizes.values())]
    return mean([mean([v for c, v in votes if c == class_]) for class_ in largest]) if votes else 0.0


def _best_of(candidates: Sequence[PredictedCandidate], verdicts: Sequence[bool]) -> float | None:
    """Return the share of correct candidates among those with the highest mean grade; None if none was graded."""
    graded = [(c.mean_grade, v) for c, v in zip(candidates, verdicts, strict=True) if c.mean_grade is not None]
    best = max((grade for grade, _ in graded), default=None)
    return mean([v for grade, v in graded if grade == best])


def undecided_count(lines: Sequence[Prediction], scoring: Scoring, t: int) -> float:
    """Number of undecided candidates in iteration t, averaged over the passes."""
    counts = [sum(verdict is None for _, verdict in _verdicts(lines, correct, t)) for correct in scoring]
    return sum(counts) / len(counts)


def by_mode(lines: Sequence[Prediction], scoring: Scoring, t: int) -> dict[str, ModeCounts]:
    """Count the candidates of iteration t by mode, with the bounds of the share of correct ones."""
    found = [pair for correct in scoring for pair in _verdicts(lines, correct, t)]
    modes = sorted({candidate.mode for candidate, _ in found})
    return {
        mode: ModeCounts(
            candidates=sum(c.mode == mode for c, _ in found) / len(scoring),
            accuracy=mean([verdict is True for c, verdict in found if c.mode == mode]),
            upper=mean([verdict is not False for c, verdict in found if c.mode == mode]),
        )
        for mode in modes
    }


def _verdicts(lines: Sequence[Prediction], correct: Correct, t: int) -> list[tuple[PredictedCandidate, bool | None]]:
    found = [(line.gold, line.iterations[t].samples) for line in lines if line.gold and len(line.iterations) > t]
    return [pair for gold, c in found for pair in zip(c, correctness_of(gold, c, correct), strict=True)]
