"""rewards/evidence.py: which quotes of a judge count."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.attacks import filled, renamed
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


@pytest.mark.parametrize("again", [filled(FIRST_STEP), renamed(FIRST_STEP), filled(renamed(FIRST_STEP))])
def test_a_step_that_the_solution_repeats_counts_once(again: str):
    solution = f"{FIRST_STEP}. Once more: {again}. The answer is \\boxed{{58}}."
    assert evidence(solution).own_work([again]) == 1
    assert evidence(solution).own_work([FIRST_STEP, again]) == 1
    assert evidence(f"{solution} {SECOND_STEP}").own_work([FIRST_STEP, again, SECOND_STEP]) == 2


def test_overlapping_quotes_of_a_step_count_once():
    words = f"As noted, {FIRST_STEP}".split()
    assert evidence(f"{' '.join(words)}.").own_work([" ".join(words[:-1]), " ".join(words[1:])]) == 1


def own_work(solution: str, quotes: list[str], given: str = QUESTION, **changes: Any) -> int:
    return Evidence(solution, [given], EvidenceSettings(**changes), QUESTION).own_work(quotes)


def test_a_short_item_in_other_letters_is_copied_as_a_whole():
    quote = "clearly and as everybody can see m divides b_m + 1 in any case"
    assert own_work(quote, [quote], "n divides a_n + 1") == 0
    assert own_work(quote, [quote], "n divides a_n + 1", copied_run=6, connected=False) == 1, "shorter than a run"


@pytest.mark.parametrize(("copied_symbols", "own"), [(8, 0), (20, 1)])
def test_a_copy_in_other_letters_is_found_if_it_is_long_enough(copied_symbols: int, own: int):
    quote = "indeed u^2 + v^2 is well (u + v)^2 - 2uv so we have it"  # 16 symbols
    given = "x^2 + y^2 = (x + y)^2 - 2xy, and nothing else follows from 1 + 2 = 3 by 4 - 1"
    assert own_work(quote, [quote], given, copied_symbols=copied_symbols, connected=False) == own


UNRELATED = [r"hence $\alpha + \beta = 77$ and so $\alpha = 33$", r"but then $33 + \gamma = 78$ and so $\gamma = 45$"]


def test_steps_that_share_names_only_with_each_other_are_no_own_work():
    solution = f"{'. '.join(UNRELATED)}. The answer is 58."
    assert own_work(solution, UNRELATED) == 0
    assert own_work(solution, UNRELATED, connected=False) == 2


@pytest.mark.parametrize("link", ["As x = 33 we are done.", "We have used 45.", r"With $\gamma$ as above, x = 3."])
def test_one_link_to_the_rest_connects_all_steps_that_build_on_each_other(link: str):
    assert own_work(f"{'. '.join(UNRELATED)}. {link}", UNRELATED) == 2


def test_a_step_without_numbers_and_letters_cannot_be_tested_and_counts():
    quote = "AB = CD and CD = EF imply AB = EF by transitivity"
    assert own_work(quote, [quote]) == 1


@given(st.text(), st.lists(st.text(), max_size=4))
def test_nothing_that_is_written_breaks_it_and_own_work_is_found(solution: str, quotes: list[str]):
    checked = evidence(solution)
    assert 0 <= checked.own_work(quotes) <= sum(map(checked.found, set(quotes)))
