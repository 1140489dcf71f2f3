"""The effect of the memory: sizes and turnover of the banks, and candidates by mode."""

from __future__ import annotations

from collections.abc import Sequence

from tmas.records.evaluation_files import ROUNDING
from tmas.report.bank_items import bank_item_tables
from tmas.report.items import Cell, Choice, ItemRow, Lines, Option, Point, Section, Series, Table
from tmas.report.runs import ReportedRun, ReportedRuns

Counted = tuple[float, float | None, float | None]
"""The number of candidates in an iteration, and the bounds of the fraction that is correct (None if unknown)."""
BANKS = {"experience": "Experience bank", "guideline": "Guideline bank"}
CHANGES = ("added", "merged", "confirmed", "corrected", "contradicted", "dropped", "refused", "evicted")
RARE = ("contradicted", "refused")
"""Changes that are only shown if a run has some."""
FIELDS = {
    "size": "items",
    "turnover": "share of items that changed",
    **{name: f"items {name}" for name in CHANGES},
}


def memory_section(runs: ReportedRuns, bank_items: int = 20) -> Section | None:
    """Return the tab, or None if no run keeps a bank or explores. ``bank_items``: number of items listed per run."""
    banks = {bank: kept for bank in BANKS if (kept := [run for run in runs.runs if _keeps(run, bank)])}
    modes = [
        run for run in runs.runs if any(len(i.modes.get(runs.scoring, {})) > 0 for i in run.evaluation.iterations[1:])
    ]
    if not banks and not modes:
        return None
    charts = Choice(
        "Shown",
        [
            Option(name, ItemRow([_chart(kept, bank, field) for bank, kept in banks.items()]))
            for field, name in FIELDS.items()
            if field not in RARE or any(_ever(run, bank, field) for bank, kept in banks.items() for run in kept)
        ],
    )
    return Section(
        "memory",
        "Memory and modes",
        [
            *([charts] if banks else []),
            *([_modes(modes, runs.scoring)] if modes else []),
            *bank_item_tables([run for run in runs.runs if _keeps_any(run)], runs.scoring, bank_items),
        ],
        "Means over problems. A candidate explores when it is asked for a strategy that is not in the guideline bank.",
    )


def _keeps(run: ReportedRun, bank: str) -> bool:
    return _ever(run, bank, "size")


def _keeps_any(run: ReportedRun) -> bool:
    return any(_keeps(run, bank) for bank in BANKS)


def _ever(run: ReportedRun, bank: str, field: str) -> bool:
    return any(_field(run, t, bank, field) for t in range(_depth(run)))


def _chart(runs: Sequence[ReportedRun], bank: str, field: str) -> Lines:
    return Lines(
        title=f"{BANKS[bank]}: {FIELDS[field]}",
        x_label="iteration",
        y_label=FIELDS[field],
        series=[Series(run.name, run.color, _points(run, bank, field)) for run in runs],
        percent=field == "turnover",
    )


def _points(run: ReportedRun, bank: str, field: str) -> list[Point]:
    values = [_field(run, t, bank, field) for t in range(_depth(run))]
    return [Point(t, value) for t, value in enumerate(values) if value is not None]


def _depth(run: ReportedRun) -> int:
    return len(run.evaluation.iterations)


def _field(run: ReportedRun, t: int, bank: str, field: str) -> float | None:
    return getattr(run.evaluation.iterations[t].banks[bank], field)


def _modes(runs: Sequence[ReportedRun], scoring: str) -> Table:
    """Count each mode's candidates over all iterations, and give the fraction that is correct."""
    return Table(
        title="Candidates by mode",
        columns=["Run", "Mode", "Candidates", "Share right"],
        rows=[[run.name, mode, f"{sum(count for count, *_ in found):,.0f}", _right(found)]
              for run in runs for mode, found in _by_mode(run, scoring).items()],
        text_columns=2,
    )  # fmt: skip


def _by_mode(run: ReportedRun, scoring: str) -> dict[str, list[Counted]]:
    found: dict[str, list[Counted]] = {}
    for iteration in run.evaluation.iterations:
        for mode, counts in iteration.modes.get(scoring, {}).items():
            found.setdefault(mode, []).append((counts.candidates, counts.accuracy, counts.upper))
    return found


def _right(found: Sequence[Counted]) -> str | Cell:
    known = [(count, low, low if high is None else high) for count, low, high in found if low is not None]
    total = sum(count for count, *_ in known)
    if not total:
        return "–"
    low, high = (sum(one[0] * one[bound] for one in known) / total for bound in (1, 2))
    note = f"{high:.1%} if all undecided answers are right" if high - low > ROUNDING else ""
    return Cell(f"{low:.1%}", note) if note else f"{low:.1%}"
