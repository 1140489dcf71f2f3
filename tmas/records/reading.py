"""Reading records from disk: complete lines only, and one error that names the file, the line and the field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError

from tmas.records.values import SCHEMA_VERSION

AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


def _is_known(version: int) -> int:
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema version {version}, this code reads {SCHEMA_VERSION}")
    return version


Version = Annotated[int, AfterValidator(_is_known)]
"""Type of a record's version field. Records of another version are refused."""


class DefectiveFile(ValueError):
    """A file of a run cannot be read. The message names the file, the line if there are lines, and the field."""


def read_records(file: Path, kind: type[AnyRecord]) -> Iterator[AnyRecord]:
    """Yield the complete lines of a JSONL file as records; nothing if the file does not exist.

    The last line is skipped if a kill has cut it off. Raises :class:`DefectiveFile` at any other line that is no
    such record.
    """
    if not file.exists():
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return
            yield parsed(line, kind, f"{file}:{number}")


def read_record(file: Path, kind: type[AnyRecord]) -> AnyRecord:
    """Read a file that holds one record. Raises :class:`DefectiveFile`, or ``FileNotFoundError``."""
    return parsed(file.read_bytes(), kind, str(file))


def parsed(content: bytes, kind: type[AnyRecord], place: str) -> AnyRecord:
    """The record in ``content``. Raises :class:`DefectiveFile` with ``place`` in front."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise DefectiveFile(f"{place}: {defect(error)}") from None


def defect(error: ValidationError) -> str:
    """The first problem of a record, with its field. An unknown version explains all the others, so it comes first."""
    found = error.errors(include_url=False, include_input=False)
    version = next((one for one in found if one["loc"][-1:] in (("v",), ("schema_version",))), None)
    first = version or found[0]
    field = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    return message if version or not field else f"{field}: {message}"


def is_of_another_version(error: ValidationError) -> bool:
    return any(one["loc"][-1:] in (("v",), ("schema_version",)) for one in error.errors(include_url=False))
