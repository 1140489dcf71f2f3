"""Reads problem files row by row: JSONL, JSON, CSV and parquet. An unreadable row is returned with its defect."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
_BETWEEN_ITEMS = re.compile(r"[\s,]*")


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row as a mapping by column, or the defect that prevents reading it. ``place``: its first line, counted from
    1.
    """

    place: str
    values: dict[str, Any]
    defect: str | None = None


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8. Invalid bytes and lone surrogates cannot."""
    return _SURROGATE.search(text) is None


def _decode(data: bytes) -> str:
    """Decode UTF-8 with or without a byte order mark. An invalid byte becomes a lone surrogate and is reported with its
    row.
    """
    return data.decode("utf-8-sig", errors="surrogateescape")


def _jsonl(data: bytes) -> Iterator[FileRow]:
    for number, line in enumerate(_decode(data).split("\n"), 1):
        if line.strip():
            yield _object(str(number), line)


def _object(place: str, source: str) -> FileRow:
    if not is_unicode(source):
        return FileRow(place, {}, "not valid UTF-8")
    try:
        value = json.loads(source)
    except (ValueError, RecursionError) as error:
        return FileRow(place, {}, f"invalid JSON: {error}")
    return FileRow(place, value) if isinstance(value, dict) else FileRow(place, {}, "not a JSON object")


def _json(data: bytes) -> Iterator[FileRow]:
    """Read the objects of a JSON list one by one, so that the line of each is known."""
    text, decoder = _decode(data), json.JSONDecoder()
    try:
        if not isinstance(json.loads(text), list):
            yield FileRow("1", {}, "not a list of objects")
            return
    except (ValueError, RecursionError) as error:
        yield FileRow(str(getattr(error, "lineno", 1)), {}, f"invalid JSON: {error}")
        return
    end = text.index("[") + 1
    line = 1 + text.count("\n", 0, end)
    while text[start := _BETWEEN_ITEMS.match(text, end).end()] != "]":  # type: ignore[union-attr]
        line += text.count("\n", end, start)
        end = decoder.raw_decode(text, start)[1]
        yield _object(str(line), text[start:end])
        line += text.count("\n", start, end)


def _csv(data: bytes) -> Iterator[FileRow]:
    lines = list(io.StringIO(_decode(data), newline=""))
    rows = csv.reader(lines, strict=True)
    header: list[str] | None = None
    while (start := rows.line_num) < len(lines):
        try:
            cells, error = next(rows, []), None
        except csv.Error as broken:
            cells, error = _leniently(lines[start : rows.line_num]), f"broken CSV: {broken}"
        if header is None:
            header = cells
        elif cells or error:
            yield _csv_row(str(start + 1), header, cells, error)


def _leniently(lines: Sequence[str]) -> list[str]:
    """Read the cells of an invalid CSV record, or none if that is impossible."""
    try:
        return next(csv.reader(lines), [])
    except csv.Error:
        return []


def _csv_row(place: str, header: Sequence[str], cells: Sequence[str], error: str | None) -> FileRow:
    values = dict(zip(header, cells, strict=False))
    if len(cells) == len(header) or not cells:
        return FileRow(place, values, error)
    field = repr(header[len(cells)]) if len(cells) < len(header) else "beyond the last"
    shifted = f"{len(cells)} values for {len(header)} columns: a misplaced quote or comma may have shifted them"
    return FileRow(place, values, f"field {field}: {shifted}")


def _parquet(data: bytes) -> Iterator[FileRow]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        yield FileRow("row 1", {}, f"broken parquet: {error}")
        return
    for number, values in enumerate(rows, 1):
        yield FileRow(f"row {number}", values)


READERS: dict[str, Callable[[bytes], Iterator[FileRow]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
"""By suffix: a function from the content of a file to its rows."""
