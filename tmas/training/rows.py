"""Training rows for reinforcement learning: the parquet schema, the records, and functions that read and write files.

A row has one prompt and the data that its reward needs. The column ``_source`` names the kind of prompt. Three kinds
are prompts of the solution agent: ``normal`` is A_sol(Q), ``experience`` is A_sol(Q, R, E), and ``guideline`` is
A_sol(Q, G). In the notation of the paper, Q is the problem, R are the rollouts of the previous iteration, E is the
experience bank, and G is the guideline bank. ``verification`` is a prompt of the verification agent.

:mod:`tmas.training.contexts` renders the prompts. Only ``reward_model`` has the gold answer.
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
from tmas.rewards.verification import VerificationTruth

AnswerSource = Literal["math", "math_grm"]
"""``data_source`` of the rows whose response is an answer: all rows except ``verification`` rows."""
DataSource = Literal["math", "math_grm", "verification"]
Split = Literal["train", "validation"]
STYLES: Mapping[DataSource, Literal["rule", "model"]] = {"math": "rule", "math_grm": "model", "verification": "rule"}
"""How the response to a row of each ``data_source`` is checked: ``rule`` is code, ``model`` is an LLM judge."""
UNKNOWN_PASS_RATE = -1.0
"""``baseline_pass_rate`` of a problem whose pass rate was not measured."""
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
"""The schema of every row file. verl concatenates the files, which fails if their structs differ."""
_BATCH = 256
_EXPERIENCES = TypeAdapter(list[Experience])
_GUIDELINES = TypeAdapter(list[Guideline])


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


Text = Annotated[str, AfterValidator(_not_blank)]
PassRate = Annotated[float, Field(ge=-1, le=1)]


class _Strict(Record):
    model_config = ConfigDict(strict=True)


class RewardModel(_Strict):
    """The gold answer and how to check it. verl prescribes the name of this column.

    ``ground_truth``: in ``verification`` rows, a :class:`~tmas.rewards.verification.VerificationTruth` as JSON.
    """

    style: Literal["rule", "model"]
    ground_truth: Text


class ExtraInfo(_Strict):
    """Data about a row that the reward and the logs use.

    ``index``: the row's position in its file, from 0. ``iteration``: the TMAS iteration that the prompt belongs to, -1
    for ``normal``; in ``verification`` rows, the iteration of the candidate. ``experience`` and ``guidelines``: the
    bank items in the prompt, as JSON lists of :class:`~tmas.records.Experience` and :class:`~tmas.records.Guideline`.
    ``baseline_pass_rate``: pass rate of the policy without memory, or :data:`UNKNOWN_PASS_RATE`. ``origin``: the data
    set that the problem comes from. ``licence``: the licence of that data set.
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
    """One row of a parquet file. The field ``source`` is the column ``_source``.

    ``prompt``: the messages, to which verl applies the policy's chat template. The first one may be a system message;
    the last one is from the user.
    """

    prompt: Annotated[tuple[Message, ...], Field(min_length=1, strict=False)]
    data_source: DataSource
    ability: Literal["math"] = "math"
    reward_model: RewardModel
    extra_info: ExtraInfo
    source: Source = Field(validation_alias=AliasChoices("_source", "source"), serialization_alias="_source")

    @property
    def experiences(self) -> list[Experience]:
        return _EXPERIENCES.validate_json(self.extra_info.experience)

    @property
    def guidelines(self) -> list[Guideline]:
        return _GUIDELINES.validate_json(self.extra_info.guidelines)

    @property
    def truth(self) -> VerificationTruth | None:
        """What is known about the candidate of a ``verification`` row; None for other rows."""
        if self.source != "verification":
            return None
        return VerificationTruth.model_validate_json(self.reward_model.ground_truth)

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        info = self.extra_info
        if info.source != self.source:
            raise ValueError(f"field _source: {self.source!r}, but extra_info.source is {info.source!r}")
        if self.reward_model.style != STYLES[self.data_source]:
            raise ValueError(
                f"field reward_model.style: {self.reward_model.style!r} for {self.data_source!r}, must be "
                f"{STYLES[self.data_source]!r}"
            )
        if (self.source == "verification") != (self.data_source == "verification"):
            raise ValueError(f"field data_source: {self.data_source!r} in a {self.source!r} row")
        self._check_truth()
        if not all(message.content.strip() for message in self.prompt):
            raise ValueError("field prompt: contains an empty message")
        roles = [message.role for message in self.prompt]
        if "system" in roles[1:] or roles[-1] != "user":
            raise ValueError(
                "field prompt: only the first message may be a system message, and the last must be the user's"
            )
        if (info.iteration < 0) != (self.source == "normal"):
            raise ValueError(
                f"field extra_info.iteration: {info.iteration} in a {self.source!r} row; must be -1 in 'normal' rows "
                "and at least 0 in others"
            )
        for field, owner in (("experience", "experience"), ("guidelines", "guideline")):
            if bool(self._items(field)) != (self.source == owner):
                raise ValueError(
                    f"field extra_info.{field}: must have items in {owner!r} rows and must be empty in others"
                )
        return self

    def _check_truth(self) -> None:
        try:
            _ = self.truth
        except ValidationError as error:
            raise ValueError(f"field reward_model.ground_truth: {_first(error)}") from None

    def _items(self, field: str) -> Sequence[Record]:
        try:
            return self.experiences if field == "experience" else self.guidelines
        except ValidationError as error:
            raise ValueError(f"field extra_info.{field}: not a JSON list of bank items ({_first(error)})") from None


class RowFileError(FileDefects):
    """Defects of a parquet file of training rows."""


def write_rows(path: Path, rows: Iterable[TrainingRow]) -> int:
    """Write ``rows`` in their order and return their number. Sets the ``index`` of each row to its position.

    The file appears only when it is complete.
    """
    count = 0
    with whole_file(path) as file, parquet.ParquetWriter(file, SCHEMA) as writer:
        remaining = iter(rows)
        while values := [row.model_dump(by_alias=True) for row in islice(remaining, _BATCH)]:
            for index, value in enumerate(values, count):
                value["extra_info"]["index"] = index
            writer.write_table(pyarrow.Table.from_pylist(values, SCHEMA))
            count += len(values)
    return count


def read_rows(path: Path) -> Iterator[TrainingRow]:
    """Yield the rows of a file, one batch in memory at a time. Raises :class:`RowFileError` at the first defect."""
    for checked in _checked(path):
        if isinstance(checked, str):
            raise RowFileError([checked])
        yield checked


def validate_rows(path: Path) -> int:
    """Check all rows of a file and return their number. Raises :class:`RowFileError` like :func:`validated_rows`."""
    return sum(1 for _ in validated_rows(path))


def validated_rows(path: Path) -> Iterator[TrainingRow]:
    """Yield the rows of a file that are valid on their own.

    After the last row, raises :class:`RowFileError` with every defect, each with its file, row (from 1) and field.
    """
    defects: list[str] = []
    row_by_index: dict[int, int] = {}
    count = 0
    for count, checked in enumerate(_checked(path), 1):
        if isinstance(checked, str):
            defects.append(checked)
            continue
        index = checked.extra_info.index
        if row_by_index.setdefault(index, count) != count:
            defects.append(
                f"{path}: row {count}: field extra_info.index: row {row_by_index[index]} also has the index {index}"
            )
        yield checked
    if not count:
        defects.append(f"{path}: contains no rows")
    if defects:
        raise RowFileError(defects)


def _checked(path: Path) -> Iterator[TrainingRow | str]:
    """Yield each row, or a message with its defect.

    Raises :class:`RowFileError` if the file cannot be read or its columns do not match :data:`SCHEMA`.
    """
    try:
        with parquet.ParquetFile(path) as file:
            defects = _type_defects("", *(pyarrow.struct(list(schema)) for schema in (file.schema_arrow, SCHEMA)))
            if messages := [f"{path}: {defect}" for defect in defects]:
                raise RowFileError(messages)
            rows = chain.from_iterable(batch.to_pylist() for batch in file.iter_batches(_BATCH))
            for number, values in enumerate(rows, 1):
                yield _row(values, f"{path}: row {number}")
    except (pyarrow.ArrowException, OSError) as error:
        raise RowFileError([f"{path}: cannot be read as parquet: {error}"]) from error


def _type_defects(name: str, found: pyarrow.DataType, wanted: pyarrow.DataType) -> Iterator[str]:
    """Yield the defects of the type of the field ``name``, including the fields of structs and the items of lists."""
    if pyarrow.types.is_struct(wanted) and pyarrow.types.is_struct(found):
        present, required = ({field.name: field.type for field in struct} for struct in (found, wanted))
        for field in dict.fromkeys([*required, *present]):
            inner = f"{name}.{field}" if name else field
            if field not in present:
                yield f"field {inner}: the column is missing"
            elif field not in required:
                yield f"field {inner}: unknown column"
            else:
                yield from _type_defects(inner, present[field], required[field])
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
    """The message of the first defect, with its field."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return (f"field {field}: " if field else "") + first["msg"].removeprefix("Value error, ")
