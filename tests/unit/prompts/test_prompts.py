"""prompts/: every branch of every file renders, values stay values, and prompts begin with what they share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from importlib import resources
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import DictLoader, Environment, UndefinedError

from tmas.prompts import BUILT_IN

ATTEMPTS = ["<attempt 0>", "<attempt 1>"]
BRANCHES: dict[str, dict[str, list[Any]]] = {
    "problem": {"question": ["Q?"]},
    "candidate": {"question": ["Q?"], "solution": ["SOL"]},
    "attempt": {
        "index": [3],
        "answer": [None, "42"],
        "grade": [None, "0.50"],
        "solution": [None, "SOL"],
        "summary": [None, "SUM"],
    },
    "attempts": {"question": ["Q?"], "attempts": [[], ATTEMPTS]},
    "solution": {
        "question": ["Q?"],
        "attempts": [[], ATTEMPTS],
        "experience": ["", "EXP"],
        "guidelines": ["", "GUI"],
        "task": ["answer", "proof"],
    },
    "verification": {
        "question": ["Q?"],
        "solution": ["SOL"],
        "task": ["answer", "proof"],
        "structured": [True, False],
    },
    "summary": {"question": ["Q?"], "solution": ["SOL"], "verifications": [["V0"], ["V0", "V1"]], "words": [77]},
    "experience": {
        "question": ["Q?"],
        "attempts": [[], ATTEMPTS],
        "bank": ["", "BANK"],
        "max_new": [9],
        "max_chars": [99],
    },
    "guideline": {
        "question": ["Q?"],
        "attempts": [[], ATTEMPTS],
        "bank": ["", "BANK"],
        "max_new": [9],
        "max_chars": [99],
    },
    "form": {"task": ["answer", "proof"]},
    "complete": {},
    "rubric": {"task": ["answer", "proof"]},
    "grade": {},
    "feedback": {"question": ["Q?"], "solution": ["SOL"], "task": ["answer", "proof"]},
    "pacore": {"question": ["Q?"], "references": [["REF1"], ["REF1", "REF2"]], "task": ["answer", "proof"]},
    "self_evaluation": {"task": ["answer", "proof"]},
    "rsa": {"question": ["Q?"], "candidates": [["CAND1"], ["CAND1", "CAND2"]], "task": ["answer", "proof"]},
    "genselect": {"question": ["Q?"], "solutions": [["SOL0", "SOL1"]], "task": ["answer", "proof"]},
    "genselect_summary": {"question": ["Q?"], "solution": ["SOL"], "words": [77], "task": ["answer", "proof"]},
    "self_graded": {"question": ["Q?"], "task": ["answer", "proof"]},
    "refinement": {
        "question": ["Q?"],
        "solution": ["SOL"],
        "analyses": [["ANA0"], ["ANA0", "ANA1"]],
        "task": ["answer", "proof"],
    },
    "distill": {"question": ["Q?"], "reasoning": ["", "REASONING"], "solution": ["SOL"]},
    "recycled": {"bank": ["", "BANK"]},
    "conversation": {
        "instructions": ["", "INS"],
        "turns": [[], ["User: TURN1", "Assistant: TURN2"]],
        "message": ["Q?"],
    },
}
"""Every prompt file but those of the judges, and for each of its variables a value for every branch."""


def values(name: str) -> Iterator[dict[str, Any]]:
    """All combinations of the values of ``name``."""
    for combination in product(*BRANCHES[name].values()):
        yield dict(zip(BRANCHES[name], combination, strict=True))


def texts(arguments: dict[str, Any]) -> list[str]:
    return [text for value in arguments.values() for text in (value if isinstance(value, list) else [value])]


def test_every_prompt_file_is_covered_here():
    assert set(BRANCHES) == {name for name in BUILT_IN.hashes() if not name.startswith("judge_")}


@pytest.mark.parametrize("name", BRANCHES)
def test_every_branch_shows_what_it_is_given_and_leaves_no_template_behind(name: str):
    for arguments in values(name):
        prompt = BUILT_IN.render(name, **arguments)
        shown = [
            t
            for key in arguments.keys() - {"task", "structured"}
            for t in texts({key: arguments[key]})
            if t is not None
        ]
        assert [t for t in shown if str(t) not in prompt] == []
        assert not re.search(r"\{[{%#]|[}%#]\}|\bNone\b|\bTrue\b|\n{4}|[ \t]\n", prompt), prompt
        assert prompt == prompt.strip()


@pytest.mark.parametrize(("name", "variable"), [(name, v) for name, arguments in BRANCHES.items() for v in arguments])
def test_a_missing_variable_is_an_error(name: str, variable: str):
    def misses(arguments: dict[str, Any]) -> bool:
        try:
            BUILT_IN.render(name, **{k: v for k, v in arguments.items() if k != variable})
        except UndefinedError as error:
            return f"'{variable}' is undefined" in str(error)
        return False

    assert any(misses(arguments) for arguments in values(name))


@pytest.mark.parametrize("name", BRANCHES)
@pytest.mark.parametrize("hostile", ["{{ 7*7 }}", "{% raw %}", "{# #}", "{% include 'summary' %}", "<&\"'>", "a\\b"])
def test_what_a_model_wrote_comes_out_as_it_is(name: str, hostile: str):
    arguments = {k: [hostile] if isinstance(v[-1], list) else v[-1] for k, v in BRANCHES[name].items()}
    arguments |= {k: hostile for k, v in BRANCHES[name].items() if isinstance(v[-1], str) and k != "task"}
    assert BUILT_IN.render(name, **arguments).count(hostile) == sum(
        hostile in texts({k: v}) for k, v in arguments.items()
    )


@pytest.mark.parametrize("name", BRANCHES)
def test_includes_are_as_jinja_has_them(name: str):
    files = [f for f in resources.files("tmas.prompts").iterdir() if f.name.endswith(".jinja")]
    sources = {f.name.removesuffix(".jinja"): f.read_text() for f in files}
    plain = Environment(loader=DictLoader(sources), trim_blocks=True, lstrip_blocks=True).get_template(name)
    for arguments in values(name):
        assert BUILT_IN.render(name, **arguments) == plain.render(**arguments).strip()


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_a_question_of_any_text_stands_in_the_prompt_whole(question: str):
    assert BUILT_IN.render("problem", question=f"<{question}>") == f"# Problem\n\n<{question}>"


def test_the_task_and_the_form_of_the_reply_change_what_is_asked_for():
    basics = {"question": "Q?", "attempts": [], "experience": "", "guidelines": ""}
    assert r"\boxed{}" in BUILT_IN.render("solution", **basics, task="answer")
    proof = BUILT_IN.render("solution", **basics, task="proof")
    assert r"\boxed" not in proof
    assert "rigorous proof" in proof
    checks = {"question": "Q?", "solution": "S", "task": "answer"}
    assert BUILT_IN.render("verification", **checks, structured=False).endswith(r"the final grade is: \boxed{1}")
    assert r"\boxed" not in BUILT_IN.render("verification", **checks, structured=True)


def test_only_with_guidelines_is_another_strategy_asked_for():
    for arguments in values("solution"):
        assert ("different in substance" in BUILT_IN.render("solution", **arguments)) == bool(arguments["guidelines"])


# --- shared beginnings


def test_all_prompts_of_an_iteration_share_everything_up_to_the_end_of_the_attempts():
    shared = {"question": "Q?", "attempts": ATTEMPTS}
    start = BUILT_IN.render("attempts", **shared)
    assert start.endswith(ATTEMPTS[-1])
    prompts = [
        BUILT_IN.render("solution", **shared, experience="EXP", guidelines="", task="answer"),
        BUILT_IN.render("experience", **shared, bank="EXP", max_new=8, max_chars=99),
        BUILT_IN.render("guideline", **shared, bank="GUI", max_new=8, max_chars=99),
    ]
    assert [p for p in prompts if not p.startswith(start)] == []


def test_verification_and_summary_share_the_problem_and_the_candidate():
    shared = {"question": "Q?", "solution": "SOL"}
    start = BUILT_IN.render("candidate", **shared)
    assert start.endswith("SOL")
    prompts = [
        BUILT_IN.render("verification", **shared, task="answer", structured=False),
        BUILT_IN.render("verification", **shared, task="answer", structured=True),
        BUILT_IN.render("summary", **shared, verifications=["V"], words=99),
    ]
    assert [p for p in prompts if not p.startswith(start)] == []


@pytest.mark.parametrize("name", [name for name, arguments in BRANCHES.items() if "question" in arguments])
def test_every_prompt_of_a_problem_begins_with_the_problem(name: str):
    for arguments in values(name):
        assert BUILT_IN.render(name, **arguments).startswith(BUILT_IN.render("problem", question="Q?"))


def test_a_hash_is_that_of_the_file():
    file = resources.files("tmas.prompts") / "summary.jinja"
    assert BUILT_IN.hashes()["summary"] == hashlib.sha256(file.read_bytes()).hexdigest()[:16]
