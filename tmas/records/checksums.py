"""Checksums of the lines in a run directory.

The last field of a line is ``check``: the first 16 hex digits of the SHA-256 of the line's object without this field,
as compact JSON in UTF-8. A checksum reveals damage and edits. It is not a signature: whoever changes a line on
purpose can remove ``check``, and the line is then read like the lines of older runs, which have none.
"""

from __future__ import annotations

import hashlib
import re

import orjson
from pydantic import BaseModel

from tmas.files import text_digest

FIELD = "check"
DIGITS = 16
_LAST_FIELD = re.compile(rb',"check":"([0-9a-f]{16})"\}\s*\Z')
_TAIL = 64
"""This project writes the checksum at the end of the line, within this number of bytes."""


class WrongChecksum(Exception):
    """The content of a line does not have the checksum that the line contains."""


def add_checksum(line: bytes) -> bytes:
    """Append the field ``check`` to ``line``: a non-empty object as compact JSON, with its newline."""
    check = hashlib.sha256(memoryview(line)[:-1]).hexdigest()[:DIGITS]
    return b'%b,"check":"%b"}\n' % (line[:-2], check.encode())


def checked_line(record: BaseModel) -> bytes:
    """A record as one line of JSON with its checksum."""
    return add_checksum(record.model_dump_json().encode() + b"\n")


def remove_checksum(line: bytes) -> bytes:
    """Verify the checksum of a line and return the line without it. A line without a checksum is returned as it is.

    A line that another program has written in another layout, with the same content, is accepted, too. Raises
    :class:`WrongChecksum`.
    """
    if last := _LAST_FIELD.search(line, max(0, len(line) - _TAIL)):
        content = line[: last.start()] + b"}"
        if text_digest(content, DIGITS).encode() == last[1]:
            return content
    return _remove_from_other_layout(line) if b'"check"' in line else line


def _remove_from_other_layout(line: bytes) -> bytes:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return line  # the reader reports what is wrong with it
    if not isinstance(value, dict) or FIELD not in value:
        return line
    given = value.pop(FIELD)
    content = orjson.dumps(value)
    if text_digest(content, DIGITS) != given:
        raise WrongChecksum
    return content
