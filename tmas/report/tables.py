"""The paper's Table 1, and tables of methods at equal compute and at equal cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tmas.evaluation.cells import budget_text, short
from tmas.evaluation.compare import (
    Group,
    Unit,
    by_benchmark,
    final_results,
    rounded_up,
    rounded_up_money,
    shared_currency,
)
from tmas.evaluation.compute import Measure
from tmas.records.evaluation_files import Estimate, PairedDifference
from tmas.records.prices import money
from tmas.report.items import Cell, Span, Table
from tmas.report.scores import Scores

TABLE_1 = (1, 3, 9, 11, 17, 19)
"""The iterations in the paper's Table 1, counted from 0."""
BUDGETS = 6
"""Maximum number of budgets in a table at equal compute or cost."""
EQUAL_BUDGETS = (
    "Each problem counts with its last whole iteration within the budget, or, if its method has one round, with the "
    "samples that fit."
)
UNKNOWN_COST = (
    "The run recorded no price for one of its models, or a server reported no token counts. Prices can be given later: "
    "tmas evaluate runs=[...] price.input=... price.output=..."
)
OVERVIEW = ("pass_at_1", "selected")
"""The metrics in the table of all methods."""


def overview(scores: Scores, groups: Sequence[Group], where: str) -> Table | None:
    """Return one row per method of a benchmark: its final accuracy and its difference to the first method.

    Only problems that all methods have are compared. Returns None if there is no such problem.
    """
    common = set.intersection(*(group.problems for group in groups))
    if not common:
        return None
    first, *_ = kept = [group.only(common) for group in groups]
    found = [final_results(group, first, scores.scoring, scores.bootstrap) for group in kept]
    columns: list[tuple[str, Sequence[str | Cell]]] = [
        ("Method", [group.label for group in kept]),
        ("Seeds", [str(len(group.seeds)) for group in kept]),
        ("Tokens", [short(group.tokens) for group in kept]),
    ]
    currency = shared_currency(groups)
    if currency is not None:
        columns.append((f"Cost ({currency})", [money(group.cost) for group in kept]))
    for metric in OVERVIEW:
        columns.append((f"{scores.metrics[metric]} (%)", cells([final[metric] for final, _ in found])))
        columns.append((f"minus {first.label}", [paired_cell(paired.get(metric)) for _, paired in found]))
    return Table(
        title=f"Methods after their last iteration{where}",
        columns=[name for name, _ in columns],
        rows=[*zip(*(column for _, column in columns), strict=True)],
        note=f"Means over the {len(common)} problems that all methods have, and over seeds. Tokens: per problem, "
        f"prompt and completion. {'Cost: per problem. ' if currency else ''}Differences are in percentage points and "
        "paired by problem; if the interval does not contain 0, the difference is more than chance. p: permutation "
        "test of the signs, not corrected for multiple comparisons. Methods that took different numbers of tokens are "
        "compared at equal compute below.",
    )


def table_1(scores: Scores, metric: str) -> Table:
    """Return Table 1 of the paper: rows by model and method, columns by benchmark and iteration.

    A benchmark with few iterations shows all of them. Otherwise, the first and last iterations are shown in addition to
    those of the paper.
    """
    columns = [(b, t) for b in by_benchmark(scores.groups) for t in _iterations(scores.groups, b)]
    rows: list[Sequence[str | Cell]] = []
    for model in _distinct(scores.groups, _model):
        own = [group for group in scores.groups if _model(group) == model]
        labels = list(dict.fromkeys(group.label for group in own))
        on = {(group.label, group.benchmark): group for group in own}
        filled = [cells([_after(scores, on.get((label, b)), metric, t) for label in labels]) for b, t in columns]
        rows += [[model], *zip(labels, *filled, strict=True)]
    benchmarks = [benchmark for benchmark, _ in columns]
    return Table(
        title=f"Table 1: {scores.metrics[metric]} (%) by iteration",
        columns=["Method", *(f"It {t}" for _, t in columns)],
        rows=rows,
        groups=[Span("", 1), *(Span(b, benchmarks.count(b)) for b in dict.fromkeys(benchmarks))],
        note="Iterations are counted from 0, as in the paper. A method with fewer of them has no entry.",
    )


def _iterations(groups: Sequence[Group], benchmark: str) -> list[int]:
    last = max(group.depth for group in groups if group.benchmark == benchmark) - 1
    return list(range(last + 1)) if last < len(TABLE_1) else sorted({0, *(t for t in TABLE_1 if t <= last), last})


def _after(scores: Scores, group: Group | None, metric: str, t: int) -> Estimate | None:
    return scores.accuracy(group, metric, t) if group and t < group.depth else None


def _model(group: Group) -> str:
    return ", ".join(dict.fromkeys(group.evaluations[0].run.models.values()))


def _distinct(groups: Sequence[Group], name: Callable[[Group], str]) -> list[str]:
    return list(dict.fromkeys(map(name, groups)))


def equal_iterations(scores: Scores, groups: Sequence[Group], metric: str, where: str) -> Table:
    """Subtract a benchmark's first group from each of the others, after the iterations that both reached."""
    first, *others = groups
    columns = _iterations(scores.groups, first.benchmark)
    return Table(
        title=f"{scores.metrics[metric]} minus {first.label} (percentage points) by iteration{where}",
        columns=["Method", *(f"It {t}" for t in columns)],
        rows=[[group.label, *(_difference(scores, group, first, metric, t) for t in columns)] for group in others],
        note="Paired by problem, over the problems that both have, with the seeds of a method averaged. If the "
        "interval does not contain 0, the difference is more than chance. p: permutation test of the signs for this "
        "iteration, not corrected for multiple comparisons.",
    )


def _difference(scores: Scores, group: Group, first: Group, metric: str, t: int) -> str | Cell:
    if t >= min(group.depth, first.depth):
        return ""
    return paired_cell(scores.difference_after(group, first, metric, t))


def paired_cell(found: PairedDifference | None) -> str | Cell:
    """Format a paired difference in percentage points. It is marked if its interval does not contain 0."""
    return "" if found is None else difference_cell(found.difference, "" if found.p is None else f"p {found.p:.3f}")


def difference_cell(difference: Estimate, p: str = "") -> str | Cell:
    """Format a difference in percentage points, with the bounds that undecided answers allow."""
    value, low, high = difference.value, difference.low, difference.high
    if value is None or low is None or high is None:
        return ""
    parts = [f"{100 * low:+.1f} to {100 * high:+.1f}", p]
    if difference.lower is not None and difference.upper is not None:
        parts.append(f"≥{100 * difference.lower:+.2f}, ≤{100 * difference.upper:+.2f}")
    return Cell(f"{100 * value:+.2f}", "; ".join(filter(None, parts)), strong=low * high > 0)


def equal_compute(scores: Scores, groups: Sequence[Group], metric: str, where: str) -> Table:
    """Compare a benchmark's groups at equal token budgets.

    Budgets range from the smallest one at which every group has a value to the most tokens that any problem took.
    """
    columns = _at_budgets(scores, groups, metric, "tokens", "tokens")
    return Table(
        title=f"{scores.metrics[metric]} (%) at equal compute{where}",
        columns=["Method", *columns],
        rows=[*zip([group.label for group in groups], *columns.values(), strict=True)],
        note=f"Tokens per problem. {EQUAL_BUDGETS} Differences are paired by problem, at the largest budget that any "
        "problem of the cheaper method used. If the interval does not contain 0, the difference is more than chance.",
    )


def equal_cost(scores: Scores, groups: Sequence[Group], metric: str, where: str) -> Table | None:
    """Compare a benchmark's groups at equal costs, as :func:`equal_compute` does with tokens.

    A group whose cost is not known has a row that says so. Returns None if :func:`no_equal_cost` has a reason.
    """
    if no_equal_cost(groups):
        return None
    known = [group for group in groups if group.currency]
    currency = str(known[0].currency)
    columns = _at_budgets(scores, known, metric, "money", currency)
    rows: dict[str, Sequence[str | Cell]] = {
        group.label: row for group, row in zip(known, zip(*columns.values(), strict=True), strict=True)
    }
    unknown = ["unknown", *[""] * (len(columns) - 1)]
    return Table(
        title=f"{scores.metrics[metric]} (%) at equal cost{where}",
        columns=["Method", *columns],
        rows=[[group.label, *rows.get(group.label, unknown)] for group in groups],
        note=f"Cost per problem in {currency}, at the prices in evaluation.json. {EQUAL_BUDGETS} Differences: "
        f"paired as in the table at equal compute.{f' unknown: {UNKNOWN_COST}' if len(known) < len(groups) else ''}",
    )


def no_equal_cost(groups: Sequence[Group]) -> str:
    """Return why groups cannot be compared at equal cost; empty if they can."""
    currencies = sorted({group.currency for group in groups if group.currency})
    if not currencies:
        return f"no cost is known. {UNKNOWN_COST}"
    return "" if len(currencies) == 1 else f"the costs are in {' and '.join(currencies)}."


def _at_budgets(
    scores: Scores, groups: Sequence[Group], metric: str, unit: Unit, name: str
) -> dict[str, list[str | Cell]]:
    """Return the columns of a table at equal budgets, by heading: one per budget, and the differences to the first.

    ``name``: the name of the unit, or the currency.
    """
    measure = Measure(metric, scores.scoring, unit)
    low = max(group.first_spent(measure) for group in groups)
    most = {group.runs: group.largest_spent(measure) for group in groups}
    budgets = _budgets(low, max(low, *most.values()), unit)
    columns = {
        f"{budget_text(b, unit)} {name}": cells([scores.accuracy_at(group, measure, b) for group in groups])
        for b in budgets
    }
    first, *others = groups
    if others:
        shared = [(group, min(most[first.runs], most[group.runs])) for group in others]
        differences = [difference_cell(scores.difference_at(group, first, measure, b)) for group, b in shared]
        columns[f"minus {first.label}"] = ["", *differences]
    return columns


def _budgets(low: float, high: float, unit: Unit) -> list[float]:
    """Return round budgets from ``low`` to ``high``, spaced by roughly equal ratios."""
    if low <= 0:  # nothing was spent, or everything was free
        return [high]
    rounded = rounded_up if unit == "tokens" else rounded_up_money
    ratio = (high / low) ** (1 / (BUDGETS - 1))
    return sorted({rounded(low * ratio**i) for i in range(BUDGETS)})


def cells(column: Sequence[Estimate | None]) -> list[str | Cell]:
    """Return the cells of a column. The best value is marked if there are others to compare."""
    values = [estimate.value for estimate in column if estimate and estimate.value is not None]
    best = max(values) if len(values) > 1 else None
    return [cell(estimate, best) for estimate in column]


def cell(estimate: Estimate | None, best: float | None = None) -> str | Cell:
    """Format an estimate in percent with its interval. The cell is empty if there is no estimate."""
    if estimate is None or estimate.value is None or estimate.low is None or estimate.high is None:
        return ""
    value, low, high = (100 * one for one in (estimate.value, estimate.low, estimate.high))
    upper = "" if estimate.bound is None else f"; ≤{100 * estimate.bound:.2f}"
    return Cell(f"{value:.2f}", f"{low:.1f} to {high:.1f}{upper}", strong=estimate.value == best)


def upper_note(estimate: Estimate) -> str:
    """Say which percentage the estimate has if undecided answers count as right; empty if there are none."""
    return "" if estimate.bound is None else f"{100 * estimate.bound:.2f} if all undecided answers are right"
