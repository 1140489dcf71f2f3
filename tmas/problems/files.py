"""Reads problem files row by row: JSONL, JSON, CSV and parquet. An unreadable row is returned with its defect.

The reader does not trust the file: the path may lead to a device, and a small parquet file may decode to gigabytes. So
only regular files are read, up to a maximum size, and parquet rows are decoded in small batches.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

_BATCH_BYTES = 64 * 2**20
"""Maximum number of bytes of a parquet file that are decoded at once, unless a single row is larger."""
_PIECE_BYTES = 2**20
"""Number of bytes of a file that are read at once beyond the size that the file reports."""
_BETWEEN_ITEMS = re.compile(r"[\s,]*")


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row as a mapping by column. If the row has a ``defect``, ``values`` are empty or not reliable.

    ``place``: its first line, counted from 1; in a parquet file ``row N``.
    """

    place: str
    values: dict[str, Any]
    defect: str | None = None


class UnreadableFile(Exception):
    """The file cannot be read, or should not be. The message says why, without the path.

    ``line``: the line that makes the file unreadable; None if the reason is not in a line.
    """

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line

    def place_in(self, path: Path) -> str:
        """``path``, with the line if there is one."""
        return str(path) if self.line is None else f"{path}:{self.line}"


class FileTooLarge(UnreadableFile):
    """The file is larger than the caller allows."""


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    Raises :class:`UnreadableFile` for a device, a FIFO or anything else that is not a regular file, also behind a
    symbolic link, and for a file that cannot be opened.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO waits for a writer.
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    except OSError as error:
        raise UnreadableFile(str(error.strerror)) from error
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UnreadableFile("is not a regular file, but a device, a FIFO or the like")
        yield file


def read_content(path: Path, max_bytes: int | None = None) -> bytes:
    """Read a regular file, at most ``max_bytes`` (None: of any size).

    Raises :class:`FileTooLarge`, and what :func:`open_regular` raises.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if max_bytes is not None and size > max_bytes:
            raise FileTooLarge(f"has {size:,} bytes, more than {max_bytes:,}")
        try:
            pieces = [file.read(size)]
            size = len(pieces[0])
            # The file may grow while it is read, and files in /proc have content although their size is 0.
            while piece := file.read(_PIECE_BYTES):
                pieces.append(piece)
                size += len(piece)
                if max_bytes is not None and size > max_bytes:
                    raise FileTooLarge(f"has more than {max_bytes:,} bytes")
            return b"".join(pieces)
        except OSError as error:
            raise UnreadableFile(str(error.strerror)) from error


class ParquetShape(NamedTuple):
    """Sizes and columns according to a parquet file's metadata. ``columns``: the names of all columns.

    ``nested``: number of values within the lists of the wanted columns. A file of a kilobyte can hold a list of 100
    million.
    """

    rows: int = 0
    columns: tuple[str, ...] = ()
    nested: int = 0


def parquet_shape(content: bytes, wanted: Collection[str]) -> ParquetShape:
    """The shape of a parquet file, before a row is read. Empty if it is broken, which :func:`parquet_rows` reports."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(pyarrow.BufferReader(content)) as file:
            groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
            nested = sum(
                max(0, group.column(i).num_values - group.num_rows)
                for group in groups
                for i in range(group.num_columns)
                if any(f"{group.column(i).path_in_schema}.".startswith(f"{name}.") for name in wanted)
            )
            return ParquetShape(file.metadata.num_rows, tuple(file.schema_arrow.names), nested)
    except (pyarrow.ArrowException, OSError):
        return ParquetShape()


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8.

    A lone surrogate cannot be written; :func:`_decode` turns each invalid byte into one.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
    """Read the records below the header. Raises :class:`UnreadableFile` if the header is broken or repeats a column."""
    lines = list(io.StringIO(_decode(data), newline=""))
    rows = csv.reader(lines, strict=True)
    header: list[str] | None = None
    while (start := rows.line_num) < len(lines):
        try:
            cells, error = next(rows, []), None
        except csv.Error as broken:
            cells, error = _lenient_cells(lines[start : rows.line_num]), f"broken CSV: {broken}"
        if header is None:
            if defect := error or _repeated_columns(cells):
                raise UnreadableFile(f"the header cannot be used: {defect}", start + 1)
            header = cells
        elif cells or error:
            yield _csv_row(str(start + 1), header, cells, error)


def _lenient_cells(lines: Sequence[str]) -> list[str]:
    """Read the cells of an invalid CSV record, or none if that is impossible."""
    try:
        return next(csv.reader(lines), [])
    except csv.Error:
        return []


def _repeated_columns(header: Sequence[str]) -> str | None:
    # Spreadsheets write empty columns without a name. Nobody can ask for them, so they may repeat.
    repeated = [name for name, count in Counter(header).items() if name and count > 1]
    return f"several columns are named {' and '.join(map(repr, repeated))}; rename all but one" if repeated else None


def _csv_row(place: str, header: Sequence[str], cells: Sequence[str], error: str | None) -> FileRow:
    values = dict(zip(header, cells, strict=False))
    if error or len(cells) == len(header):
        return FileRow(place, values, error)
    missing = f" First missing column: {header[len(cells)]!r}." if len(cells) < len(header) else ""
    counts = f"the row has {_counted(cells, 'value')}, but the header has {_counted(header, 'column')}"
    return FileRow(place, values, f"{counts}. A misplaced quote or comma may have shifted the values.{missing}")


def _counted(items: Sequence[str], noun: str) -> str:
    return f"{len(items)} {noun}{'s' * (len(items) != 1)}"


def parquet_rows(data: bytes, columns: Collection[str] | None = None) -> Iterator[FileRow]:
    """The rows of a parquet file. ``columns``: read only these; None: all."""
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(pyarrow.BufferReader(data)) as file:
            # Parquet stores equal values once, so a decoded batch can be far larger than the file. Assume that every
            # row is as large as the largest row group.
            group_sizes = (file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
            largest = max(group_sizes, default=0)
            size = min(1000, max(1, _BATCH_BYTES // max(1, largest)))
            for batch in file.iter_batches(size, columns=None if columns is None else list(columns)):
                for values in batch.to_pylist():
                    number += 1
                    yield FileRow(f"row {number}", values)
    except (pyarrow.ArrowException, OSError) as error:
        yield FileRow(f"row {number + 1}", {}, f"broken parquet: {error}")


READERS: dict[str, Callable[[bytes], Iterator[FileRow]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": parquet_rows,
}
"""By suffix: a function from the content of a file to its rows."""
