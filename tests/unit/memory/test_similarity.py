"""memory/similarity.py: only other typesetting is the same statement; rewordings are near-duplicates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmas.memory.similarity import jaccard, near_duplicate, same_statement, tokens

FRAME = "By the ratio test and a comparison with the geometric series over all positive terms we obtain that {} here"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"$x \leq 2$ by AM-GM", "x <= 2 by AM-GM."),
        (r"\left( \dfrac{1}{2} + x \right) is a root of P", r"(\tfrac12+x) is a root of P"),
        ("The series does not converge", "The series doesn't converge"),
        ("One cannot divide by $x$ here", "One can not divide by x here"),
        (r"The sum is $x^{2} \cdot y_{1}$", "the sum $x^2 y_1$"),
        (r"the set $\{x : x > 0\}$ is open", "The set {x : x > 0} is open."),
        (r"Thus $a_n \mid n$ for all primes $n$.", "a_{n} | n for all the primes n"),
        ("**Hence** the polynomial $P$ is reducible.", "The polynomial P is reducible"),
    ],
)
def test_other_typesetting_is_the_same_statement(a: str, b: str) -> None:
    assert same_statement(a, b)
    assert near_duplicate(a, b, 0.7)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("P is reducible over the rationals", "P is irreducible over the rationals"),
        ("n divides a_n for all n", "a_n divides n for all n"),
        ("The triangle ABC is acute", "The triangle ABC is obtuse"),
        ("The relation R is symmetric", "The relation R is antisymmetric"),
        ("For all x there is a y with x < y", "There is a y with x < y for all x"),
        ("For every x some y satisfies P", "For some x every y satisfies P"),
        ("The circle is inscribed in ABC", "The circle is circumscribed in ABC"),
        ("The sum of the digits is 9", "The sum of all the digits is 9"),
        ("A implies B", "B implies A"),
        ("It holds for all values a", "It holds for all values"),
    ],
)
def test_another_word_or_another_order_is_another_statement(a: str, b: str) -> None:
    assert not same_statement(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("For all n, $f(n) = n$ holds.", "Then f(n)=n holds for all $n$"),
        ("The sum of the digits is congruent to n modulo 9", "The sum of all the digits is congruent to n modulo 9"),
        (r"The sum is $x^{2} \cdot y_{1}$ (see above)", "the sum (see above) is x^2 y_1"),
    ],
)
def test_rewordings_are_near_duplicates(a: str, b: str) -> None:
    assert near_duplicate(a, b, 0.7)
    assert not same_statement(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("x = 2", "x = 3"),
        ("x = 2", "x = -2"),
        ("n + 1 is prime", "n - 1 is prime"),
        ("a < b", r"a \leq b"),
        ("x = y", r"x \neq y"),
        (r"x \in A", r"x \not\in A"),
        ("the sum converges", "the sum does not converge"),
        ("the sum converges", "the sum diverges"),
        ("it is valid", "it isn't valid"),
        ("it is valid", "it is never valid"),
        ("f is even", "f is odd"),
        ("an upper bound holds", "a lower bound holds"),
        ("the least number is 2(n-1)", "the least number is 2n-1"),
        ("it is 2^{n+1}", "it is 2^n+1"),
        ("it is (a+b)/c", "it is a+b/c"),
        (r"it is \sqrt{n+1}", r"it is \sqrt{n}+1"),
        ("it is x_{n+1}", "it is x_n+1"),
        ("it holds for all values of k", "it holds for some values of k"),
        ("the sum of the roots is 7", "the product of the roots is 7"),
        ("point A lies on it", "point B lies on it"),
        ("AB = CD", "AB > CD"),
        ("it is [0,1)", "it is (0,1]"),
        ("f'(c) = 0", "f(c) = 0"),
    ],
)
def test_other_claims_are_neither(a: str, b: str) -> None:
    assert not near_duplicate(FRAME.format(a), FRAME.format(b), 0.5)
    assert not same_statement(FRAME.format(a), FRAME.format(b))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("x = 2 and y = 3", "x = 3 and y = 2"),
        ("a < b", "b < a"),
        ("m | n", "n | m"),
        ("2^n grows", "n^2 grows"),
        (r"it is \frac{2}{3}", r"it is \frac{3}{2}"),
        ("AB < CD", "CD < AB"),
        ("AB^2+BC^2=AC^2", "AB^2+AC^2=BC^2"),
        ("sin x < cos x", "cos x < sin x"),
        ("it is (1,2)", "it is (2,1)"),
        ("the ratio is 2:3", "the ratio is 3:2"),
    ],
)
def test_another_order_of_symbols_is_another_statement(a: str, b: str) -> None:
    assert not same_statement(FRAME.format(a), FRAME.format(b))


def test_different_words_are_not_duplicates() -> None:
    assert not near_duplicate("Use induction on n", "Apply the pigeonhole principle to residues", 0.7)


def test_tokens_know_latex() -> None:
    assert tokens(r"Thus $\tfrac{x_1}{2} \geq \Delta$, non-negative!") == {
        "thus", r"\frac", "x", "1", "2", "≥", r"\Delta", "non-negative", "!",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b", "expected"), [("", "", 1.0), ("a", "", 0.0), ("ab", "bc", 1 / 3), ("abc", "abc", 1.0)]
)
def test_jaccard(a: str, b: str, expected: float) -> None:
    assert jaccard(frozenset(a), frozenset(b)) == expected


def test_the_threshold_is_included() -> None:
    a, b = "alpha beta gamma", "alpha beta delta"
    assert near_duplicate(a, b, 0.5)
    assert not near_duplicate(a, b, 0.51)


texts = st.text(max_size=40) | st.lists(
    st.sampled_from(["x", "y", "=", r"\neq", "2", "3", "not", "the", "sum", "<", "-"])
).map(" ".join)


@given(texts, texts, st.floats(0, 1))
def test_reflexive_and_symmetric(a: str, b: str, threshold: float) -> None:
    assert near_duplicate(a, a, threshold)
    assert near_duplicate(a, b, threshold) == near_duplicate(b, a, threshold)
    assert same_statement(a, a)
    assert same_statement(a, b) == same_statement(b, a)
    assert near_duplicate(a, b, threshold) or not same_statement(a, b)


@given(texts, st.integers(0, 999), st.integers(0, 999))
def test_another_number_is_another_claim(text: str, m: int, n: int) -> None:
    assert near_duplicate(f"{text} so x = {m}", f"{text} so x = {n}", 0.0) == (m == n)
