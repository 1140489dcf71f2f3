"""Prints the result of a run as tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tmas.records import Usage
from tmas.records.prices import money
from tmas.records.run_files import Metrics, Prediction

MAX_ANSWERS = 40
"""Maximum number of rows in the table of answers. predictions.jsonl has all answers."""
ANSWER_WIDTH, ID_WIDTH = 32, 16
"""Maximum number of characters. Longer answers are cut at their end, longer ids at their beginning."""


def print_result(console: Console, path: Path, totals: Metrics, predictions: Sequence[Prediction]) -> None:
    """Print tables of iterations, selected answers and tokens by role, then the failures and the run directory."""
    console.print(_iterations(totals))
    console.print(_answers(predictions))
    if len(predictions) > MAX_ANSWERS:
        console.print(f"... and {len(predictions) - MAX_ANSWERS} more in predictions.jsonl")
    console.print(_usage(totals))
    if totals.cost is None:
        console.print("Cost: unknown. model.price.input and model.price.output set the prices of a million tokens.")
    if totals.failures:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(totals.failures.items()))
        console.print(f"Failures: {reasons} (each one in failures.jsonl).")
    if totals.selected_accuracy is not None:
        undecided = totals.selected_undecided
        console.print(
            f"Correct selected answers: {_percent(totals.selected_accuracy)}"
            + (f" ({undecided} undecided, counted as wrong)." if undecided else ".")
        )
    console.print(Text(f"Run directory: {path}"), soft_wrap=True)


def _iterations(totals: Metrics) -> Table:
    table = _table(
        "By iteration",
        "it", "prob.", "cand.", "failed", "explore", "Pass@1", "select", "grade", "E", "G", "tok. in", "tok. out",
    )  # fmt: skip
    for row in totals.iterations:
        usage = row.usage
        table.add_row(
            str(row.iteration),
            str(row.problems),
            str(row.candidates),
            str(row.failed),
            str(row.explore),
            _bounds(row.pass_at_1, row.pass_at_1_upper),
            _percent(row.selected_accuracy),
            _number(row.mean_grade, ".2f"),
            _number(row.experience_items, ".1f"),
            _number(row.guideline_items, ".1f"),
            f"{usage.prompt_tokens:,}",
            f"{usage.completion_tokens:,}",
        )
    return table


def _answers(predictions: Sequence[Prediction]) -> Table:
    table = _table("Selected answers", "problem", "answer", "gold", "", "grade", "votes", "it", "cand.", "stop")
    for prediction in predictions[:MAX_ANSWERS]:
        chosen = prediction.selected
        table.add_row(
            _short_id(prediction.problem_id),
            _short_answer(prediction.answer),
            _short_answer(prediction.gold),
            {"equal": "right", "different": "wrong", "undecided": "undecided", None: ""}[prediction.correct],
            _number(chosen and chosen.mean_grade, ".2f"),
            str(chosen.votes) if chosen else "-",
            str(chosen.iteration) if chosen else "-",
            str(chosen.candidate) if chosen else "-",
            "-" if prediction.stop == "max_iterations" else prediction.stop,
        )
    return table


def _usage(totals: Metrics) -> Table:
    cost = totals.cost
    by_role = {**cost.by_role, "all": cost.total} if cost else {}
    columns = ["role", "calls", "prompt", "cached", "completion", "seconds"]
    table = _table("Tokens by role", *columns, *([cost.currency or "cost"] if cost else []))
    for role, usage in [*totals.usage.items(), ("all", sum(totals.usage.values(), Usage()))]:
        counts = (usage.calls, usage.prompt_tokens, usage.cached_prompt_tokens, usage.completion_tokens)
        spent = [money(by_role[role])] if cost else []
        table.add_row(role, *(f"{count:,}" for count in counts), f"{usage.seconds:,.0f}", *spent)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SQUARE, padding=0)
    for column in columns:
        left = column in ("problem", "answer", "gold", "role")
        table.add_column(column, justify="left" if left else "right", no_wrap=column not in ("answer", "gold"))
    return table


def _short_answer(text: str | None) -> Text:
    line = "-" if text is None else _plain(text)
    shown = line if len(line) <= ANSWER_WIDTH else line[: ANSWER_WIDTH - 1] + "…"
    return Text(shown, no_wrap=True, overflow="ellipsis")  # the column may be even narrower


def _short_id(problem_id: str) -> Text:
    """The end of a problem id, because ids mostly differ there."""
    line = _plain(problem_id)
    return Text(line if len(line) <= ID_WIDTH else "…" + line[1 - ID_WIDTH :])


def _plain(text: str) -> str:
    """Text of models and users in one line, without control sequences. Shown as ``Text``, so never read as markup."""
    line = " ".join(text.split())
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _bounds(value: float | None, upper: float | None) -> str:
    return f"{_percent(value)} ≤{100 * upper:.1f}" if value is not None and upper and upper > value else _percent(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
