"""What a report shows, as data: the page draws it (viewer/js), and so do the static figures.

A new section is a list of these; neither the page nor the figures have to know what it is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Point:
    """``low`` and ``high``: its interval, where there is one. ``note`` stands in the tip. ``trend``: where the line
    runs instead of through ``y``; the point is drawn all the same, and the chart's labels have to say which is which.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    note: str | None = None
    trend: float | None = None


@dataclass(frozen=True)
class Series:
    """A line. ``color`` is a number of the palette: the same one for the same thing throughout the report."""

    name: str
    color: int
    points: Sequence[Point]


@dataclass(frozen=True)
class Lines:
    """A chart of lines. ``percent``: y is a share. ``diagonal``: the line on which y equals x."""

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
    """What one kind contributes to each bar."""

    name: str
    color: int
    values: Sequence[float]


@dataclass(frozen=True)
class Bars:
    """A chart of stacked bars: one a row, a part for each of ``series``."""

    title: str
    x_label: str
    rows: Sequence[str]
    series: Sequence[Parts]
    kind: str = "bars"


@dataclass(frozen=True)
class Cell:
    """``note`` stands beside ``text``, smaller."""

    text: str
    note: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Span:
    """A heading over so many columns."""

    name: str
    span: int


@dataclass(frozen=True)
class Table:
    """``text_columns`` are aligned left, the others right. A row of one text is a heading over the rows below."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    text_columns: int = 1
    groups: Sequence[Span] = ()
    note: str = ""
    kind: str = "table"


@dataclass(frozen=True)
class Tile:
    """One number that stands for itself."""

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
    """One of several items; the reader chooses by name."""

    label: str
    options: Sequence[Option]
    kind: str = "choice"


@dataclass(frozen=True)
class ItemRow:
    """Items side by side where there is room."""

    items: Sequence[Item]
    kind: str = "row"


@dataclass(frozen=True)
class Stack:
    """Items one below the other."""

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
