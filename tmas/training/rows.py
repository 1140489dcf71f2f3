"""Training rows: the one parquet schema, its records, and the files that hold them.

A row is one solution prompt and what its reward needs. ``_source`` names the prompt's kind: ``normal`` A_sol(Q),
``experience`` A_sol(Q, R, E), ``guideline`` A_sol(Q, G); :mod:`tmas.training.contexts` renders them. The gold answer
stands in ``reward_model`` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pyarrow
from pyarrow import parquet
from pydantic import AfterValidator, AliasChoices, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from tmas.errors import FileDefects
from tmas.files import whole_file
from tmas.records import Experience, Guideline, Message, Record
from tmas.rewards.hybrid import Source

DataSource = Literal["math", "math_grm"]
Split = Literal["train", "validation"]
STYLES: Mapping[DataSource, Literal["rule", "model"]] = {"math": "rule", "math_grm": "model"}
"""How each ``data_source`` is checked: by math-verify, or by a generative judge."""
UNKNOWN_PASS_RATE = -1.0
SCHEMA = pyarrow.schema(
    {
        "prompt": pyarrow.list_(pyarrow.struct({"role": pyarrow.string(), "content": pyarrow.string()})),
        "data_source": pyarrow.string(),
        "ability": pyarrow.string(),
        "reward_model": pyarrow.struct({"style": pyarrow.string(), "ground_truth": pyarrow.string()}),
        "extra_info": pyarrow.struct(
            {
                "index": pyarrow.int64(),
                "split": pyarrow.string(),
                "problem_id": pyarrow.string(),
                "question": pyarrow.string(),
                "source": pyarrow.string(),
                "iteration": pyarrow.int64(),
                "experience": pyarrow.string(),
                "guidelines": pyarrow.string(),
                "baseline_pass_rate": pyarrow.float64(),
                "origin": pyarrow.string(),
                "licence": pyarrow.string(),
            }
        ),
        "_source": pyarrow.string(),
    }
)
"""Exactly this, in every file: verl concatenates them, and structs that differ do not go together."""
_BATCH = 256


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


Text = Annotated[str, AfterValidator(_not_blank)]
PassRate = Annotated[float, Field(ge=-1, le=1)]


class _Strict(Record):
    model_config = ConfigDict(strict=True)


class RewardModel(_Strict):
    style: Literal["rule", "model"]
    ground_truth: Text


class ExtraInfo(_Strict):
    """``index``: the row's place in its file. ``iteration``: the one whose prompt this is, -1 for ``normal``.

    ``experience`` and ``guidelines``: the bank items that the prompt shows, as JSON lists of
    :class:`~tmas.records.Experience` and :class:`~tmas.records.Guideline`.
    """

    index: int = Field(ge=0)
    split: Split
    problem_id: Text
    question: Text
    source: Source
    iteration: int = Field(ge=-1)
    experience: str
    guidelines: str
    baseline_pass_rate: PassRate
    origin: str
    licence: str


class TrainingRow(_Strict):
    """One row as it lies in the parquet file; ``source`` is its column ``_source``."""

    prompt: Annotated[tuple[Message, ...], Field(min_length=1, strict=False)]
    data_source: DataSource
    ability: Literal["math"] = "math"
    reward_model: RewardModel
    extra_info: ExtraInfo
    source: Source = Field(validation_alias=AliasChoices("_source", "source"), serialization_alias="_source")

    @property
    def experiences(self) -> list[Experience]:
        return TypeAdapter(list[Experience]).validate_json(self.extra_info.experience)

    @property
    def guidelines(self) -> list[Guideline]:
        return TypeAdapter(list[Guideline]).validate_json(self.extra_info.guidelines)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        info = self.extra_info
        if info.source != self.source:
            raise ValueError(f"field _source: {self.source!r}, but extra_info.source is {info.source!r}")
        if self.reward_model.style != STYLES[self.data_source]:
            raise ValueError(f"field reward_model.style: {self.reward_model.style!r} for {self.data_source!r}")
        if not all(message.content.strip() for message in self.prompt):
            raise ValueError("field prompt: holds an empty message")
        if (info.iteration < 0) != (self.source == "normal"):
            raise ValueError(f"field extra_info.iteration: {info.iteration} in a {self.source!r} row")
        for field, owner in (("experience", "experience"), ("guidelines", "guideline")):
            if bool(self._items(field)) != (self.source == owner):
                raise ValueError(f"field extra_info.{field}: there are items in {owner!r} rows, and only there")
        return self

    def _items(self, field: str) -> Sequence[Record]:
        try:
            return self.experiences if field == "experience" else self.guidelines
        except ValidationError as error:
            raise ValueError(f"field extra_info.{field}: not a JSON list of bank items ({_first(error)})") from None


class RowFileError(FileDefects):
    """Defects of a parquet file of rows."""


def write_rows(path: Path, rows: Iterable[TrainingRow]) -> int:
    """Write ``rows`` in their order and return how many; ``index`` becomes each one's place. The file appears whole."""
    count = 0
    with whole_file(path) as file, parquet.ParquetWriter(file, SCHEMA) as writer:
        remaining = iter(rows)
        while values := [row.model_dump(by_alias=True) for row in islice(remaining, _BATCH)]:
            for place, value in enumerate(values, count):
                value["extra_info"]["index"] = place
            writer.write_table(pyarrow.Table.from_pylist(values, SCHEMA))
            count += len(values)
    return count


def read_rows(path: Path) -> Iterator[TrainingRow]:
    """The rows of a file, a batch at a time in memory; raises :class:`RowFileError` at the first defect."""
    for checked in _checked(path):
        if isinstance(checked, str):
            raise RowFileError([checked])
        yield checked


def validate_rows(path: Path) -> int:
    """How many rows the file holds; raises :class:`RowFileError` with every defect by file, row (from 1) and field."""
    defects: list[str] = []
    first: dict[int, int] = {}
    count = 0
    for count, checked in enumerate(_checked(path), 1):
        if isinstance(checked, str):
            defects.append(checked)
            continue
        index = checked.extra_info.index
        if first.setdefault(index, count) != count:
            defects.append(
                f"{path}: row {count}: field extra_info.index: {index} is the index of row {first[index]} too"
            )
    if not count:
        defects.append(f"{path}: holds no rows")
    if defects:
        raise RowFileError(defects)
    return count


def _checked(path: Path) -> Iterator[TrainingRow | str]:
    """Each row, or what is wrong with it; a file that cannot be read or lacks a column is refused as a whole."""
    try:
        with parquet.ParquetFile(path) as file:
            defects = _type_defects("", *(pyarrow.struct(list(schema)) for schema in (file.schema_arrow, SCHEMA)))
            if refused := [f"{path}: {defect}" for defect in defects]:
                raise RowFileError(refused)
            rows = chain.from_iterable(batch.to_pylist() for batch in file.iter_batches(_BATCH))
            for number, values in enumerate(rows, 1):
                yield _row(values, f"{path}: row {number}")
    except (pyarrow.ArrowException, OSError) as error:
        raise RowFileError([f"{path}: cannot be read as parquet: {error}"]) from error


def _type_defects(name: str, found: pyarrow.DataType, wanted: pyarrow.DataType) -> Iterator[str]:
    if pyarrow.types.is_struct(wanted) and pyarrow.types.is_struct(found):
        there, needed = ({field.name: field.type for field in struct} for struct in (found, wanted))
        for field in dict.fromkeys([*needed, *there]):
            inner = f"{name}.{field}" if name else field
            if field not in there:
                yield f"field {inner}: there is no such column"
            elif field not in needed:
                yield f"field {inner}: unknown column"
            else:
                yield from _type_defects(inner, there[field], needed[field])
    elif pyarrow.types.is_list(wanted) and pyarrow.types.is_list(found):
        yield from _type_defects(f"{name}[]", found.value_type, wanted.value_type)
    elif found != wanted:
        yield f"field {name}: is {found}, must be {wanted}"


def _row(values: dict[str, Any], place: str) -> TrainingRow | str:
    try:
        return TrainingRow.model_validate(values)
    except ValidationError as error:
        return f"{place}: {_first(error)}"


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, with its field."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return (f"field {field}: " if field else "") + first["msg"].removeprefix("Value error, ")
