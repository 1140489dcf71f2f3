"""Writes the charts of a report as PNG and SVG for papers. Needs matplotlib (the extra ``report``)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tmas.errors import UserError
from tmas.report.items import Bars, Choice, Item, ItemRow, Lines, Section, Series, Stack

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#3b6fd4", "#d1603d", "#2f9e77", "#8a5cc9", "#b98a0f", "#c94f8b", "#4f8a9b", "#6f6f6f")
"""The colors of the light theme in viewer/report.css."""
SIZE = (5.2, 3.4)
"""Size in inches. The width is one column of a paper."""
STYLE: Any = {
    "font.size": 9,
    **{"axes.spines.top": False, "axes.spines.right": False},
    **{"axes.grid": True, "axes.axisbelow": True, "grid.alpha": 0.25},
    **{"legend.frameon": False, "svg.fonttype": "none", "savefig.bbox": "tight", "savefig.dpi": 300},
}


def draw_all(sections: Sequence[Section], folder: Path) -> list[Path]:
    """Write each chart in ``sections`` as ``NAME.png`` and ``NAME.svg``, named by its title. Returns the files."""
    try:
        from matplotlib import pyplot, rc_context
    except ImportError:
        raise UserError("figures need matplotlib", remedy="Run pip install 'tmas[report]'.") from None
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for chart in (chart for section in sections for item in section.items for chart in charts(item)):
        name = file_name(chart.title)
        while folder / f"{name}.png" in written:  # titles can differ only in characters that file names cannot have
            name += "-other"
        with rc_context(STYLE):
            figure, axes = pyplot.subplots(figsize=SIZE)
            draw(axes, chart)
            for suffix in ("png", "svg"):
                written.append(folder / f"{name}.{suffix}")
                figure.savefig(written[-1])
            pyplot.close(figure)
    return written


def charts(item: Item) -> Iterator[Lines | Bars]:
    """Yield all charts in an item of any type."""
    if isinstance(item, Lines | Bars):
        yield item
    elif isinstance(item, ItemRow | Stack):
        yield from (chart for inner in item.items for chart in charts(inner))
    elif isinstance(item, Choice):
        yield from (chart for option in item.options for chart in charts(option.item))


def file_name(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def draw(axes: Axes, chart: Lines | Bars) -> None:
    """Draw one chart on ``axes``. Names are plain text and never parsed as matplotlib's math text."""
    if isinstance(chart, Lines):
        _lines(axes, chart)
        axes.set_ylabel(chart.y_label)
    else:
        _bars(axes, chart)
    axes.set_xlabel(chart.x_label)
    if len(chart.series) > 1:
        _legend(axes)


def _legend(axes: Axes) -> None:
    """Name the curves above the axes, in as many columns as fit into the width of the figure."""
    for columns in (4, 3, 2, 1):
        legend = axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, columnspacing=1.2)
        for text in legend.get_texts():
            text.set_parse_math(False)
        if legend.get_window_extent().width <= axes.figure.bbox.width:
            break


def _lines(axes: Axes, chart: Lines) -> None:
    scale = 100 if chart.percent else 1
    for series in (series for series in chart.series if series.points):
        color = COLORS[series.color % len(COLORS)]
        _curve(axes, series, color, scale)
        banded = [p for p in series.points if p.low is not None and p.high is not None]
        low, high = ([scale * (getattr(p, end) or 0.0) for p in banded] for end in ("low", "high"))
        axes.fill_between([p.x for p in banded], low, high, color=color, alpha=0.13, lw=0)
        if len(banded) == 1:
            axes.vlines(banded[0].x, low, high, color=color, alpha=0.5, lw=1)
    if chart.percent:
        axes.yaxis.set_major_formatter("{x:g} %")
    if chart.log_x:
        axes.set_xscale("log")
        _short_numbers(axes)
    elif not chart.x_range:
        axes.locator_params(axis="x", integer=True)
    if chart.diagonal:
        axes.axline((0, 0), slope=scale, color="0.6", lw=0.8, ls="--")
    if chart.x_range:
        axes.set_xlim(*chart.x_range)
    lowest = min((point.y for series in chart.series for point in series.points), default=0.0)
    axes.set_ylim(*([scale * end for end in chart.y_range] if chart.y_range else (None if lowest < 0 else 0, None)))


def _curve(axes: Axes, series: Series, color: str, scale: int) -> None:
    """Draw the points and their line. If the line is a trend, the points are fainter."""
    xs, ys = [point.x for point in series.points], [scale * point.y for point in series.points]
    trend = [scale * point.trend for point in series.points if point.trend is not None]
    if trend:
        axes.plot(xs, ys, color=color, marker="o", markersize=2.5, markeredgewidth=0, lw=0, alpha=0.35)
        axes.plot(xs, trend, color=color, label=series.name, lw=1.4)
    else:
        axes.plot(xs, ys, color=color, label=series.name, marker="o", markersize=3, lw=1.4)


def _bars(axes: Axes, chart: Bars) -> None:
    starts = [0.0] * len(chart.rows)
    for parts in chart.series:
        axes.barh(
            chart.rows, parts.values, left=starts, color=COLORS[parts.color % len(COLORS)], label=parts.name, height=0.6
        )
        starts = [start + value for start, value in zip(starts, parts.values, strict=True)]
    axes.invert_yaxis()
    _short_numbers(axes)
    for text in axes.get_yticklabels():
        text.set_parse_math(False)


def _short_numbers(axes: Axes) -> None:
    """Format 12,000 as 12k, and 0.02 as it is: as 20m it would be taken for 20 million."""
    from matplotlib.ticker import EngFormatter

    large = EngFormatter(sep="")
    axes.xaxis.set_major_formatter(lambda value, _: large(value) if abs(value) >= 1 else f"{value:g}")
