"""The runs in a report with their evaluations. Runs that differ only by seed are pooled into a group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import uvloop

from tmas.errors import UserError
from tmas.evaluation.compare import Group, group_runs, scoring_of
from tmas.evaluation.estimators import BootstrapSettings
from tmas.evaluation.evaluate import EvaluateSettings, evaluate, evaluations_of
from tmas.records.evaluation_files import Evaluation
from tmas.records.reading import DefectiveFile, read_record, read_records
from tmas.records.run_files import FailureLine, Prediction
from tmas.records.trace_lines import CallLine
from tmas.run.trace import read_calls, trace_path


@dataclass(frozen=True)
class ReportedRun:
    """A run directory and its name in the report. ``color``: its group's palette number in every chart."""

    path: Path
    name: str
    color: int
    evaluation: Evaluation

    def predictions(self) -> Iterator[Prediction]:
        return read_records(self.path / "predictions.jsonl", Prediction)

    def calls(self, problem_id: str) -> Iterator[CallLine]:
        """Yield the calls in a problem's trace one at a time. Yields nothing if the trace was removed."""
        file = trace_path(self.path, problem_id)
        return read_calls(file) if file.exists() else iter(())

    @cached_property
    def failures(self) -> dict[str, list[FailureLine]]:
        """Return the failures by problem."""
        found: dict[str, list[FailureLine]] = {}
        for line in read_records(self.path / "failures.jsonl", FailureLine):
            found.setdefault(line.problem_id, []).append(line)
        return found

    @property
    def failure_counts(self) -> Counter[tuple[str, str]]:
        """Count the failures by role and reason."""
        lines = [line for found in self.failures.values() for line in found]
        return Counter((line.call.role if line.call else "none", line.reason.value) for line in lines)


@dataclass(frozen=True)
class ReportedRuns:
    """All runs of a report, and their groups."""

    runs: Sequence[ReportedRun]
    groups: Sequence[Group]
    scoring: str
    bootstrap: BootstrapSettings


def read_runs(paths: Sequence[Path], say: Callable[[str], None], baseline: str | None = None) -> ReportedRuns:
    """Read ``evaluation.json`` of each run. A run without it is evaluated by rule, and ``say`` reports this.

    Raises ``UserError`` if a run was resumed after its evaluation, or if no method is the ``baseline``.
    """
    if not paths:
        return ReportedRuns([], [], "rule", BootstrapSettings())
    return _reported(paths, [_evaluation(path, say) for path in paths], baseline)


def read_growing_run(path: Path) -> ReportedRuns:
    """Read a run that may be live. Nothing is written: without a current ``evaluation.json``, it is evaluated by rule.

    Raises ``UserError`` if no problem is finished yet.
    """
    try:
        evaluation = _stored_evaluation(path)
    except (FileNotFoundError, UserError):  # not evaluated, resumed after that, or a damaged file
        [evaluation] = uvloop.run(evaluations_of(EvaluateSettings(runs=(path,))))
    return _reported([path], [evaluation])


def _reported(paths: Sequence[Path], evaluations: Sequence[Evaluation], baseline: str | None = None) -> ReportedRuns:
    groups = group_runs(paths, evaluations, baseline)
    names = labels_on_benchmarks(groups)
    runs = [
        ReportedRun(path, _name(names[group.runs], group, evaluation), color, evaluation)
        for color, group in enumerate(groups)
        for path, evaluation in zip(group.runs, group.evaluations, strict=True)
    ]
    bootstrap = BootstrapSettings.model_validate(evaluations[0].settings.bootstrap.model_dump())
    return ReportedRuns(runs, groups, scoring_of(evaluations), bootstrap)


def labels_on_benchmarks(groups: Sequence[Group]) -> dict[tuple[Path, ...], str]:
    """Return the label of each group by its runs. With several benchmarks, the label includes the benchmark."""
    several = len({group.benchmark for group in groups}) > 1
    return {group.runs: f"{group.label} on {group.benchmark}" if several else group.label for group in groups}


def _name(label: str, group: Group, evaluation: Evaluation) -> str:
    return label if len(group.runs) == 1 else f"{label}, seed {evaluation.run.seed}"


def _evaluation(path: Path, say: Callable[[str], None]) -> Evaluation:
    if not (path / "evaluation.json").exists():
        say(f"{path} has not been evaluated: evaluating it by rule")
        [evaluation] = uvloop.run(evaluate(EvaluateSettings(runs=(path,))))
        return evaluation
    return _stored_evaluation(path)


def _stored_evaluation(path: Path) -> Evaluation:
    """Read ``evaluation.json``. Raises ``UserError`` if it describes an earlier state of the run."""
    file = path / "evaluation.json"
    try:
        evaluation = read_record(file, Evaluation)
    except DefectiveFile as error:
        raise DefectiveFile(error.what, where=error.where, remedy="Run tmas evaluate again.") from None
    lengths = [len(line.iterations) for line in read_records(path / "predictions.jsonl", Prediction)]
    seen = evaluation.problems.finished, sum(step.running for step in evaluation.iterations)
    if seen != (len(lengths), sum(lengths)):
        raise UserError("the run was resumed after it was evaluated", where=file, remedy="Run tmas evaluate again.")
    return evaluation
