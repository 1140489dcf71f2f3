"""Reads problem files (JSONL, JSON, CSV, parquet) with any column names.

A file is validated completely before a run starts. One error lists all defects with file, line and field, or bad rows
are left out and reported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tmas.errors import FileDefects
from tmas.problems.files import (
    READERS,
    FileRow,
    FileTooLarge,
    ParquetShape,
    UnreadableFile,
    is_unicode,
    parquet_rows,
    parquet_shape,
    read_content,
)
from tmas.problems.hub import HubError, HubSource, fetch
from tmas.problems.ids import read_ids
from tmas.records import Problem

SAMPLE = Path(__file__).with_name("sample_problems.jsonl")
"""A few problems that ship with the package; ``tmas solve problems=sample`` runs them."""
_REFERENCE_BYTES = 8
"""Size in bytes of a reference to a value in a Python list."""


class ProblemFields(BaseModel):
    """Names of the columns (CSV, parquet) or keys (JSON) that hold a problem's parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = Field(
        default=None,
        description="Name of the benchmark in evaluations and reports. null: the name of the problem file or of the"
        " Hugging Face data set.",
    )
    problem_id: str | None = Field(
        default="problem_id", description="Column of the problem's id. null: rows are numbered, FILE_STEM-ROW."
    )
    question: str = Field(default="question", description="Column of the question.")
    answer: str | None = Field(
        default="answer", description="Column of the gold answer. null: the file has no answers."
    )
    answer_required: bool = Field(default=False, description="Whether a row without an answer is invalid.")
    answer_regex: str | None = Field(
        default=None,
        description="Regular expression whose last match in the answer column holds the answer as its first group."
        " GSM8K: ####\\s*(.+). null: the whole column.",
    )
    metadata: tuple[str, ...] = Field(default=(), description="Further columns to keep with the problem.")
    ids: Path | None = Field(
        default=None,
        description="Keep only the problems whose ids are in this list: a file with one id a line, or the name of a"
        " list that the package has (hle_math_100). All of them must be in the problem file. null: all problems.",
    )
    max_bytes: int = Field(
        default=500_000_000, ge=1, description="Maximum size in bytes of a problem file, and of the text in its rows."
    )
    max_rows: int = Field(default=1_000_000, ge=1, description="Maximum number of rows of a problem file.")
    max_characters: int = Field(
        default=1_000_000,
        ge=1,
        description="Maximum length, in characters, of a problem's question, answer, id or kept column.",
    )
    hub: HubSource | None = Field(
        default=None, description="The Hugging Face data set that problems=hub reads. null: there is none."
    )

    @field_validator("answer_regex")
    @classmethod
    def _has_a_group(cls, pattern: str | None) -> str | None:
        try:
            groups = re.compile(pattern or "()").groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if groups == 0:
            raise ValueError("needs a group around the answer")
        return pattern

    @model_validator(mode="after")
    def _has_a_column_of_ids(self) -> Self:
        if self.ids is not None and self.problem_id is None:
            raise ValueError("ids needs problem_id: problems are selected by the ids in that column")
        return self

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that the file must have."""
        answer = self.answer if self.answer_required else None
        return tuple(column for column in (self.problem_id, self.question, answer, *self.metadata) if column)

    def fetch(self) -> Path:
        """Return the file for ``hub``, downloaded if it is missing."""
        if self.hub is None:
            raise HubError("problems=hub: the preset given as data=NAME names no data set on the hub; give a file")
        answer = () if self.answer is None else (self.answer,)
        return fetch(self.hub, tuple(dict.fromkeys((*self.required, *answer))))


class ProblemFileError(FileDefects):
    """Defects of a problem file."""


@dataclass(frozen=True, slots=True)
class LoadedProblems:
    """The problems in the order of the file, and a message for each defect of the rows left out."""

    problems: tuple[Problem, ...]
    skipped: tuple[str, ...] = ()


class _Defect(ValueError):
    """Defects of a row: one message per argument."""


def load_problems(
    path: Path | str, fields: ProblemFields | None = None, on_bad: Literal["refuse", "skip"] = "refuse"
) -> LoadedProblems:
    """Load all problems of a file. Its suffix (.jsonl, .json, .csv, .parquet) determines the format; text is UTF-8.

    The path ``hub`` loads the data set that ``fields.hub`` names. Raises :class:`~tmas.problems.hub.HubError` if it
    cannot be loaded. Raises :class:`ProblemFileError` for a file that cannot be read, is not a regular file, exceeds a
    limit in ``fields``, lacks a column or has no valid row. Unless ``on_bad`` is ``skip``, also raises it for any bad
    row (a missing, empty, mistyped or too long field, a repeated id). With ``fields.ids``, rows whose ids are not
    listed are ignored, and a listed id that the file does not have is always an error.
    """
    path, fields = Path(path), fields or ProblemFields()
    if path == Path("hub"):
        path = fields.fetch()
    rows = _read(path, fields)
    _check_columns(f"{path}:1", dict.fromkeys(column for row in rows for column in row.values), fields)
    rows = _selected(path, rows, fields)
    problems: list[Problem] = []
    places: dict[str, str] = {}
    defects: list[str] = []
    for number, row in enumerate(rows, 1):
        try:
            problem = _problem(row, fields, f"{path.stem}-{number}")
            if first := places.get(problem.problem_id):
                raise _Defect(
                    f"field {fields.problem_id!r}: {problem.problem_id!r} is already the id at {path.name}:{first}"
                )
            places[problem.problem_id] = row.place
            problems.append(problem)
        except _Defect as defect:
            defects += [f"{path}:{row.place}: {message}" for message in defect.args]
    if defects and (on_bad == "refuse" or not problems):
        raise ProblemFileError(defects)
    return LoadedProblems(tuple(problems), tuple(defects))


def _read(path: Path, fields: ProblemFields) -> list[FileRow]:
    if path.is_dir():
        raise ProblemFileError([f"{path}: is a folder"], "Give a problem file.")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ProblemFileError([f"{path}: its suffix is none of {', '.join(READERS)}"])
    try:
        content = read_content(path, fields.max_bytes)
    except FileTooLarge as error:
        raise _over_limit(path, "max_bytes", str(error)) from error
    except UnreadableFile as error:
        remedy = "Give the path of a problem file. A relative path starts at the current folder."
        raise ProblemFileError([f"{path}: {error}"], None if path.exists() else remedy) from error
    if reader is parquet_rows:
        wanted = [column for column in (*fields.required, fields.answer) if column]
        _check_shape(path, parquet_shape(content, wanted), fields)
        reader = partial(parquet_rows, columns=wanted)
    rows: list[FileRow] = []
    size = 0
    for row in _rows(path, reader, content):
        rows.append(row)
        size += sum(len(value) for value in row.values.values() if isinstance(value, str | bytes))
        if len(rows) > fields.max_rows:
            raise _over_limit(f"{path}:{row.place}", "max_rows", f"more than {fields.max_rows:,} rows")
        if size > fields.max_bytes:
            message = f"the rows up to here have more than {fields.max_bytes:,} bytes of text"
            raise _over_limit(f"{path}:{row.place}", "max_bytes", message)
    if not rows:
        raise ProblemFileError([f"{path}: holds no problems"])
    return rows


def _rows(path: Path, reader: Callable[[bytes], Iterator[FileRow]], content: bytes) -> Iterator[FileRow]:
    try:
        yield from reader(content)
    except UnreadableFile as error:
        raise ProblemFileError([f"{error.place_in(path)}: {error}"]) from error


def _check_shape(path: Path, shape: ParquetShape, fields: ProblemFields) -> None:
    """Refuse a parquet file that holds far more than its size suggests, before a row is read."""
    _check_columns(path, shape.columns, fields)
    if shape.rows > fields.max_rows:
        raise _over_limit(path, "max_rows", f"has {shape.rows:,} rows, more than {fields.max_rows:,}")
    if shape.nested * _REFERENCE_BYTES > fields.max_bytes:
        message = f"has lists with {shape.nested:,} values in total, which need more than {fields.max_bytes:,} bytes"
        raise _over_limit(path, "max_bytes", message)


def _over_limit(place: Path | str, setting: str, message: str) -> ProblemFileError:
    return ProblemFileError([f"{place}: {message}"], f"Raise {setting} (data.{setting} for tmas solve) to read it.")


def _check_columns(place: Path | str, columns: Collection[str], fields: ProblemFields) -> None:
    missing = [column for column in fields.required if column not in columns]
    if columns and missing:
        present = ", ".join(map(repr, columns))
        raise ProblemFileError(
            [f"{place}: field {column!r}: no such column (the columns are {present})" for column in missing]
        )


def _selected(path: Path, rows: list[FileRow], fields: ProblemFields) -> list[FileRow]:
    """The rows whose ids are in ``fields.ids``, in the order of the file; all rows if there is no such list."""
    if fields.ids is None or fields.problem_id is None:
        return rows
    wanted = read_ids(fields.ids)
    found = {str(row.values.get(fields.problem_id)) for row in rows}
    if missing := sorted(wanted - found):
        raise ProblemFileError(
            [f"{path}: {len(missing)} of the {len(wanted)} problems of {fields.ids} are missing, such as {missing[0]}"],
            remedy="Use a file that has all of them, or set the list of ids to another one (null: all problems).",
        )
    return [row for row in rows if str(row.values.get(fields.problem_id)) in wanted]


def _problem(row: FileRow, fields: ProblemFields, generated_id: str) -> Problem:
    """Build the problem of a row. Raises :class:`_Defect` with a message for every invalid field."""
    if row.defect:
        raise _Defect(row.defect)
    wanted: list[tuple[str, str | None, Callable[[Any], Any]]] = [
        ("problem_id", fields.problem_id, _text),
        ("question", fields.question, lambda value: _string(value).strip()),
        ("answer", fields.answer, lambda value: _answer(value, fields)),
    ]
    kept = dict.fromkeys((*(column for _, column, _ in wanted if column), *fields.metadata))
    too_long = [
        f"field {column!r}: {len(value):,} characters, more than {fields.max_characters:,} (data.max_characters)"
        for column in kept
        if isinstance(value := row.values.get(column), str) and len(value) > fields.max_characters
    ]
    if too_long:
        raise _Defect(*too_long)
    parts: dict[str, Any] = {"problem_id": generated_id}
    defects: list[str] = []
    for part, column, read in wanted:
        try:
            parts |= {part: read(row.values.get(column))} if column else {}
        except _Defect as defect:
            defects.append(f"field {column!r}: {defect}")
    if defects:
        raise _Defect(*defects)
    return Problem(**parts, metadata={column: row.values.get(column) for column in fields.metadata})


def _string(value: Any) -> str:
    if value is None:
        raise _Defect("missing")
    if not isinstance(value, str):
        raise _Defect(f"is {type(value).__name__}, not text")
    if not value.strip():
        raise _Defect("empty")
    if not is_unicode(value):
        raise _Defect("not valid UTF-8")
    return value


def _text(value: Any) -> str:
    """Like :func:`_string`, but a finite number is converted to text."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if whole or (isinstance(value, float | Decimal) and math.isfinite(value)) else _string(value)


def _answer(value: Any, fields: ProblemFields) -> str | None:
    if value is None and not fields.answer_required:
        return None
    text = _text(value).strip()
    if fields.answer_regex is None:
        return text
    matches = list(re.finditer(fields.answer_regex, text))
    if not matches or not (matches[-1][1] or "").strip():
        raise _Defect(f"nothing matches {fields.answer_regex!r}")
    return matches[-1][1].strip()
