"""The files between the steps: problems as JSONL, one :class:`~tmas.training.contexts.TrainingProblem` a line."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import orjson
from pydantic import BaseModel, Field, ValidationError

from tmas.problems.loader import ProblemFileError
from tmas.training.contexts import TrainingProblem

WorkspaceFolder = Annotated[
    Path | None,
    Field(description="Folder that collect, filter, distill and build share; their default paths are folders in it."),
]


def read_problems(path: Path) -> Iterator[TrainingProblem]:
    """The problems of a step; raises :class:`ProblemFileError` with file, line and field at the first bad one."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield _problem(line, f"{path}:{number}")
    except OSError as error:
        raise ProblemFileError([f"{path}: {error.strerror}; run the step that makes it"]) from error


def _problem(line: bytes, place: str) -> TrainingProblem:
    try:
        return TrainingProblem.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ProblemFileError(
            [f"{place}: field {field!r}: {first['msg']}" if field else f"{place}: {first['msg']}"]
        ) from None


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file for writing that takes its place only when the block ends well: a kill leaves the old one or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def json_line(value: BaseModel | Mapping[str, Any]) -> bytes:
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return orjson.dumps(plain, option=orjson.OPT_APPEND_NEWLINE)


def write_lines(path: Path, values: Iterable[BaseModel | Mapping[str, Any]]) -> int:
    """Write JSONL as a whole; returns how many lines."""
    count = 0
    with whole_file(path) as file:
        for value in values:
            file.write(json_line(value))
            count += 1
    return count


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """What a step did, as indented JSON."""
    with whole_file(path) as file:
        file.write(orjson.dumps(report, option=orjson.OPT_INDENT_2))


def sha256(path: Path) -> str:
    """The hash of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
