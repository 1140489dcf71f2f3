"""Files as runs write and read them: JSON lines, whole files written in one step, and digests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from tmas.errors import UserError


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a JSONL file of a run; none where there is no file yet. Raises :class:`UserError` for a
    damaged one."""
    if not file.exists():
        return
    with file.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            if line.endswith(b"\n"):
                try:
                    yield orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    raise UserError(f"damaged line ({error})", where=f"{file}:{number}") from None


def json_lines(lines: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Each mapping as a line of JSON."""
    return (orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)


def write_whole(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file in one step and onto the disk: a kill or a loss of power leaves the old file or the new one."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def digest(value: Any) -> str:
    """The first 20 hex digits of the SHA-256 of ``value`` as canonical JSON."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:20]


def file_digest(file: Path) -> str:
    """The first 20 hex digits of the SHA-256 of its content."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:20]
