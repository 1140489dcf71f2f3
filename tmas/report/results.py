"""Compares how methods scale: accuracy by iteration, tokens and money, Table 1, methods at equal compute and cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tmas.evaluation.cells import short
from tmas.evaluation.compare import Group, by_benchmark, shared_currency
from tmas.records.prices import money
from tmas.report.items import Choice, ItemRow, Lines, Note, Option, Point, Section, Series, Stack, Table, Tile, Tiles
from tmas.report.runs import ReportedRuns, labels_on_benchmarks
from tmas.report.scores import Scores
from tmas.report.tables import (
    equal_compute,
    equal_cost,
    equal_iterations,
    no_equal_cost,
    overview,
    table_1,
    upper_note,
)

Axis = Literal["iteration", "tokens", "money"]
"""The horizontal axis of a chart of accuracy."""
SCORINGS = {"rule": "by rule (math-verify)", "judge": "an LLM judge, its passes averaged"}
INTERVALS = {
    "auto": "Student's t for differences and for fewer than {few_problems} problems, otherwise BCa bootstrap, "
    "{resamples} resamples",
    "t": "Student's t",
    "bca": "BCa bootstrap, {resamples} resamples",
    "percentile": "percentile bootstrap, {resamples} resamples",
}
INTRO = (
    "Intervals: {confidence:.0%}, over problems ({interval}). Correctness: {scoring}. "
    "A problem that ended early carries its last iteration forward. Undecided answers count as wrong; ≤ and ≥ show the "
    "bounds that they allow."
)


def results_section(runs: ReportedRuns) -> Section:
    """Return the first tab. Without gold answers, it only says that there are none."""
    scores = Scores(runs)
    if not scores.groups:
        return Section("results", "Results", [Note("No problem has a gold answer, so no accuracy can be given.")])
    intro = INTRO.format(
        confidence=runs.bootstrap.confidence,
        interval=INTERVALS[runs.bootstrap.interval].format(**runs.bootstrap.model_dump()),
        scoring=SCORINGS[runs.scoring],
    )
    measures = Choice("Measure", [Option(name, _of_metric(scores, metric)) for metric, name in scores.metrics.items()])
    return Section("results", "Results", [_tiles(scores), *_overviews(scores), measures, *_without_cost(scores)], intro)


def _overviews(scores: Scores) -> list[Table]:
    """Return a table of all methods for each benchmark with several methods."""
    benchmarks = by_benchmark(scores.groups)
    found = [
        overview(scores, groups, f" on {name}" if len(benchmarks) > 1 else "")
        for name, groups in benchmarks.items()
        if len(groups) > 1
    ]
    return [table for table in found if table is not None]


def _without_cost(scores: Scores) -> list[Note]:
    """Say once for all metrics of a benchmark why its methods are not compared at equal cost."""
    benchmarks = by_benchmark(scores.groups)
    reasons = {name: no_equal_cost(groups) for name, groups in benchmarks.items()}
    if len({*reasons.values()}) == 1:
        return [Note(f"Not compared at equal cost: {reason}") for reason in {*reasons.values()} if reason]
    return [Note(f"Not compared at equal cost on {name}: {reason}") for name, reason in reasons.items() if reason]


def _tiles(scores: Scores) -> Tiles:
    labels = labels_on_benchmarks(scores.groups)
    return Tiles([_tile(scores, group, labels[group.runs]) for group in scores.groups])


def _tile(scores: Scores, group: Group, label: str) -> Tile:
    end = scores.accuracy(group, "selected", group.depth - 1)
    value = "–" if end.value is None else f"{100 * end.value:.1f} %"
    if end.bound is not None:
        value = f"{100 * (end.value or 0):.1f}–{100 * end.bound:.1f} %"
    undecided = "; the higher value counts undecided answers as right" if end.bound is not None else ""
    cost = "" if group.cost is None else f", {money(group.cost, group.currency)} each"
    note = f"of selected answers are right{undecided}. {end.problems} problems, {short(group.tokens)} tokens each{cost}"
    return Tile(label, value, note)


def _of_metric(scores: Scores, metric: str) -> Stack:
    benchmarks = by_benchmark(scores.groups)
    where = {name: f" on {name}" if len(benchmarks) > 1 else "" for name in benchmarks}
    charts = [
        ItemRow([_chart(scores, groups, metric, by, where[name]) for by in _axes(scores, groups)])
        for name, groups in benchmarks.items()
    ]
    compared = [
        table
        for name, groups in benchmarks.items()
        for at_equal in (equal_compute, equal_cost)
        if (table := at_equal(scores, groups, metric, where[name])) is not None
    ]
    paired = [
        equal_iterations(scores, groups, metric, where[name]) for name, groups in benchmarks.items() if len(groups) > 1
    ]
    return Stack([*charts, table_1(scores, metric), *compared, *paired])


def _axes(scores: Scores, groups: Sequence[Group]) -> list[Axis]:
    """The axes of the charts: money only if all costs are known, in the same currency."""
    is_priced = shared_currency(groups) is not None and all(group.runs in scores.costs for group in groups)
    return ["iteration", "tokens", "money"] if is_priced else ["iteration", "tokens"]


def _chart(scores: Scores, groups: Sequence[Group], metric: str, by: Axis, where: str) -> Lines:
    name = scores.metrics[metric]
    labels = {
        "iteration": "iteration",
        "tokens": "tokens a problem, prompt and completion (log)",
        "money": f"cost of a problem, {groups[0].currency} (log)",
    }
    return Lines(
        title=f"{name} by {by}{where}",
        x_label=labels[by],
        y_label=name,
        series=[_curve(scores, group, metric, by) for group in groups],
        percent=True,
        log_x=by != "iteration",
    )


def _curve(scores: Scores, group: Group, metric: str, by: Axis) -> Series:
    if by == "iteration":
        xs: Sequence[float] = range(group.depth)
    else:
        xs = (scores.tokens if by == "tokens" else scores.costs)[group.runs]
    found = [(x, scores.accuracy(group, metric, t)) for t, x in enumerate(xs)]
    points = [Point(x, e.value, e.low, e.high, upper_note(e) or None) for x, e in found if e.value is not None]
    return Series(group.label, scores.colors[group.runs], points)
