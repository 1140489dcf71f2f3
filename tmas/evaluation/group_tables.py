"""Prints tables of groups of runs in a terminal: the overview, differences at equal iterations, and the boundary."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tmas.evaluation.cells import interval, new_table, points, print_fitting, short
from tmas.evaluation.paired import PAIRED_METRICS
from tmas.records.comparison_files import ComparedGroup, MethodComparison
from tmas.records.evaluation_files import Boundary, DifferencesByIteration, Estimate
from tmas.records.prices import money

TITLES = {"pass_at_1": "Pass@1", "selected": "selected"}
Column = tuple[str, Callable[[ComparedGroup, str], str]]
"""Heading of a column of the overview, and a function that returns the text of a group's cell.

The second argument of the function separates the parts of the cell.
"""
COLUMNS: list[Column] = [
    ("seeds", lambda group, _: str(len(group.seeds))),
    ("tokens", lambda group, _: short(group.tokens_per_problem)),
]
"""The columns before the metrics."""


def print_overview(console: Console, found: MethodComparison, confidence: float) -> None:
    """Print one row per method: its seeds, tokens and final accuracy, and its difference to the first method."""
    costs: list[Column] = [(found.currency, lambda group, _: money(group.cost_per_problem))] if found.currency else []
    columns = [*COLUMNS, *costs, *(column for metric in PAIRED_METRICS for column in _metric_columns(metric))]

    def build(separator: str) -> Table:
        table = new_table(["method", *(name for name, _ in columns)])
        for group in found.groups:
            table.add_row(Text(group.label), *(text(group, separator) for _, text in columns))
        return table

    first = found.groups[0].label
    has_bounds = any(group.final[metric].bound is not None for group in found.groups for metric in PAIRED_METRICS)
    bounds = " ≥ and ≤: the bounds that undecided answers allow." if has_bounds else ""
    title = f"Methods on {found.benchmark} after their last iteration ({found.scoring}; {confidence:.0%} intervals)"
    print_fitting(console, title, build)
    console.print(
        Text(
            f"Means over the {found.problems} problems that all methods have, and over seeds. tokens: per problem, "
            f"prompt and completion. diff.: percentage points over {first}, paired by problem; p: permutation test of "
            f"the signs, not corrected for multiple comparisons.{bounds} Methods with different tokens are compared at "
            "equal compute below."
        )
    )


def _metric_columns(metric: str) -> list[Column]:
    def difference(group: ComparedGroup, separator: str) -> str:
        paired = group.final_difference.get(metric)
        return "-" if paired is None else separator.join([points(paired.difference, separator, 0), f"p {_p(paired.p)}"])

    return [
        (TITLES[metric], lambda group, separator: interval(group.final[metric], separator)),
        ("diff.", difference),
    ]


def print_differences(console: Console, found: DifferencesByIteration) -> None:
    """Print the differences of a group to another one, in percentage points."""

    def build(separator: str) -> Table:
        table = new_table(["it", *(name for metric in PAIRED_METRICS for name in (TITLES[metric], "p"))])
        for steps in zip(*(found.differences[metric] for metric in PAIRED_METRICS), strict=True):
            cells = [text for step in steps for text in (points(step.difference, separator), _p(step.p))]
            table.add_row(str(steps[0].iteration), *cells)
        return table

    title = f"{found.label} minus {found.other} by iteration ({found.scoring}; percentage points)"
    print_fitting(console, title, build)
    first = found.differences[PAIRED_METRICS[0]]
    problems = first[0].difference.problems if first else 0
    seeds = f"{len(found.seeds)} and {len(found.other_seeds)} runs"
    p = "p: permutation test of the signs for each iteration, not corrected for multiple comparisons."
    console.print(Text(f"Paired by problem ({problems}), {seeds}; {p}"))


def print_boundary(console: Console, label: str, found: Boundary) -> None:
    """Print accuracy and verification by difficulty."""

    def build(separator: str) -> Table:
        table = new_table(["Pass@1", "problems", "right", "false accepts", "false rejects", "AUROC"])
        for one in found.bins:
            rates = (_percent(rate, separator) for rate in (one.accuracy, one.false_accept, one.false_reject))
            table.add_row(f"{one.low:g}-{one.high:g}", str(one.problems), *rates, _auroc(one.auroc, separator))
        return table

    print_fitting(console, f"{label}: generation and verification by difficulty", build)
    source = "iteration 0 of the other seeds"
    if found.difficulty_from == "iteration_0":
        source = "iteration 0 (the figures are those of the later iterations)"
    left_out = f"; {found.left_out} problems left out" if found.left_out else ""
    console.print(Text(f"Rows: the problem's Pass@1 in {source}{left_out}. AUROC: within problems."))


def _percent(estimate: Estimate, separator: str) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    return separator.join([f"{100 * estimate.value:.0f}", f"[{100 * estimate.low:.0f},{100 * estimate.high:.0f}]"])


def _auroc(estimate: Estimate, separator: str) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    return separator.join([f"{estimate.value:.2f}", f"[{estimate.low:.2f},{estimate.high:.2f}] ({estimate.problems})"])


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
