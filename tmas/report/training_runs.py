"""The training runs in a report. Reads what ``tmas train`` wrote under ``starts/`` and joins the starts of each run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tmas.errors import UserError
from tmas.evaluation.compare import distinct_names
from tmas.settings import flatten

NO_CURVES = (
    "no line in {path}/starts/*/metrics.jsonl, so there are no curves. Either this is not an output_dir of tmas "
    "train, or its first step has not ended, or trainer.logger of the run lacks file"
)


class Logged(BaseModel):
    """A line of ``metrics.jsonl``, written by verl's file logger. Values that are not numbers (NaN) are null."""

    model_config = ConfigDict(frozen=True, strict=True)

    step: int
    data: dict[str, float | None]


Steps = Mapping[int, Mapping[str, float | None]]
"""Maps each step, in order, to its logged values by verl's names."""


@dataclass(frozen=True)
class TrainingRun:
    """A training run. ``color``: its palette number in charts. ``began``: the first step that each start logged."""

    path: Path
    name: str
    color: int
    began: Sequence[int]
    steps: Steps

    @cached_property
    def names(self) -> list[str]:
        """Return the names of all values in the order in which they were first logged."""
        return list(dict.fromkeys(name for data in self.steps.values() for name in data))

    def values(self, name: str, zero_if_logged: str | None = None) -> dict[int, float]:
        """Return a value by step, where it is a number.

        ``zero_if_logged``: at steps that logged this other value, a missing value is 0. For example, the share of an
        outcome is not logged if no sample had that outcome.
        """
        found = ((step, data.get(name, 0.0 if zero_if_logged in data else None)) for step, data in self.steps.items())
        return {step: value for step, value in found if value is not None and isfinite(value)}

    @property
    def non_finite_steps(self) -> dict[str, list[int]]:
        """Return by name the steps at which a value was logged as NaN or infinite."""
        found: dict[str, list[int]] = {}
        for step, data in self.steps.items():
            for name, value in data.items():
                if value is None or not isfinite(value):
                    found.setdefault(name, []).append(step)
        return found

    @property
    def trained(self) -> list[int]:
        """Return the trained steps. Steps with only a validation are excluded."""
        return [step for step, data in self.steps.items() if not _only_validates(data)]

    @property
    def last_start(self) -> Path:
        return max(self.path.glob("starts/*/metrics.jsonl")).parent

    @cached_property
    def settings(self) -> dict[str, Any] | None:
        """Return the flat settings of the last start, or None if its ``config.yaml`` is missing.

        Environment variables are left out, because they may hold keys and the report may be shared. The texts of
        replaced prompts are left out too, because the report shows their hashes.
        """
        file = self.last_start / "config.yaml"
        if not file.exists():
            return None
        try:
            settings = flatten(yaml.safe_load(file.read_bytes()))
        except yaml.YAMLError as error:
            raise UserError(str(error), where=file) from None
        return {key: value for key, value in settings.items() if not _is_left_out(key)}


def _is_left_out(key: str) -> bool:
    return key.startswith("env.") or ".env_vars." in key or key.endswith(".reward_kwargs.settings.prompts")


def read_training(paths: Sequence[Path], first_color: int = 0) -> list[TrainingRun]:
    """Read training runs.

    Raises ``UserError`` if a directory has no curves, or if a line cannot be read (named by file and number).
    """
    return [
        TrainingRun(path, name, first_color + i, *_read(path))
        for i, (path, name) in enumerate(zip(paths, distinct_names(paths), strict=True))
    ]


def _read(path: Path) -> tuple[list[int], Steps]:
    files = sorted(path.glob("starts/*/metrics.jsonl"))
    starts = [lines for lines in (list(_lines(file)) for file in files) if lines]
    if not starts:
        raise UserError(NO_CURVES.format(path=path), where=path)
    return [lines[0].step for lines in starts], joined(starts)


def joined(starts: Sequence[Sequence[Logged]]) -> Steps:
    """Join the curves of all starts into one. No start may be empty.

    A start resumes from a checkpoint. It repeats the steps that earlier starts did after that checkpoint, so the
    earlier values are dropped. A validation before its first step belongs to the checkpoint. It is added to the
    values of the checkpoint's step.
    """
    steps: dict[int, dict[str, float | None]] = {}
    for lines in starts:
        checkpoint = lines[0].step if _only_validates(lines[0].data) else lines[0].step - 1
        steps = {step: data for step, data in steps.items() if step <= checkpoint}
        for line in lines:
            steps[line.step] = {**steps.get(line.step, {}), **line.data}
    return dict(sorted(steps.items()))


def _only_validates(data: Mapping[str, float | None]) -> bool:
    """Return whether a line has only a validation. A start writes one for the resumed policy, before its first step."""
    return all(name.startswith("val-") for name in data)


def _lines(file: Path) -> Iterator[Logged]:
    """Yield the complete lines. A line without an end was cut off by a kill or is still being written."""
    with file.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield Logged.model_validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(str(part) for part in first["loc"]) or "line"
                raise UserError(f"{place}: {first['msg']}", where=f"{file}:{number}") from None
