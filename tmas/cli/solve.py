"""The command ``tmas solve``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from tmas.cli.composing import validated
from tmas.cli.health import answer_advice, health_lines
from tmas.cli.runs import run_or_exit
from tmas.cli.tables import print_result
from tmas.data_prep.cost import Expected, estimate_lines, estimate_run
from tmas.problems.loader import SAMPLE, load_problems
from tmas.records import Problem
from tmas.records.reading import read_record, read_records
from tmas.records.run_files import FailureLine, Manifest, Prediction
from tmas.run.metrics import metrics
from tmas.settings import SolveSettings


def solve_command(config: dict[str, Any], console: Console) -> None:
    """``tmas solve``: read problems from a file, run them into a run directory, and print the result as tables."""
    settings = validated(SolveSettings.model_validate, config)
    loaded = load_problems(_problem_file(settings.problems), settings.data, settings.on_bad_problem)
    for message in loaded.skipped:
        console.print(f"skipped {message}", markup=False, highlight=False, soft_wrap=True)
    problems = loaded.problems[: settings.max_problems]
    if settings.dry_run:
        for text in _estimate(problems, settings):
            console.print(text, markup=False, highlight=False, soft_wrap=True)
        return
    run_or_exit(problems, settings, settings.output_dir, config=config, console=console)
    asked = {problem.problem_id for problem in problems}
    predictions = read_records(settings.output_dir / "predictions.jsonl", Prediction)
    lines = [line for line in predictions if line.problem_id in asked]
    every_failure = read_records(settings.output_dir / "failures.jsonl", FailureLine)
    failures = [line for line in every_failure if line.problem_id in asked]
    prices = read_record(settings.output_dir / "manifest.json", Manifest).prices
    totals = metrics(lines, failures, prices)
    print_result(console, settings.output_dir, totals, lines)
    for line in [*health_lines(totals.replies, settings), *answer_advice(lines, settings)]:
        console.print(Text(line), soft_wrap=True)


def _estimate(problems: Sequence[Problem], settings: SolveSettings) -> list[str]:
    """What the problems that are not finished will take, as lines for the user."""
    found = estimate_run(problems, settings, settings.output_dir, Expected())
    if found is None:
        return [
            f"There is no estimate for {settings.method.name} before its first problem is finished. Run the command"
            " with max_problems=2 first, then again with dry_run=true."
        ]
    return estimate_lines(found, settings, "solve")


def _problem_file(path: Path) -> Path:
    return SAMPLE if path == Path("sample") else path
