"""Figures of an iteration that do not depend on correctness: candidates, failures, memory banks and tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tmas.evaluation.estimators import mean
from tmas.records import BankChange, Usage, UsageEntry
from tmas.records.evaluation_files import BankFacts, MeanTokens
from tmas.records.prices import Price, cost_of_entries
from tmas.records.run_files import PredictedIteration, Prediction

BANKS = ("experience", "guideline")
CHANGES = ("added", "merged", "confirmed", "corrected", "contradicted", "dropped", "refused", "evicted")


def iteration_facts(lines: Sequence[Prediction], t: int, prices: Mapping[str, Price]) -> dict[str, Any]:
    """Return the fields of ``EvaluatedIteration`` that do not depend on correctness.

    ``prices``: role -> price of its model. The fields cover the problems that reached iteration t, except
    ``cumulative``, which is a mean over all problems.
    """
    running = [line for line in lines if len(line.iterations) > t]
    candidates = [c for line in running for c in line.iterations[t].candidates]
    return {
        "iteration": t,
        "running": len(running),
        "candidates": len(candidates),
        "failed": dict(Counter(c.failure for c in candidates if c.failure)),
        "no_answer": sum(c.answer is None and not c.failure for c in candidates),
        "mean_grade": mean([c.mean_grade for c in candidates]),
        "explore_share": mean([float(c.mode == "explore") for c in candidates]),
        "banks": {bank: _bank(running, bank, t) for bank in BANKS},
        "usage": usage_by_role(entry for line in lines for entry in line.usage if entry.iteration == t),
        "cumulative": _mean_tokens(
            [tokens_until(line, t) for line in lines], [cost_until(line, t, prices) for line in lines]
        ),
    }


def usage_by_role(entries: Iterable[UsageEntry]) -> dict[str, Usage]:
    """Sum the ``usage`` entries of prediction lines by role."""
    totals: dict[str, Usage] = {}
    for entry in entries:
        totals[entry.role] = totals.get(entry.role, Usage()) + entry.usage
    return {role: totals[role] for role in sorted(totals)}


def tokens_until(line: Prediction, t: int) -> Usage:
    """Sum the usage of a problem up to the end of iteration t."""
    return sum((entry.usage for entry in line.usage if entry.iteration <= t), Usage())


def cost_until(line: Prediction, t: int, prices: Mapping[str, Price]) -> float | None:
    """What a problem cost up to the end of iteration t. None if a price is not known."""
    return cost_of_entries((entry for entry in line.usage if entry.iteration <= t), prices)


def _mean_tokens(spent: Sequence[Usage], costs: Sequence[float | None]) -> MeanTokens:
    total = sum(spent, Usage())
    return MeanTokens(
        prompt_tokens=total.prompt_tokens / len(spent),
        cached_prompt_tokens=total.cached_prompt_tokens / len(spent),
        completion_tokens=total.completion_tokens / len(spent),
        cost=None if None in costs else mean(costs),
    )


def _bank(lines: Sequence[Prediction], bank: str, t: int) -> BankFacts:
    """Compute the means over problems for one bank in iteration t.

    ``turnover``: number of items that the iteration added or removed, divided by the number of all items that were in
    the bank before or after it.
    """
    changes = [change for line in lines if (change := _change(line.iterations[t], bank))]
    return BankFacts(
        size=mean([float(len(_items(line, bank, t))) for line in lines]),
        turnover=mean([_turnover(_items(line, bank, t - 1), _items(line, bank, t)) for line in lines]),
        **{name: mean([float(len(getattr(change, name))) for change in changes]) for name in CHANGES},
    )


def _items(line: Prediction, bank: str, t: int) -> set[str]:
    if t < 0:
        return set()
    found = line.iterations[t]
    items = found.experience_bank if bank == "experience" else found.guideline_bank
    return {item.item_id for item in items if item.refuted is None}


def _change(iteration: PredictedIteration, bank: str) -> BankChange | None:
    return iteration.experience_change if bank == "experience" else iteration.guideline_change


def _turnover(before: set[str], after: set[str]) -> float | None:
    return len(before ^ after) / len(before | after) if before | after else None
