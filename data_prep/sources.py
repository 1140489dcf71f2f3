"""The settings of a source of problems, and functions that read question and answers from its rows."""

from __future__ import annotations

import math
import re
from typing import Any, Literal, Self

import orjson
from pydantic import Field, field_validator, model_validator

from tmas.answers.extract import extract_boxed
from tmas.problems.files import FileRow, is_unicode
from tmas.settings import Paths, Settings


class Source(Settings):
    """One data set, and the fields of its rows that have the question and the answer."""

    dataset: str | None = Field(default=None, description="Data set on the Hugging Face hub. null: only files.")
    subsets: tuple[str, ...] = Field(default=(), description="Configurations of the data set. Empty: its only one.")
    split: str = Field(default="train", description="Split of the data set.")
    revision: str | None = Field(
        default=None, description="Commit of the data set. It must be set, unless files replace the data set."
    )
    files: Paths = Field(
        default=(), description="Local files (.jsonl, .json, .csv, .parquet) to read instead of the hub."
    )
    question: str = Field(default="question", description="Path of the question in a row, such as prompt.0.content.")
    answer: str = Field(default="answer", description="Path of the answer in a row.")
    answer_form: Literal["text", "list", "boxed"] = Field(
        default="text",
        description="text: the answer itself. list: a JSON list of accepted answers. boxed: in the last box of a"
        " solution.",
    )
    answer_regex: str | None = Field(
        default=None,
        description="Regular expression whose last match holds the answer as its first group. null: the whole field.",
    )
    strip: tuple[str, ...] = Field(
        default=(), description="Regular expressions whose matches are removed from the question."
    )
    origin: str = Field(min_length=1, description="Where the problems come from, for the data card.")
    licence: str = Field(min_length=1, description="Licence of the problems, for the data card.")

    @field_validator("strip")
    @classmethod
    def _check_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            _count_groups(pattern)
        return patterns

    @field_validator("answer_regex")
    @classmethod
    def _check_answer_group(cls, pattern: str | None) -> str | None:
        if pattern is not None and _count_groups(pattern) == 0:
            raise ValueError("needs a group around the answer")
        return pattern

    @model_validator(mode="after")
    def _check_data_set(self) -> Self:
        if not self.files and not self.dataset:
            raise ValueError("needs files, or a dataset of the hub")
        if not self.files and not self.revision:
            raise ValueError("revision: set the commit of the data set, so that every run reads the same data")
        return self


class SourceDefect(ValueError):
    """A row has no usable question or answer. The message names the field."""


def question_of(row: FileRow, source: Source) -> str:
    """The question of a row, without matches of ``strip``. Raises :class:`SourceDefect` if nothing is left."""
    text = _checked_text(_value(row, source.question), source.question)
    for pattern in source.strip:
        text = re.sub(pattern, "", text)
    if not text.strip():
        raise SourceDefect(f"field {source.question!r}: empty after removing the matches of strip")
    return text.strip()


def answers_of(row: FileRow, source: Source) -> tuple[str, ...]:
    """The accepted answers of a row, at least one. A finite number counts as text. Raises :class:`SourceDefect`."""
    value = _value(row, source.answer)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    text = _checked_text(str(value) if is_number else value, source.answer)
    if source.answer_form == "list":
        return _parse_answer_list(text, source.answer)
    found = extract_boxed(text) if source.answer_form == "boxed" else text
    if source.answer_regex is not None:
        matches = list(re.finditer(source.answer_regex, text))
        found = matches[-1][1] if matches else None
    if not found or not found.strip():
        raise SourceDefect(f"field {source.answer!r}: contains no answer")
    return (found.strip(),)


def _parse_answer_list(text: str, field: str) -> tuple[str, ...]:
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError:
        values = None
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and v.strip() for v in values):
        raise SourceDefect(f"field {field!r}: not a JSON list of answers")
    return tuple(dict.fromkeys(value.strip() for value in values))


def _value(row: FileRow, dotted: str) -> Any:
    """The value at a path such as ``prompt.0.content``. None if it is missing."""
    if row.defect:
        raise SourceDefect(row.defect)
    value: Any = row.values
    for part in dotted.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def _checked_text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise SourceDefect(f"field {field!r}: {'missing' if value is None else f'is {type(value).__name__}, not text'}")
    if not value.strip() or not is_unicode(value):
        raise SourceDefect(f"field {field!r}: {'not valid UTF-8' if value.strip() else 'empty'}")
    return value


def _count_groups(pattern: str) -> int:
    """Number of groups of a regular expression."""
    try:
        return re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
