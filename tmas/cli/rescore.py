"""The command ``tmas rescore``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import uvloop
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from tmas.cli.composing import validated
from tmas.files import write_json
from tmas.training.rl.rescore import Change, RescoreSettings, Rescoring, rescore
from tmas.training.rl.rollouts import existing_files


def rescore_command(config: dict[str, Any], console: Console) -> None:
    """``tmas rescore``: reward the kept responses again, print what would have changed, and write it as JSON."""
    settings = validated(RescoreSettings.composed, config)
    output = settings.output or existing_files(settings.rollouts)[0].with_name("rescored.json")
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("steps")
        result = uvloop.run(rescore(settings, lambda done, of: bar.update(task, completed=done, total=of)))
    write_json(output, result)
    print_rescoring(console, result)
    console.print(Text(f"All numbers: {output}"), soft_wrap=True)


def print_rescoring(console: Console, result: Rescoring) -> None:
    """Print the changed settings, the table by source, and the outcomes that changed. docs/training.md explains the
    columns."""
    first, last = result.steps
    for line in [*_changed_settings(result)] or ["The settings are those of the training."]:
        console.print(Text(line), soft_wrap=True)
    title = f"Steps {first} to {last}: in training→now"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SQUARE, padding=0)
    table.add_column("source")
    for name in ("resp.", "judge", "score", "bonus", "comp.", "mean |A|", "sign"):
        table.add_column(name, justify="right")
    for source, found in result.sources.items():
        table.add_row(
            source,
            f"{found.responses:,}",
            f"{found.needs_judge:,}",
            _change(found.score, "{:.3f}".format),
            _change(found.with_bonus, "{:.1%}".format),
            f"{found.compared:,}",
            _change(found.advantage, "{:.3f}".format),
            f"{found.sign_changes:,}",
        )
    console.print(table)
    for change, count in result.sources["all"].outcomes.items():
        console.print(Text(f"{count:,} responses: {change}"))
    if missing := result.sources["all"].needs_judge:
        console.print(
            Text(f"{missing:,} responses need a verdict that was not kept. They are left out; so are the advantages of")
            + Text(" their prompts. judge.name and judge.base_url name a judge to ask."),
            soft_wrap=True,
        )


def _changed_settings(result: Rescoring) -> Iterator[str]:
    for changed in result.changed:
        number = len(changed.files)
        some = "" if number == result.files else f" ({number:,} of {result.files:,} files, first {changed.files[0]})"
        for key, (was, now) in changed.settings.items():
            yield f"{key}: {was} in training{some}, {now} now"


def _change(change: Change, form: Callable[[float], str]) -> str:
    before, after = ("-" if value is None else form(value) for value in (change.before, change.after))
    return before if before == after else f"{before}→{after}"
