"""cli/tables.py: the tables at the end of a run hold every figure, and show what a model wrote as it is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.support import runs
from tmas.cli.tables import MAX_ANSWERS, print_result
from tmas.records import Usage
from tmas.records.run_files import Metrics, Prediction

USAGE = Usage(calls=11, prompt_tokens=22_222, cached_prompt_tokens=3_333, completion_tokens=44_444, seconds=55.5)


def line(**changes: Any) -> Prediction:
    selected = {"mean_grade": 0.75, "votes": 6, "iteration": 1, "candidate": 7, "answer": "42", "rule": "grade"}
    basics = {"answer": "42", "correct": "different", "stop": "early_stop", "selected": selected}
    return Prediction.model_validate(runs.prediction("p1", "43", []) | basics | changes)


def totals(**changes: Any) -> Metrics:
    row = {
        "iteration": 1,
        "problems": 101,
        "candidates": 808,
        "failed": 9,
        "explore": 77,
        "pass_at_1": 0.123,
        "undecided": 0,
        "selected_accuracy": 0.456,
        "mean_grade": 0.789,
        "experience_items": 12.34,
        "guideline_items": None,
        "usage": USAGE.model_dump(),
    }
    found = {
        "problems": 101,
        "stops": {},
        "answered": 101,
        "selected_accuracy": 0.654,
        "selected_undecided": 0,
        "iterations": [row],
        "usage": {"solution": USAGE.model_dump(), "summary": USAGE.model_dump()},
        "failures": {"truncated": 5, "context": 2},
        "packed_prompts": 0,
    }
    return Metrics.model_validate(found | changes)


def printed(*lines: Prediction, terminal: bool = False, width: int = 200, **changes: Any) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    print_result(console, Path("runs/[red]first"), totals(**changes), lines)
    return console.file.getvalue()  # type: ignore[attr-defined]


def row(output: str, *begins: str) -> list[str]:
    """The cells of the one table row whose first cells are ``begins``."""
    rows = [[cell.strip() for cell in text.split("│")[1:-1]] for text in output.splitlines() if text.startswith("│")]
    [found] = [cells for cells in rows if cells[: len(begins)] == list(begins)]
    return found


def test_an_iteration_shows_every_figure():
    assert row(printed(), "1", "101") == [
        *("1", "101", "808", "9", "77", "12.3 %", "45.6 %", "0.79", "12.3", "-", "22,222", "44,444")
    ]


@pytest.mark.parametrize(
    ("correct", "shown"), [("equal", "right"), ("different", "wrong"), ("undecided", "undecided"), (None, "")]
)
def test_an_answer_shows_its_verdict_and_where_it_came_from(correct: str | None, shown: str):
    assert row(printed(line(correct=correct)), "p1") == [
        *("p1", "42", "43", shown, "0.75", "6", "1", "7", "early_stop")
    ]


def test_what_is_missing_is_a_dash():
    nothing = line(answer=None, gold=None, correct=None, selected=None, stop="budget")
    assert row(printed(nothing), "p1") == ["p1", "-", "-", "", "-", "-", "-", "-", "budget"]


def test_only_a_stop_before_the_last_iteration_is_named():
    assert row(printed(line(stop="max_iterations")), "p1")[-1] == "-"


def test_tokens_are_shown_by_role_and_in_all():
    assert row(printed(), "summary") == ["summary", "11", "22,222", "3,333", "44,444", "56"]
    assert row(printed(), "all") == ["all", "22", "44,444", "6,666", "88,888", "111"]


def test_failures_the_rate_and_the_place_are_named():
    output = printed()
    assert "Failures: 2 context, 5 truncated" in output
    assert "Correct selected answers: 65.4 %" in output
    assert "Correct selected answers" not in printed(line(), selected_accuracy=None)
    assert "Run directory: runs/[red]first" in output
    assert "Failures" not in printed(failures={})


@pytest.mark.parametrize("text", ["[red]7[/red]", "[/]", "[link=x]y", ":smile:"])
def test_markup_in_what_a_model_or_a_user_wrote_is_shown_as_it_is(text: str):
    assert row(printed(line(problem_id=text, answer=text, gold=text)), text)[:3] == [text] * 3


def test_control_sequences_do_not_reach_the_terminal():
    plain = printed(line(), terminal=True).count("\x1b")
    output = printed(line(answer="\x1b]0;title\x07\x1b[2J7", problem_id="p\x9b31m"), terminal=True)
    assert output.count("\x1b") == plain
    assert "\x07" not in output
    assert "\x9b" not in output


def test_on_a_narrow_terminal_each_problem_has_one_line_that_tells_it_apart():
    long = r"\frac{2^{n}+1}{3} for all positive integers n"
    ids = [f"imo-bench-number_theory-{i:03}" for i in range(3)]
    lines = [line(problem_id=problem_id, answer=long, gold=long, correct="undecided") for problem_id in ids]
    output = printed(*lines, width=80)
    assert [row(output, f"…mber_theory-{i:03}")[3] for i in range(3)] == ["undecided"] * 3
    assert max(map(len, output.splitlines())) <= 80


def test_long_and_many_answers_are_cut_with_a_word_about_it():
    long = line(answer="first\n  line " + "x" * 100)
    assert row(printed(long), "p1")[1] == "first line " + "x" * 20 + "…"
    output = printed(*(line(problem_id=f"p{i}") for i in range(MAX_ANSWERS + 3)))
    assert f"p{MAX_ANSWERS - 1} " in output
    assert f"p{MAX_ANSWERS} " not in output
    assert "and 3 more in predictions.jsonl" in output
