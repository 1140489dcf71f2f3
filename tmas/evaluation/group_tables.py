"""Prints the analyses of groups of runs in a terminal: differences at equal iterations, and the boundary analysis."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tmas.evaluation.paired import PAIRED_METRICS
from tmas.records.evaluation_files import Boundary, DifferencesByIteration, Estimate

TITLES = {"pass_at_1": "Pass@1", "selected": "selected"}


def print_differences(console: Console, found: DifferencesByIteration) -> None:
    """Print the differences of a group to another one, in percentage points."""
    console.print(Text(f"{found.label} minus {found.other} by iteration ({found.scoring}; percentage points)"))
    table = _table("it")
    for metric in PAIRED_METRICS:
        table.add_column(TITLES[metric], justify="right")
        table.add_column("p", justify="right")
    for steps in zip(*(found.differences[metric] for metric in PAIRED_METRICS), strict=True):
        cells = [text for step in steps for text in (_points(step.difference), _p(step.p))]
        table.add_row(str(steps[0].iteration), *cells)
    console.print(table)
    first = found.differences[PAIRED_METRICS[0]]
    problems = first[0].difference.problems if first else 0
    seeds = f"{len(found.seeds)} and {len(found.other_seeds)} runs"
    console.print(
        Text(f"Paired by problem ({problems}), {seeds}; p: permutation test of the signs, for a single iteration.")
    )


def print_boundary(console: Console, label: str, found: Boundary) -> None:
    """Print accuracy and verification by difficulty."""
    console.print(Text(f"{label}: generation and verification by difficulty"))
    table = _table("Pass@1", "problems", "right", "false accepts", "false rejects", "AUROC")
    for one in found.bins:
        name = f"{one.low:g}-{one.high:g}"
        rates = (_percent(rate) for rate in (one.accuracy, one.false_accept, one.false_reject))
        table.add_row(name, str(one.problems), *rates, _share(one.auroc))
    console.print(table)
    source = "iteration 0 of the other seeds" if found.difficulty_from == "other_seeds" else "iteration 0, not measured"
    left_out = f"; {found.left_out} problems left out" if found.left_out else ""
    console.print(Text(f"Rows: the problem's Pass@1 in {source}{left_out}. AUROC: within problems."))


def _table(*columns: str) -> Table:
    table = Table(box=box.SQUARE, padding=0)  # without a title: it would be wrapped to the width of the table
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _points(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f},{100 * estimate.high:+.1f}]"


def _percent(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    return f"{100 * estimate.value:.0f} [{100 * estimate.low:.0f},{100 * estimate.high:.0f}]"


def _share(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    return f"{estimate.value:.2f} [{estimate.low:.2f},{estimate.high:.2f}] ({estimate.problems})"


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
