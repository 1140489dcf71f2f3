"""The totals of a run, computed from its prediction and failure lines: ``metrics.json`` and the tables at the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tmas.records import Experience, Guideline, Usage
from tmas.records.prices import Price, cost_of
from tmas.records.run_files import FailureLine, IterationMetrics, Metrics, Prediction
from tmas.run.health import replies_by_role


def metrics(
    lines: Sequence[Prediction], failures: Iterable[FailureLine] = (), prices: Mapping[str, Price] | None = None
) -> Metrics:
    """Compute the totals by iteration and by role from the lines of predictions.jsonl and failures.jsonl.

    ``prices``: the price of each role's model; without any, ``cost`` is None.

    Rates are None if they cannot be computed (no gold answers, no grades). ``pass_at_1`` is the mean correctness over
    an iteration's candidates, as in the paper. A candidate that failed or gave no answer is not correct. Neither is one
    whose answer is undecided by rule; ``undecided`` counts these, and in ``pass_at_1_upper`` they count as correct. One
    that was never sampled (see :data:`~tmas.records.NOT_SAMPLED`) is left out. A problem that stopped keeps its last
    iteration in all later ones, so that their rates and means are over the same problems and can be compared. The
    counts of an iteration (``problems``, ``candidates``, ``failed``, ``explore``, ``usage``) are over the problems that
    ran it.
    """
    depth = max((len(line.iterations) for line in lines), default=0)
    usage = _usage_by_role(lines)
    return Metrics(
        problems=len(lines),
        stops=dict(Counter(line.stop for line in lines)),
        answered=sum(line.answer is not None for line in lines),
        selected_accuracy=_rate([line.correct for line in lines if line.gold is not None]),
        selected_undecided=sum(line.correct == "undecided" for line in lines),
        iterations=tuple(_iteration(t, lines) for t in range(depth)),
        usage=usage,
        cost=cost_of(usage, prices) if prices else None,
        failures=dict(Counter(line.reason.value for line in failures)),
        packed_prompts=sum(line.packed_prompts for line in lines),
        replies=replies_by_role(counts for line in lines for counts in line.replies),
    )


def _iteration(t: int, lines: Sequence[Prediction]) -> IterationMetrics:
    ran = [line.iterations[t] for line in lines if len(line.iterations) > t]
    new = [candidate for r in ran for candidate in r.candidates]
    last = [(line, r) for line in lines for r in line.iterations[: t + 1][-1:]]
    sampled = [(line, candidate) for line in lines for r in line.rounds[: t + 1][-1:] for candidate in r.samples]
    judged = [candidate.correct for line, candidate in sampled if line.gold is not None]
    usage = [entry.usage for line in lines for entry in line.usage if entry.iteration == t]
    return IterationMetrics(
        iteration=t,
        problems=len(ran),
        candidates=len(new),
        failed=sum(c.failure is not None for c in new),
        explore=sum(c.mode == "explore" for c in new),
        pass_at_1=_rate(judged),
        pass_at_1_upper=_rate(judged, ("equal", "undecided")),
        undecided=judged.count("undecided"),
        selected_accuracy=_rate([r.selected_correct for line, r in last if line.gold is not None]),
        mean_grade=_mean([c.mean_grade for _, c in sampled if c.mean_grade is not None]),
        experience_items=_mean([_count_valid(r.experience_bank) for _, r in last]),
        guideline_items=_mean([_count_valid(r.guideline_bank) for _, r in last]),
        usage=sum(usage, Usage()),
    )


def _rate(verdicts: Sequence[str | None], right: Sequence[str] = ("equal",)) -> float | None:
    """Share of the verdicts that are in ``right``. A None counts as a verdict: no answer, or a failed candidate."""
    return _mean([verdict in right for verdict in verdicts])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _usage_by_role(lines: Sequence[Prediction]) -> dict[str, Usage]:
    totals: defaultdict[str, Usage] = defaultdict(Usage)
    for line in lines:
        for entry in line.usage:
            totals[entry.role] += entry.usage
    return dict(totals)


def _count_valid(bank: Sequence[Experience | Guideline]) -> int:
    """The number of items that are not refuted."""
    return sum(item.refuted is None for item in bank)
