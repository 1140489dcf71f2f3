"""The content of a report as data. The page (viewer/js) and the static figures both draw it.

A new section is a list of these items. It needs no change in the page or the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Point:
    """A point of a line. ``low`` and ``high`` are its interval, if any. ``note`` is shown in the tooltip.

    ``trend``: the line passes through this value instead of ``y``. The point is still drawn at ``y``, and the chart's
    labels must say which is which.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    note: str | None = None
    trend: float | None = None


@dataclass(frozen=True)
class Series:
    """A line. ``color`` is a palette number, and one thing has the same color throughout the report."""

    name: str
    color: int
    points: Sequence[Point]


@dataclass(frozen=True)
class Lines:
    """A line chart. ``percent``: y is a fraction, shown in percent. ``diagonal``: also draw the line y = x."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    percent: bool = False
    log_x: bool = False
    diagonal: bool = False
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    kind: str = "line"


@dataclass(frozen=True)
class Parts:
    """The contribution of one category to each bar."""

    name: str
    color: int
    values: Sequence[float]


@dataclass(frozen=True)
class Bars:
    """A chart of stacked bars. Each row is a bar with one part for each of ``series``."""

    title: str
    x_label: str
    rows: Sequence[str]
    series: Sequence[Parts]
    kind: str = "bars"


@dataclass(frozen=True)
class Cell:
    """A table cell. ``note`` is shown next to ``text`` in smaller type."""

    text: str
    note: str = ""
    strong: bool = False


@dataclass(frozen=True)
class ProseCell(Cell):
    """A table cell with text of a model. Its mathematics is rendered."""

    kind: str = "prose"


@dataclass(frozen=True)
class Span:
    """A heading over several columns."""

    name: str
    span: int


@dataclass(frozen=True)
class Table:
    """A table. The first ``text_columns`` columns are aligned left, the others right.

    A row with a single text is a heading for the rows below it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    text_columns: int = 1
    groups: Sequence[Span] = ()
    note: str = ""
    kind: str = "table"


@dataclass(frozen=True)
class Tile:
    """A single number with a label."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Tiles:
    tiles: Sequence[Tile]
    kind: str = "tiles"


@dataclass(frozen=True)
class Note:
    text: str
    kind: str = "note"


@dataclass(frozen=True)
class Option:
    name: str
    item: Item


@dataclass(frozen=True)
class Choice:
    """Several items of which one is shown. The reader selects it by name."""

    label: str
    options: Sequence[Option]
    kind: str = "choice"


@dataclass(frozen=True)
class ItemRow:
    """Items placed side by side if there is room."""

    items: Sequence[Item]
    kind: str = "row"


@dataclass(frozen=True)
class Stack:
    """Items placed below each other."""

    items: Sequence[Item]
    kind: str = "stack"


Item = Lines | Bars | Table | Tiles | Note | Choice | ItemRow | Stack


@dataclass(frozen=True)
class Section:
    """A tab of the page. ``id`` is its address."""

    id: str
    title: str
    items: Sequence[Item] = field(default_factory=list)
    intro: str = ""
