"""Files: atomic writes, JSON lines and digests. Every module uses these functions instead of its own.

An atomic write first fills a hidden file in the same folder, then renames it to the target. After a kill or a power
loss the target has its old content or its new content, never a part of it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson
from pydantic import BaseModel

from tmas.errors import UserError

Jsonable = BaseModel | Mapping[str, Any]


# --- atomic writes


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write. If the block ends without an error, it is flushed to the disk and then replaces ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill. It becomes ``path``, which must not exist, when the block ends without an error."""
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with whole_file(path) as file:
        file.write(content)


def write_json(path: Path, value: Any) -> None:
    """Write a record or another value as indented JSON, atomically."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    write_whole(path, orjson.dumps(plain, option=orjson.OPT_INDENT_2))


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


# --- JSON lines


class RawLine(NamedTuple):
    """A complete line of a file, with its newline. ``number`` counts from 1; ``start`` is an offset in bytes."""

    number: int
    start: int
    content: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.content)


class JsonLine(NamedTuple):
    """A complete line of a JSON lines file. ``number`` counts from 1; ``start`` and ``end`` are offsets in bytes."""

    number: int
    start: int
    end: int
    value: dict[str, Any]


def complete_lines(file: Path) -> Iterator[RawLine]:
    """The complete lines of a file. A last line without a newline is left out: a kill interrupted its writing."""
    start = 0
    with file.open("rb") as lines:
        for number, content in enumerate(lines, start=1):
            if not content.endswith(b"\n"):
                return
            yield RawLine(number, start, content)
            start += len(content)


def scan_lines(file: Path, error: type[UserError] = UserError, remedy: str | None = None) -> Iterator[JsonLine]:
    """Yield the complete lines of a JSONL file. A line that is not JSON raises ``error`` with file and line."""
    for line in complete_lines(file):
        try:
            value = orjson.loads(line.content)
        except orjson.JSONDecodeError as reason:
            raise error(f"damaged line ({reason})", where=f"{file}:{line.number}", remedy=remedy) from None
        yield JsonLine(line.number, line.start, line.end, value)


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The values of :func:`scan_lines`; none if there is no file yet."""
    return (line.value for line in scan_lines(file)) if file.exists() else iter(())


def cut_torn_line(file: Path, end: int) -> None:
    """Remove an incomplete last line. ``end``: the end of the last complete line."""
    if file.stat().st_size > end:
        os.truncate(file, end)


def json_line(value: Jsonable) -> bytes:
    """A record or a mapping as one line of JSON."""
    if isinstance(value, BaseModel):
        return value.model_dump_json().encode() + b"\n"
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def append_lines(file: Path, values: Iterable[Any], encode: Callable[[Any], bytes] = json_line) -> None:
    """Append JSON lines in one write, so that a kill leaves at most one incomplete line."""
    with file.open("ab") as handle:
        handle.write(b"".join(map(encode, values)))


def write_lines(path: Path, values: Iterable[Any], encode: Callable[[Any], bytes] = json_line) -> int:
    """Write JSON lines atomically; returns the number of lines. One line at a time is in memory."""
    count = 0
    with whole_file(path) as file:
        for value in values:
            file.write(encode(value))
            count += 1
    return count


# --- digests


def digest(value: Any) -> str:
    """The first 20 hex digits of the SHA-256 of ``value`` as canonical JSON."""
    return text_digest(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))


def text_digest(text: str | bytes, digits: int = 20) -> str:
    """The first hex digits of the SHA-256 of a text in UTF-8, or of bytes."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:digits]


def file_digest(file: Path, digits: int = 20) -> str:
    """The first hex digits of the SHA-256 of a file's content; 64 are all of them."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:digits]
