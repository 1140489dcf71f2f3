"""The totals of a run, computed from its prediction lines alone: ``metrics.json`` and the tables shown at the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from tmas.records import Usage
from tmas.run.results import Line, rounds, samples


def metrics(lines: Sequence[Line], failures: Iterable[Line] = ()) -> dict[str, Any]:
    """``lines`` of predictions.jsonl and of failures.jsonl to totals by iteration and by role.

    Rates are None where nothing can be said (no gold answers, no grades). ``pass_at_1`` is the mean correctness over
    an iteration's candidates (the paper's), a candidate that failed or gave no answer counting as not correct. One
    whose answer is undecided by rule is left out and counted apart; one that never came about (see
    :data:`~tmas.records.NOT_SAMPLED`) is left out. A problem that stopped keeps its last iteration in all
    later ones, so that their rates and means are over the same problems and can be compared; what an iteration counts
    (``problems``, ``candidates``, ``failed``, ``explore``, ``usage``) is of the problems that ran it.
    """
    depth = max((len(line["iterations"]) for line in lines), default=0)
    return {
        "problems": len(lines),
        "stops": dict(Counter(line["stop"] for line in lines)),
        "answered": sum(line["answer"] is not None for line in lines),
        "selected_accuracy": _rate([line["correct"] for line in lines if _has_gold(line)]),
        "selected_undecided": sum(line["correct"] == "undecided" for line in lines),
        "iterations": [_iteration(t, lines) for t in range(depth)],
        "usage": {role: usage.model_dump() for role, usage in _usage_by_role(lines).items()},
        "failures": dict(Counter(line["reason"] for line in failures)),
        "packed_prompts": sum(line["packed_prompts"] for line in lines),
    }


def _iteration(t: int, lines: Sequence[Line]) -> dict[str, Any]:
    ran = [line["iterations"][t] for line in lines if len(line["iterations"]) > t]
    new = [candidate for r in ran for candidate in r["candidates"]]
    last = [(line, r) for line in lines for r in line["iterations"][: t + 1][-1:]]
    sampled = [(line, candidate) for line in lines for r in rounds(line)[: t + 1][-1:] for candidate in samples(r)]
    judged = [candidate["correct"] for line, candidate in sampled if _has_gold(line)]
    grades = [candidate["mean_grade"] for _, candidate in sampled if candidate["mean_grade"] is not None]
    usage = [Usage(**u["usage"]) for line in lines for u in line["usage"] if u["iteration"] == t]
    return {
        "iteration": t,
        "problems": len(ran),
        "candidates": len(new),
        "failed": sum(c["failure"] is not None for c in new),
        "explore": sum(c["mode"] == "explore" for c in new),
        "pass_at_1": _rate(judged),
        "undecided": judged.count("undecided"),
        "selected_accuracy": _rate([r["selected_correct"] for line, r in last if _has_gold(line)]),
        "mean_grade": _mean(grades),
        "experience_items": _mean([len(r["experience_bank"]) for _, r in last]),
        "guideline_items": _mean([len(r["guideline_bank"]) for _, r in last]),
        "usage": sum(usage, Usage()).model_dump(),
    }


def _has_gold(line: Line) -> bool:
    return line["gold"] is not None


def _rate(verdicts: Sequence[str | None]) -> float | None:
    """Share of ``equal`` among the decided; None (no answer, or a failed candidate) is decided: not correct."""
    return _mean([verdict == "equal" for verdict in verdicts if verdict != "undecided"])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _usage_by_role(lines: Sequence[Line]) -> dict[str, Usage]:
    totals: defaultdict[str, Usage] = defaultdict(Usage)
    for line in lines:
        for entry in line["usage"]:
            totals[entry["role"]] += Usage(**entry["usage"])
    return dict(totals)
