"""Reads records from disk. An incomplete last line is skipped. Errors name the file, the line and the field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError

from tmas.errors import UserError
from tmas.files import complete_lines
from tmas.records.calls import SCHEMA_VERSION
from tmas.records.checksums import WrongChecksum, remove_checksum

AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


def _check_version(version: int) -> int:
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema version {version}, this version of tmas reads {SCHEMA_VERSION}")
    return version


Version = Annotated[int, AfterValidator(_check_version)]
"""Type of a record's version field. Records of another version are refused."""


WRONG_CHECKSUM = "damaged line (its checksum does not match its content)"


class DefectiveFile(UserError):
    """A file of a run cannot be read. The message names the file, the line if there are lines, and the field."""


class UnknownVersion(DefectiveFile):
    """The file, or one of its lines, is of another schema version. It is not damaged."""


def read_records(file: Path, kind: type[AnyRecord]) -> Iterator[AnyRecord]:
    """Yield the complete lines of a JSONL file as records; nothing if the file does not exist.

    The last line is skipped if it is incomplete, as after a killed process. Raises :class:`DefectiveFile` at any other
    line that is not a record of this kind.
    """
    for line in complete_lines(file) if file.exists() else ():
        yield parsed(line.content, kind, f"{file}:{line.number}")


def read_record(file: Path, kind: type[AnyRecord]) -> AnyRecord:
    """Read a file that holds one record. Raises :class:`DefectiveFile`, or ``FileNotFoundError``."""
    return parsed(file.read_bytes(), kind, str(file))


def parsed(content: bytes, kind: type[AnyRecord], place: str) -> AnyRecord:
    """Parse ``content``, with or without a checksum, as a record.

    Raises :class:`DefectiveFile`, whose message names ``place``. Its remedy is the attribute ``remedy`` of ``kind``, if
    there is one.
    """
    remedy = getattr(kind, "remedy", None)
    try:
        return kind.model_validate_json(remove_checksum(content))
    except WrongChecksum:
        raise DefectiveFile(WRONG_CHECKSUM, where=place, remedy=remedy) from None
    except ValidationError as error:
        found = defect(error)
        if is_of_other_version(error):
            raise UnknownVersion(found, where=place) from None
        is_json = error.errors()[0]["type"] != "json_invalid"
        raise DefectiveFile(found if is_json else f"damaged ({found})", where=place, remedy=remedy) from None


def is_of_other_version(error: ValidationError) -> bool:
    """Whether a record was refused because of its schema version."""
    return _version_error(error) is not None


def _version_error(error: ValidationError) -> Any:
    defects = error.errors(include_url=False, include_input=False)
    at_version = (one for one in defects if one["loc"][-1:] in (("v",), ("schema_version",)))
    return next((one for one in at_version if one["type"] == "value_error"), None)


def defect(error: ValidationError) -> str:
    """Return the first problem of a record, with its field. An unknown version comes first: it explains all others."""
    version = _version_error(error)
    first = version or error.errors(include_url=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    return message if version or not field else f"{field}: {message}"


def line_defect(error: ValidationError) -> str:
    """Describe the defect of a line of a trace: ``damaged line (...)``, or the unknown version."""
    return defect(error) if is_of_other_version(error) else f"damaged line ({defect(error)})"
