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
    """``tmas solve``: read problems from a file, solve them, and print the result as tables.

    Everything is written to a run directory.
    """
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
    selected_ids = {problem.problem_id for problem in problems}  # the run directory may have results of other problems
    every_prediction = read_records(settings.output_dir / "predictions.jsonl", Prediction)
    predictions = [prediction for prediction in every_prediction if prediction.problem_id in selected_ids]
    every_failure = read_records(settings.output_dir / "failures.jsonl", FailureLine)
    failures = [failure for failure in every_failure if failure.problem_id in selected_ids]
    prices = read_record(settings.output_dir / "manifest.json", Manifest).prices
    totals = metrics(predictions, failures, prices)
    print_result(console, settings.output_dir, totals, predictions)
    for text in [*health_lines(totals.replies, settings), *answer_advice(predictions, settings)]:
        console.print(Text(text), soft_wrap=True)


def _estimate(problems: Sequence[Problem], settings: SolveSettings) -> list[str]:
    """The estimated calls, tokens and cost of the unfinished problems, as lines of text."""
    found = estimate_run(problems, settings, settings.output_dir, Expected())
    if found is None:
        return [
            f"There is no estimate for {settings.method.name} before its first problem is finished. Run the command"
            " with max_problems=2 first, then again with dry_run=true."
        ]
    return estimate_lines(found, settings, "solve")


def _problem_file(path: Path) -> Path:
    return SAMPLE if path == Path("sample") else path
