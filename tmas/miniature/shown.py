"""Prints the result of ``tmas demo``: a table of the methods, a chart of TMAS by iteration, and the next steps."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tmas.evaluation.compute import Measure, tokens_in_all
from tmas.records.evaluation_files import Estimate, Evaluation

NAMES = {"tmas": "TMAS", "best_of_n": "best of N", "majority_vote": "majority vote"}
GENERATED = Measure(unit="generated")
BAR_WIDTH = 20
"""Width of a full bar, in characters."""
NEXT_COMMAND = "solve problems=sample output_dir=runs/first model=qwen3_4b_thinking model.base_url=http://HOST:8000/v1"


def print_demo(console: Console, evaluations: Sequence[Evaluation], parameters: int, page: Path) -> None:
    """Print the result of the demo.

    ``evaluations``: the evaluations of the three runs, TMAS first. ``parameters``: size of the policy. ``page``: path
    of the HTML report.
    """
    console.print(_methods(evaluations))
    console.print(_by_iteration(evaluations))
    console.print(
        f"The policy is tiny ({parameters:,} parameters), and its task is made for the method. The figures show that "
        "this implementation does what the paper describes; they say nothing about TMAS on real mathematics.",
        highlight=False,
    )
    for label, text in (
        ("HTML report", str(page)),
        ("Next, a real model", f"{_program()} {NEXT_COMMAND}"),
        ("Again", f"the same command shows this result; delete {page.parent} to run the demo again"),
    ):
        console.print(Text.assemble((f"{label}: ", "bold"), text), soft_wrap=True)


def _methods(evaluations: Sequence[Evaluation]) -> Table:
    title = "Three methods with the same number of generated tokens per problem"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SQUARE, padding=0)
    for column in ("method", "candidates", "tokens", "Pass@1", "selected accuracy [95 %]"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for evaluation in evaluations:
        steps = list(evaluation.iterations)
        first, last = (_percent(step.scores["rule"]["pass_at_1"].value) for step in (steps[0], steps[-1]))
        each = steps[0].candidates // steps[0].running
        table.add_row(
            NAMES[evaluation.run.method],
            f"{each} x {len(steps)}" if len(steps) > 1 else str(each),
            f"{tokens_in_all([evaluation], GENERATED):,.0f}",
            f"{first} -> {last}" if len(steps) > 1 else first,
            _interval(steps[-1].scores["rule"]["selected"]),
        )
    return table


def _by_iteration(evaluations: Sequence[Evaluation]) -> Table:
    """Bars of Pass@1 and of the selected answers: one row per iteration of TMAS, then one per baseline."""
    ours, *others = evaluations
    table = Table(
        title="TMAS by iteration, then the others",
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 1, 0, 0),
    )
    for column in ("", "Pass@1", "", "selected accuracy", ""):
        table.add_column(column, justify="right" if not column else "left", no_wrap=True)
    for step in ours.iterations:
        table.add_row(f"iteration {step.iteration}", *_bars(step.scores["rule"], "green"))
    for other in others:
        table.add_row(NAMES[other.run.method], *_bars(other.iterations[-1].scores["rule"], "blue"))
    return table


def _bars(scores: Mapping[str, Estimate], color: str) -> list[Any]:
    cells: list[Any] = []
    for metric in ("pass_at_1", "selected"):
        share = scores[metric].value
        assert share is not None
        cells += [Bar(1.0, 0.0, share, width=BAR_WIDTH, color=color, bgcolor="grey23"), _percent(share)]
    return cells


def _interval(estimate: Estimate) -> str:
    low, high = estimate.low or 0.0, estimate.high or 0.0
    return f"{_percent(estimate.value)} [{100 * low:.0f}, {100 * high:.0f}]"


def _percent(share: float | None) -> str:
    """Format a share as a percentage. It is never None: the rule decides every problem of the demo."""
    assert share is not None
    return f"{100 * share:.1f} %"


def _program() -> str:
    """The path of ``tmas`` as the shell finds it."""
    return "tmas" if shutil.which("tmas") else os.path.relpath(Path(sys.executable).with_name("tmas"))
