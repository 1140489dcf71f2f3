"""The problem files that the steps exchange: JSONL, one :class:`~tmas.training.contexts.TrainingProblem` per line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from tmas.problems.loader import ProblemFileError
from tmas.training.contexts import TrainingProblem

Log = Callable[[str], None]
"""Shows one line of text to the user."""
WorkspaceFolder = Annotated[
    Path | None,
    Field(description="Folder that collect, filter, distill and build share; their default paths are folders in it."),
]


def read_problems(path: Path, written_by: str = "the step that writes it") -> Iterator[TrainingProblem]:
    """Yield the problems of a file that the command ``written_by`` wrote.

    Raises :class:`ProblemFileError` if there is no such file, and at the first invalid line.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield _problem(line, f"{path}:{number}")
    except OSError as error:
        remedy = f"Run {written_by} first, or set workspace or problems to where the file is."
        raise ProblemFileError([f"{path}: {error.strerror}"], remedy) from error


def _problem(line: bytes, place: str) -> TrainingProblem:
    try:
        return TrainingProblem.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ProblemFileError(
            [f"{place}: field {field!r}: {first['msg']}" if field else f"{place}: {first['msg']}"]
        ) from None
