"""The command ``tmas whatif``."""

from __future__ import annotations

from typing import Any

import uvloop
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from tmas.cli.composing import validated
from tmas.evaluation.whatif import WhatIfSettings, whatif
from tmas.files import write_json
from tmas.records.whatif_files import Certainty, WhatIf, WhatIfRow

MARKS: dict[Certainty, str] = {"exact": "", "approximate": "~", "lower_bound": "≥", "open": "?"}
"""The mark of a row in the table, by how certain the row is."""
LEGEND: dict[Certainty, str] = {
    "exact": "",
    "approximate": "~ approximate",
    "lower_bound": "≥ a lower bound",
    "open": "? some results are not known",
}
"""The meaning of each mark."""
SHARES = ("selected", "pass_at_1")
"""Rows that are shown in percent. All others are counts."""


def whatif_command(config: dict[str, Any], console: Console) -> None:
    """``tmas whatif``: compare a finished run with what other settings of its method would have given."""
    settings = validated(WhatIfSettings.model_validate, config)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("problems")
        result = uvloop.run(whatif(settings, lambda done, of: bar.update(task, completed=done, total=of)))
    print_whatif(console, result)
    if settings.output:
        write_json(settings.output, result)


def print_whatif(console: Console, result: WhatIf) -> None:
    """Print the table, and each reason for a mark in it once."""
    changes = ", ".join(f"method.{key}={'none' if value is None else value}" for key, value in result.changes.items())
    title = f"{result.problems} problems, with {changes or 'the recorded settings'}: means per problem"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SQUARE, padding=0)
    table.add_column("")
    for name in ("recorded", "what if", "difference", "interval", ""):
        table.add_column(name, justify="right")
    for row in result.rows:
        form = _percent if row.name in SHARES else _count
        interval = f"{form(row.difference.low)} to {form(row.difference.high)}"
        shown = (form(row.recorded), form(row.whatif), form(row.difference.value), interval)
        table.add_row(row.name, *shown, MARKS[row.certainty])
    console.print(table)
    for line in _reasons(result.rows):
        console.print(Text(line), soft_wrap=True)
    for ids, why in (
        (result.not_recorded, "the recorded calls are not enough for one whole iteration"),
        (result.not_replayed, "replaying them with this version of tmas does not give the recorded result"),
    ):
        if ids:
            console.print(Text(f"{len(ids)} problems are left out, because {why}: {', '.join(ids)}"), soft_wrap=True)


def _reasons(rows: tuple[WhatIfRow, ...]) -> list[str]:
    """One line for each reason: the marks that it explains, and the reason."""
    lines: dict[str, set[Certainty]] = {}
    for row in rows:
        for reason in row.reasons:
            lines.setdefault(reason, set()).add(row.certainty)
    return [f"{' and '.join(LEGEND[c] for c in LEGEND if c in marks)}: {reason}" for reason, marks in lines.items()]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _count(value: float | None) -> str:
    if value is None or value in (float("inf"), float("-inf")):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}"
