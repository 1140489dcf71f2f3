"""What an iteration held and cost, whatever was correct: candidates, failures, banks, tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tmas.evaluation.estimators import mean
from tmas.evaluation.runs import Line
from tmas.records import Usage

BANKS = ("experience", "guideline")
CHANGES = ("added", "merged", "confirmed", "corrected", "dropped", "evicted")


def iteration_facts(lines: Sequence[Line], t: int) -> dict[str, Any]:
    """Counts are over the problems that had an iteration t; ``cumulative`` is a mean over all problems."""
    running = [line for line in lines if len(line["iterations"]) > t]
    candidates = [c for line in running for c in line["iterations"][t]["candidates"]]
    return {
        "iteration": t,
        "running": len(running),
        "candidates": len(candidates),
        "failed": dict(Counter(c["failure"] for c in candidates if c["failure"])),
        "no_answer": sum(c["answer"] is None and not c["failure"] for c in candidates),
        "mean_grade": mean([c["mean_grade"] for c in candidates]),
        "explore_share": mean([float(c["mode"] == "explore") for c in candidates]),
        "banks": {bank: _bank(running, bank, t) for bank in BANKS},
        "usage": usage_by_role(entry for line in lines for entry in line["usage"] if entry["iteration"] == t),
        "cumulative": _mean_tokens([tokens_until(line, t) for line in lines]),
    }


def usage_by_role(entries: Iterable[Line]) -> dict[str, Any]:
    """``usage`` entries of prediction lines, summed by role."""
    totals: dict[str, Usage] = {}
    for entry in entries:
        totals[entry["role"]] = totals.get(entry["role"], Usage()) + Usage(**entry["usage"])
    return {role: totals[role].model_dump() for role in sorted(totals)}


def tokens_until(line: Line, t: int) -> Usage:
    """All that a problem cost up to the end of iteration t."""
    return sum((Usage(**entry["usage"]) for entry in line["usage"] if entry["iteration"] <= t), Usage())


def usage_of(line: Line) -> Usage:
    """All that a problem cost, an iteration that its budget cut off too."""
    return sum((Usage(**entry["usage"]) for entry in line["usage"]), Usage())


def _mean_tokens(spent: Sequence[Usage]) -> dict[str, float]:
    total = sum(spent, Usage())
    return {
        "prompt_tokens": total.prompt_tokens / len(spent),
        "cached_prompt_tokens": total.cached_prompt_tokens / len(spent),
        "completion_tokens": total.completion_tokens / len(spent),
    }


def _bank(lines: Sequence[Line], bank: str, t: int) -> dict[str, float | None]:
    """Means over problems. ``turnover``: of the items before or after the iteration, the share not in both."""
    changes = [change for line in lines if (change := line["iterations"][t][f"{bank}_change"])]
    return {
        "size": mean([float(len(_items(line, bank, t))) for line in lines]),
        "turnover": mean([_turnover(_items(line, bank, t - 1), _items(line, bank, t)) for line in lines]),
        **{name: mean([float(len(change[name])) for change in changes]) for name in CHANGES},
    }


def _items(line: Line, bank: str, t: int) -> set[str]:
    return {item["item_id"] for item in line["iterations"][t][f"{bank}_bank"]} if t >= 0 else set()


def _turnover(before: set[str], after: set[str]) -> float | None:
    return len(before ^ after) / len(before | after) if before | after else None
