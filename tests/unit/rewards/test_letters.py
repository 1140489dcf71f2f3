"""rewards/letters.py: which letters are variables, and which texts are equal but for their letters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmas.memory.similarity import lex
from tmas.rewards.letters import is_mathematical, names, near_duplicate_renamed, only_renamed, shapes, spelled

PROBLEM = frozenset({"x", "y", "10", "21"})


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("the product 2xy of x and y", ["2", "x", "y", "x", "y"]),
        ("a rectangle has a side a and a side b, so ab = 6", ["a", "b", "a", "b", "=", "6"]),
        ("p divides a or p divides b", ["p", "a", "p", "b"]),
        ("I claim that n is an integer", ["n"]),
        ("A triangle with angles \\alpha and \\beta", [r"\alpha", r"\beta"]),
        ("let i and s be given: i + s is it", ["i", "s", "i", "+", "s"]),
        ("the beta version of a meta theorem", []),
    ],
)
def test_single_letters_and_products_of_letters_are_variables_and_words_are_not(text: str, symbols: list[str]):
    assert [token for token in lex(spelled(text)) if is_mathematical(token)] == symbols


def shape(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    [only] = shapes(lex(spelled(text)), 10)
    return only.pattern, only.letters


@pytest.mark.parametrize(
    "copy", ["a^2 + b^2 - ab", "y^2 + x^2 - yx", "u^2 well + so v^2 now - uv", r"\mu^2 + \nu^2 - \mu\nu"]
)
def test_a_copy_with_other_letters_or_words_in_between_has_the_same_shape(copy: str):
    pattern, letters = shape("x^2 + y^2 - x y")
    found, own = shape(copy)
    assert found == pattern
    assert only_renamed(own, letters, PROBLEM)


@pytest.mark.parametrize("other", ["a^2 + a^2 - a b", "a^2 + b^3 - ab", "a^2 - b^2 - ab", "a^2 + b^2 - b b"])
def test_another_statement_has_another_shape(other: str):
    assert shape(other)[0] != shape("x^2 + y^2 - xy")[0]


def test_a_general_statement_about_letters_of_the_problem_is_an_application():
    _, general = shape("a^2 + b^2 - ab")
    _, applied = shape("x^2 + y^2 - xy")
    assert not only_renamed(applied, general, PROBLEM)
    assert only_renamed(applied, general, frozenset())


STRATEGY = "Find x and y as the roots of a quadratic polynomial"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Find p and q as the roots of a quadratic polynomial", True),
        ("Find x and q as the roots of a quadratic polynomial", True),
        ("Find p and p as the roots of a quadratic polynomial", False),
        ("Find p and q as the roots of a cubic equation in 2 unknowns", False),
    ],
)
def test_near_duplicates_may_have_other_letters(text: str, same: bool):
    assert near_duplicate_renamed(text, STRATEGY, 0.7, PROBLEM) == same


def test_letters_of_the_problem_keep_their_meaning():
    assert not near_duplicate_renamed("Use induction on x", "Use induction on n", 0.7, PROBLEM)
    assert near_duplicate_renamed("Use induction on k", "Use induction on n", 0.7, PROBLEM)


def test_names_are_numbers_and_letters_without_exponents():
    assert names(lex(spelled("so 3x^2 = 27 and a point of \\gamma^k"))) == {"3", "x", "27", r"\gamma", "k"}


@given(st.text())
def test_no_text_breaks_it(text: str):
    tokens = lex(spelled(text))
    assert all(len(found.pattern) == 3 and found.first < found.last < len(tokens) for found in shapes(tokens, 3))
    assert near_duplicate_renamed(text, text, 1.0, names(tokens))
