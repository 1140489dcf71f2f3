"""Shows accuracy and verification by difficulty, to see whether both fail on the same problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tmas.evaluation.boundary import BoundarySettings, boundary
from tmas.evaluation.compare import Group
from tmas.records.evaluation_files import Boundary, BoundaryBin, Estimate
from tmas.report.items import Cell, ItemRow, Lines, Point, Section, Series, Table
from tmas.report.runs import ReportedRuns, labels_on_benchmarks
from tmas.report.tables import cell

RATES: dict[str, Callable[[BoundaryBin], Estimate]] = {
    "Right candidates": lambda found: found.accuracy,
    "False accepts": lambda found: found.false_accept,
    "False rejects": lambda found: found.false_reject,
}
SOURCES = {
    "other_seeds": "Pass@1 in iteration 0 of the other seeds",
    "iteration_0": "Pass@1 in iteration 0, which is not measured",
}
INTRO = (
    "Difficulty: a problem's Pass@1, from samples that are not measured here. False accepts: wrong candidates with a "
    "mean grade of at least {accept_grade:g}. False rejects: right candidates with a lower grade. AUROC: within "
    "problems; 0.5 is guessing. Means over problems; intervals: {confidence:.0%}."
)
Found = tuple[int, Group, Boundary]
"""The palette number of a group, the group and its analysis."""


def boundary_section(runs: ReportedRuns) -> Section | None:
    """Return the tab, or None if the verifier graded no candidate except those that the difficulties come from."""
    settings = BoundarySettings.model_validate(runs.runs[0].evaluation.settings.boundary.model_dump())
    labels = labels_on_benchmarks(runs.groups)
    analyses = [boundary(group.evaluations, runs.scoring, settings, runs.bootstrap) for group in runs.groups]
    found = [(i, g, b) for i, (g, b) in enumerate(zip(runs.groups, analyses, strict=True)) if b is not None]
    if not found:
        return None
    found = [(color, replace(group, label=labels[group.runs]), analysis) for color, group, analysis in found]
    charts = [_chart(name, found, rate) for name, rate in RATES.items()]
    auroc = _chart("AUROC within problems", found, lambda one: one.auroc, percent=False)
    intro = INTRO.format(accept_grade=settings.accept_grade, confidence=runs.bootstrap.confidence)
    tables = [_table(group, analysis) for _, group, analysis in found]
    return Section("boundary", "Boundary", [ItemRow(charts[:2]), ItemRow([charts[2], auroc]), *tables], intro)


def _chart(name: str, found: Sequence[Found], rate: Callable[[BoundaryBin], Estimate], percent: bool = True) -> Lines:
    return Lines(
        title=f"{name} by difficulty",
        x_label="Pass@1 of the problem (0: hardest)",
        y_label=name,
        series=[Series(group.label, color, _points(analysis, rate)) for color, group, analysis in found],
        percent=percent,
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
    )


def _points(analysis: Boundary, rate: Callable[[BoundaryBin], Estimate]) -> list[Point]:
    found = [(one.difficulty, rate(one)) for one in analysis.bins]
    return [
        Point(x, estimate.value, estimate.low, estimate.high, note=f"{estimate.problems} problems")
        for x, estimate in found
        if x is not None and estimate.value is not None
    ]


def _table(group: Group, analysis: Boundary) -> Table:
    left_out = (
        f" Problems left out, without a difficulty or a measured sample: {analysis.left_out}."
        if analysis.left_out
        else ""
    )
    return Table(
        title=f"By difficulty: {group.label}",
        columns=["Pass@1", "Problems", *(f"{name} (%)" for name in RATES), "AUROC", "problems with AUROC"],
        rows=[
            [
                f"{one.low:g} to {one.high:g}",
                str(one.problems),
                *(cell(rate(one)) for rate in RATES.values()),
                _auroc(one.auroc),
                str(one.auroc.problems),
            ]
            for one in analysis.bins
        ],
        note=f"Difficulty: {SOURCES[analysis.difficulty_from]}.{left_out}",
    )


def _auroc(estimate: Estimate) -> str | Cell:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return ""
    return Cell(f"{estimate.value:.3f}", f"{estimate.low:.2f} to {estimate.high:.2f}")
