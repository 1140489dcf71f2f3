"""The runs that a report shows: each with its evaluation, those pooled that differ only by their seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
import uvloop

from tmas.errors import UserError
from tmas.evaluation.compare import Group, group_runs, scoring_of
from tmas.evaluation.compute import Evaluation
from tmas.evaluation.estimators import BootstrapSettings
from tmas.evaluation.evaluate import EvaluateSettings, evaluate
from tmas.files import read_lines
from tmas.records import SCHEMA_VERSION
from tmas.run.trace import trace_path

Line = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run directory and what it is called in the report. ``color``: the number of its group in every chart."""

    path: Path
    name: str
    color: int
    evaluation: Evaluation

    def predictions(self) -> Iterator[Line]:
        return read_lines(self.path / "predictions.jsonl")

    def trace(self, problem_id: str) -> Iterator[Line]:
        """The entries of a problem's trace, one at a time; none where the trace was taken away."""
        return read_lines(trace_path(self.path, problem_id))

    @cached_property
    def failures(self) -> dict[str, list[Line]]:
        """By problem."""
        found: dict[str, list[Line]] = {}
        for line in read_lines(self.path / "failures.jsonl"):
            found.setdefault(line["problem_id"], []).append(line)
        return found

    @property
    def failure_counts(self) -> Counter[tuple[str, str]]:
        """By role and reason."""
        lines = [line for found in self.failures.values() for line in found]
        return Counter((line["call"]["role"] if line["call"] else "none", line["reason"]) for line in lines)


@dataclass(frozen=True)
class Runs:
    """All of them, and how they go together."""

    runs: Sequence[Run]
    groups: Sequence[Group]
    scoring: str
    bootstrap: BootstrapSettings


def read_runs(paths: Sequence[Path], say: Callable[[str], None]) -> Runs:
    """Reads ``evaluation.json`` of each run; where there is none the run is evaluated by rule, and ``say`` says so.

    Raises ``ValueError`` where a run has gone on since it was evaluated.
    """
    if not paths:
        return Runs([], [], "rule", BootstrapSettings())
    evaluations = [_evaluation(path, say) for path in paths]
    groups = group_runs(paths, evaluations)
    runs = [
        Run(path, _name(group, evaluation), color, evaluation)
        for color, group in enumerate(groups)
        for path, evaluation in zip(group.runs, group.evaluations, strict=True)
    ]
    bootstrap = BootstrapSettings(**evaluations[0]["settings"]["bootstrap"])
    return Runs(runs, groups, scoring_of(evaluations), bootstrap)


def _name(group: Group, evaluation: Evaluation) -> str:
    return group.label if len(group.runs) == 1 else f"{group.label}, seed {evaluation['run']['seed']}"


def _evaluation(path: Path, say: Callable[[str], None]) -> Evaluation:
    file = path / "evaluation.json"
    if not file.exists():
        say(f"{path} has not been evaluated: doing it by rule")
        [evaluation] = uvloop.run(evaluate(EvaluateSettings(runs=(path,))))
        return evaluation
    try:
        evaluation = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise UserError(f"damaged ({error})", where=file, remedy="Run tmas evaluate again.") from None
    if evaluation["v"] != SCHEMA_VERSION:
        raise UserError(f"written in schema version {evaluation['v']}, not {SCHEMA_VERSION}", where=file)
    lengths = [len(line["iterations"]) for line in read_lines(path / "predictions.jsonl")]
    seen = evaluation["problems"]["finished"], sum(step["running"] for step in evaluation["iterations"])
    if seen != (len(lengths), sum(lengths)):
        raise UserError("the run has gone on since it was evaluated", where=file, remedy="Run tmas evaluate again.")
    return evaluation
