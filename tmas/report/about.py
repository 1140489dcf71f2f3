"""The report's last tab: its runs, the settings that differ between them, and the content that was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from tmas.evaluation.naming import is_repeated
from tmas.prompts import hash_of
from tmas.records.live import ControlLine
from tmas.records.reading import read_record, read_records
from tmas.records.run_files import Manifest
from tmas.report.items import Cell, Choice, Item, Note, Option, Section, Table
from tmas.report.problems import TextBudget
from tmas.report.runs import ReportedRun, ReportedRuns
from tmas.report.status import limit_changes
from tmas.report.training_runs import TrainingRun
from tmas.run.control import CONTROL_FILE

LEFT_OUT = (
    "{left_out:,} characters of prompts, replies and reasoning are not in this file. Each problem names the "
    "command that shows all of its texts. A larger max_mb=... keeps more texts of all problems."
)
ALL_THERE = "Every prompt, reply and reasoning of the problems that can be opened is in this file."
READ_WHEN_OPENED = "The prompts, replies and reasoning of a problem are read from the run directory when it is opened."


def about_section(runs: ReportedRuns, trainings: Sequence[TrainingRun], budget: TextBudget | None) -> Section:
    """Return the last tab. ``budget`` must already account for all problems; None: the page contains no problem."""
    items = [*(_of_runs(runs.runs, budget) if runs.runs else []), *(_of_trainings(trainings) if trainings else [])]
    return Section("about", "About", items, f"Made by tmas report {metadata.version('tmas')}.")


def _of_runs(runs: Sequence[ReportedRun], budget: TextBudget | None) -> list[Item]:
    manifests = [read_record(run.path / "manifest.json", Manifest) for run in runs]
    settings = [{**m.settings, **{f"version of {k}": v for k, v in m.packages.items()}} for m in manifests]
    prompts = replaced_prompts([(run.name, _replaced(run)) for run in runs])
    changed = {run.name: limit_changes(read_records(run.path / CONTROL_FILE, ControlLine)) for run in runs}
    named = [replace(table, title=f"{table.title}: {name}") for name, table in changed.items() if table.rows]
    return [
        _runs(runs),
        *named,
        Note(_where_texts_are(budget)),
        *prompts,
        _settings("Settings", [run.name for run in runs], settings),
    ]


def _where_texts_are(budget: TextBudget | None) -> str:
    if budget is None:
        return READ_WHEN_OPENED
    return LEFT_OUT.format(left_out=budget.left_out) if budget.left_out else ALL_THERE


def _of_trainings(runs: Sequence[TrainingRun]) -> list[Item]:
    table = Table(
        title="Training runs",
        columns=["Run", "Directory", "Starts", "First steps of the starts", "Steps", "config.yaml"],
        rows=[_training(run) for run in runs],
        text_columns=2,
        note="A start resumes from a checkpoint. If a step was repeated, its last values are shown.",
    )
    known = [(run.name, run.settings) for run in runs if run.settings is not None]
    prompts = replaced_prompts([(run.name, _texts_in(run.last_start / "prompts")) for run in runs])
    return [table, *prompts, *([_settings("Settings of training", *zip(*known, strict=True))] if known else [])]


def replaced_prompts(runs: Sequence[tuple[str, Mapping[str, str]]]) -> list[Item]:
    """Return the prompts that users replaced, from each run's name and prompt texts. Empty if none was replaced."""
    rows = [[run, f"{name}.jinja", hash_of(text)] for run, texts in runs for name, text in texts.items()]
    note = (
        "Their texts are in the folder prompts of each run directory, those of judges in evaluation.json. All other "
        "prompts are built in."
    )
    table = Table("Replaced prompts", ["Run", "File", "Hash"], rows, text_columns=3, note=note)
    return [table] if rows else []


def _replaced(run: ReportedRun) -> dict[str, str]:
    """Return the replaced prompts: the agents' from the run directory, the judge's from the evaluation."""
    judge = run.evaluation.settings.judge
    return {**_texts_in(run.path / "prompts"), **(judge.replaced if judge else {})}


def _texts_in(folder: Path) -> dict[str, str]:
    return {file.stem: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.jinja"))}


def _training(run: TrainingRun) -> list[str | Cell]:
    began = ", ".join(map(str, run.began))
    there = "missing" if run.settings is None else "read"
    return [run.name, str(run.path), str(len(run.began)), began, f"{len(run.trained):,}", there]


def _runs(runs: Sequence[ReportedRun]) -> Table:
    return Table(
        title="Runs",
        columns=["Run", "Directory", "Method", "Benchmark", "Model", "Seed", "Problems", "Not finished", "Ended"],
        rows=[_run(run) for run in runs],
        text_columns=5,
    )


def _run(run: ReportedRun) -> list[str | Cell]:
    about, problems = run.evaluation.run, run.evaluation.problems
    return [
        run.name,
        str(run.path),
        about.method,
        about.benchmark or "–",
        ", ".join(dict.fromkeys(about.models.values())),
        str(about.seed),
        f"{problems.finished:,}",
        f"{problems.unfinished:,}",
        ", ".join(f"{count} {stop.replace('_', ' ')}" for stop, count in problems.stops.items()),
    ]


def _settings(label: str, names: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> Item:
    """Compare settings across runs. ``settings`` has the flat settings of each run."""
    keys = list(dict.fromkeys(key for one in settings for key in one))
    own = {key for one in settings for key in one if not is_repeated(key, one)}
    differing = [key for key in keys if key in own and len({str(one.get(key, "–")) for one in settings}) > 1]

    def table(title: str, shown: Sequence[str]) -> Table:
        rows = [[key, *(str(one.get(key, "–")) for one in settings)] for key in shown]
        return Table(title, ["Setting", *names], rows, text_columns=1 + len(names))

    options = [Option("Differing", table("Settings in which the runs differ", differing))] if differing else []
    return Choice(label, [*options, Option("All", table("All settings", keys))])
