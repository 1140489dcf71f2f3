"""evaluation/gold_check.py and answers/rewrites.py: gold answers as models would write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.benchmarks import DATA, needs_data
from tests.support.runs import problem
from tmas.answers.checker import AnswerChecker
from tmas.answers.rewrites import rewrites
from tmas.evaluation.gold_check import AS_WRITTEN, OTHER, gold_check, is_passed
from tmas.problems.loader import ProblemFields, load_problems
from tmas.records import Problem

IMO = {"problem_id": "Problem ID", "question": "Problem", "answer": "Short Answer"}
PROMPTS = {"problem_id": "id", "question": "prompt"}
FILES: list[tuple[str, Mapping[str, str | None]]] = [
    ("imo-answerbench/answerbench_v2.csv", IMO),
    ("imo-answerbench/answerbench.csv", IMO),
    ("aime24/aime24.json", PROMPTS),
    ("math500/math500.json", PROMPTS),
    ("gsm8k/test.jsonl", {"problem_id": None, "answer_regex": r"####\s*(.+)$"}),
]


@pytest.mark.parametrize(
    ("answer", "name", "written"),
    [
        ("12345", "1,000", "12,345"),
        ("12345", "1{,}000", "12{,}345"),
        ("12,345", "1\\,000", "12\\,345"),
        (r"$\frac{1}{2}$", "a/b", "$(1/2)$"),
        (r"$\frac{1}{2}$", "\\frac12", r"$\frac12$"),
        (r"\left( 3, \frac{\pi}{2} \right)", "without \\left", r"( 3, \frac{\pi}{2} )"),
        (r"$a\leq b$", "Unicode", "$a≤ b$"),
        ("odd $n$", "words in \\text", r"\text{ odd } n"),
        ("$1, 2, 3$", "a list turned round", "3, 2, 1"),
        ("$1, 2, 3$", "a list with and", r"1, 2\text{ and }3"),
        ("All primes", "a small letter first", "all primes"),
        ("5", "N = 5", "N = 5"),
    ],
)
def test_rewrites(answer: str, name: str, written: str):
    assert rewrites(answer)[name] == written


@pytest.mark.parametrize("answer", ["5", "odd $n$", "$(1, 2), (3, 4)$", "", "}{", "$x$ and $"])
def test_a_rewrite_that_does_not_apply_is_none(answer: str):
    assert answer not in rewrites(answer).values()


async def test_the_counts_and_what_failed():
    problems = [
        problem("a", "1/2"),
        problem("b", "3"),
        problem("broken", r"\frac{1}{2"),
        Problem(problem_id="d", question="?"),
    ]
    async with AnswerChecker(timeout=60.0) as checker:
        checked = await gold_check(problems, checker)
    found = checked.model_dump(mode="json")
    assert (found["problems"], found["with_answer"]) == (4, 3)
    assert found["checks"][AS_WRITTEN] == {"answers": 3, "equal": 2, "different": 0, "undecided": 1}
    assert found["checks"][OTHER]["equal"] == 0
    failed = [failure for failure in found["failures"] if failure["name"] == AS_WRITTEN]
    assert [(f["problem_id"], f["verdict"], f["reason"]) for f in failed] == [
        ("broken", "undecided", "nothing was extracted")
    ]
    assert not is_passed(checked)


@needs_data
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("file", "columns"), FILES)
async def test_every_gold_answer_comes_out_right_however_it_is_set(file: str, columns: Mapping[str, str | None]):
    fields = ProblemFields.model_validate({**columns, "answer_required": True})
    async with AnswerChecker(timeout=20.0) as checker:
        checked = await gold_check(load_problems(DATA / file, fields, on_bad="skip").problems, checker)
    found = checked.model_dump(mode="json")
    assert is_passed(checked)
    assert [f for f in found["failures"] if f["name"] != OTHER] == []


@needs_data
def test_the_misquoted_row_of_imo_answerbench_is_named(tmp_path: Path):
    fields = ProblemFields.model_validate({**IMO, "answer_required": True})
    [message] = load_problems(DATA / "imo-answerbench/answerbench_v2.csv", fields, on_bad="skip").skipped
    assert "answerbench_v2.csv:150: broken CSV" in message
