"""Tables of an evaluation in a terminal, and the texts in their cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tmas.records.evaluation_files import Estimate
from tmas.records.prices import money

LEFT = ("method", "role", "check")
"""Columns with words. Only they may be wrapped."""


def new_table(columns: Iterable[str]) -> Table:
    """Create a table without a title: a title would be wrapped to the width of the table."""
    table = Table(box=box.SQUARE, padding=0)
    for column in columns:
        is_left = column in LEFT
        table.add_column(column, justify="left" if is_left else "right", no_wrap=not is_left, overflow="fold")
    return table


def print_fitting(console: Console, title: str, build: Callable[[str], Table]) -> None:
    """Print a title and a table. ``build`` creates the table; its argument separates the parts of a cell.

    The parts are on one line if the table then fits the terminal, otherwise below each other.
    """
    table = build(" ")
    if Measurement.get(console, console.options.update(max_width=10**6), table).maximum > console.width:
        table = build("\n")
    console.print(Text(title))
    console.print(table)


def interval(estimate: Estimate, separator: str) -> str:
    """An accuracy in percent with its interval and, if there are undecided answers, its upper bound."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    parts = [f"{100 * estimate.value:.1f}", f"[{100 * estimate.low:.0f},{100 * estimate.high:.0f}]"]
    if estimate.bound is not None:
        parts.append(f"≤{100 * estimate.bound:.1f}")
    return separator.join(parts)


def points(estimate: Estimate, separator: str, digits: int = 1) -> str:
    """A difference in percentage points with its interval and the bounds that undecided answers allow."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    low, high = 100 * estimate.low, 100 * estimate.high
    parts = [f"{100 * estimate.value:+.1f}", f"[{low:+.{digits}f},{high:+.{digits}f}]"]
    if estimate.lower is not None and estimate.upper is not None:
        parts += [f"≥{100 * estimate.lower:+.1f}", f"≤{100 * estimate.upper:+.1f}"]
    return separator.join(parts)


def budget_text(budget: float, unit: str) -> str:
    """A rounded budget in tokens or money as text. Amounts below 1 have all digits, so that budgets stay distinct."""
    if unit == "tokens":
        return short(budget)
    return money(budget) if budget >= 1 else f"{Decimal(repr(budget)):f}"


def share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"


def short(value: float) -> str:
    """Format 12,345 as 12.3k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
