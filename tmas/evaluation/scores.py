"""Metrics of a problem by iteration, under one scoring. A metric is None if it could not be decided."""

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


def problem_scores(line: Prediction, scoring: Scoring, classes: Classes, widths: Sequence[int]) -> list[Scores]:
    """Compute the metrics of a problem with a gold answer, as one dictionary per iteration (at least one).

    If the problem has no sampled candidate, all metrics are 0 if the budget was the only reason, otherwise None.
    """
    found = line.rounds
    if not found:
        reasons = {c.failure for r in line.iterations for c in r.candidates}
        value = 0.0 if reasons <= {FailureReason.BUDGET} else None
        return [dict.fromkeys(metric_names(widths), value)]
    assert line.gold is not None
    voted = _gold_apart(line.gold, scoring, classes)
    by_pass = [[_scores(line.gold, r, correct, voted, widths) for r in found] for correct in scoring]
    return [{name: mean([one[t][name] for one in by_pass]) for name in metric_names(widths)} for t in range(len(found))]


def judged(gold: str, candidates: Sequence[PredictedCandidate | Selection], correct: Correct) -> list[bool | None]:
    """Return whether each candidate is correct. A candidate without an answer is not. None: undecided."""
    return [False if c.answer is None else correct[gold, c.answer] for c in candidates]


def _gold_apart(gold: str, scoring: Scoring, classes: Classes) -> Classes:
    """Correct the classes by the majority of the passes.

    Class 0 receives every answer that most passes found correct. It loses every answer that most passes found wrong.
    """
    shares = {answer: mean([correct.get((gold, answer)) for correct in scoring]) for answer in classes}
    found = dict(classes)
    for answer, share in shares.items():
        if share is not None and share > 0.5:
            found[answer] = 0
        elif share is not None and share < 0.5 and classes[answer] == 0:
            found[answer] = -1  # equal to the gold answer by rule alone
    return found


def _scores(gold: str, round_: PredictedIteration, correct: Correct, classes: Classes, widths: Sequence[int]) -> Scores:
    candidates, selected = round_.samples, round_.selected
    verdicts = judged(gold, candidates, correct)
    return {
        **{f"pass_at_{k}": _pass_at(k, verdicts) for k in (1, *widths)},
        "selected": mean(judged(gold, [selected], correct)) if selected else 0.0 if candidates else None,
        "vote": _vote(candidates, verdicts, classes) if candidates else None,
        "best_of": _best_of(candidates, verdicts),
    }


def _pass_at(k: int, verdicts: Sequence[bool | None]) -> float | None:
    """Compute pass@k over the decided candidates.

    If fewer than k are decided, the value is taken over all candidates. It is None if it depends on the undecided ones.
    """
    decided = [verdict for verdict in verdicts if verdict is not None]
    if len(decided) >= k:
        return pass_at_k(sum(decided), len(decided), k)
    most = sum(decided) + len(verdicts) - len(decided)
    low, high = (pass_at_k(right, len(verdicts), k) for right in (sum(decided), most))
    return low if low == high else None


def _vote(candidates: Sequence[PredictedCandidate], verdicts: Sequence[bool | None], classes: Classes) -> float | None:
    """Return the share of correct answers in the largest class, or the mean over tied classes; 0 without answers."""
    votes = [(classes[c.answer], v) for c, v in zip(candidates, verdicts, strict=True) if c.answer is not None]
    sizes = Counter(class_ for class_, _ in votes)
    largest = [class_ for class_, size in sizes.items() if size == max(sizes.values())]
    return mean([mean([v for c, v in votes if c == class_]) for class_ in largest]) if votes else 0.0


def _best_of(candidates: Sequence[PredictedCandidate], verdicts: Sequence[bool | None]) -> float | None:
    """Return the share of correct candidates among those with the highest mean grade; None if none was graded."""
    graded = [(c.mean_grade, v) for c, v in zip(candidates, verdicts, strict=True) if c.mean_grade is not None]
    best = max((grade for grade, _ in graded), default=None)
    return mean([v for grade, v in graded if grade == best])


def undecided(lines: Sequence[Prediction], scoring: Scoring, t: int) -> float:
    """Number of undecided candidates in iteration t, averaged over the passes."""
    counts = [sum(verdict is None for _, verdict in _verdicts(lines, correct, t)) for correct in scoring]
    return sum(counts) / len(counts)


def by_mode(lines: Sequence[Prediction], scoring: Scoring, t: int) -> dict[str, ModeCounts]:
    """Count the candidates of iteration t by mode, with the share of correct ones among the decided candidates."""
    found = [pair for correct in scoring for pair in _verdicts(lines, correct, t)]
    modes = sorted({candidate.mode for candidate, _ in found})
    return {
        mode: ModeCounts(
            candidates=sum(c.mode == mode for c, _ in found) / len(scoring),
            accuracy=mean([verdict for c, verdict in found if c.mode == mode]),
        )
        for mode in modes
    }


def _verdicts(lines: Sequence[Prediction], correct: Correct, t: int) -> list[tuple[PredictedCandidate, bool | None]]:
    found = [(line.gold, line.iterations[t].samples) for line in lines if line.gold and len(line.iterations) > t]
    return [pair for gold, c in found for pair in zip(c, judged(gold, c, correct), strict=True)]
