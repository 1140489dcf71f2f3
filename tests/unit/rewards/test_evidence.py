"""rewards/evidence.py: which quotes of a judge count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.rewards import EXPERIENCE, FIRST_STEP, QUESTION, SECOND_STEP, SOLUTION
from tmas.rewards.evidence import Evidence
from tmas.rewards.settings import EvidenceSettings

GIVEN = [QUESTION, *(item.text for item in EXPERIENCE)]


def evidence(solution: str = SOLUTION) -> Evidence:
    return Evidence(solution, GIVEN, EvidenceSettings())


@pytest.mark.parametrize(
    "quote",
    [
        FIRST_STEP,
        FIRST_STEP.replace("$", ""),
        "  squaring the   sum\ngives \\((x + y)^{2} = 100\\)",
        "twice the product leaves 100 − 42 = 58.",
    ],
)
def test_a_quote_is_found_whatever_its_typesetting(quote: str):
    assert evidence().found(quote)


@pytest.mark.parametrize("quote", ["", "  ", "58", "$$", "gives", "Squaring the product gives (x+y)^2 = 100"])
def test_what_does_not_stand_there_or_would_stand_anywhere_is_not_found(quote: str):
    assert not evidence().found(quote)


def test_a_quote_does_not_begin_within_a_word():
    assert not evidence("the area is 58 and x = 3").found("rea is 58 and x")


def test_steps_of_the_solution_are_own_work():
    assert evidence().own_work([FIRST_STEP, SECOND_STEP]) == 2


@pytest.mark.parametrize("item", EXPERIENCE)
def test_an_item_copied_into_the_solution_is_not(item: object):
    text = getattr(item, "text", "")
    parroted = f"By the bank we know: {text} This is very useful here. Hence \\boxed{{58}}"
    assert evidence(parroted).found(text)
    assert evidence(parroted).own_work([text, f"we know: {text}", parroted.partition(" Hence")[0]]) == 0


def test_nor_is_the_problem_said_again():
    assert evidence(f"{QUESTION} So we must find it.").own_work([QUESTION, f"{QUESTION} So we must find it."]) == 0


def test_nor_are_words_without_mathematics():
    boast = "I apply findings E1, E2 and E3 in a brilliant and entirely novel manner, unlike all that I was shown"
    assert evidence(boast).found(boast)
    assert evidence(boast).own_work([boast]) == 0


def test_a_step_counts_once_however_it_is_cut():
    assert evidence().own_work([FIRST_STEP, FIRST_STEP.upper().lower(), FIRST_STEP[10:]]) == 1


@given(st.text(), st.lists(st.text(), max_size=4))
def test_nothing_that_is_written_breaks_it_and_own_work_is_found(solution: str, quotes: list[str]):
    checked = evidence(solution)
    assert 0 <= checked.own_work(quotes) <= sum(map(checked.found, set(quotes)))
