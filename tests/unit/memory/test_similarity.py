"""memory/similarity.py: rewordings are duplicates, other claims never are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmas.memory.similarity import jaccard, near_duplicate, tokens

FRAME = "By the ratio test and a comparison with the geometric series over all positive terms we obtain that {} here"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("For all n, $f(n) = n$ holds.", "Then f(n)=n holds for all $n$"),
        (r"$x \leq 2$ by AM-GM", "x <= 2 by AM-GM."),
        (r"\left( \dfrac{1}{2} \right) is a root of P", r"\frac{1}{2} is a root of P"),
        ("The series does not converge", "The series doesn't converge"),
        ("One cannot divide by $x$ here", "One can not divide by x here"),
        (r"The sum is $x^{2} \cdot y_{1}$ (see above)", "the sum (see above) is x^2 y_1"),
        ("Each prime (p > 2) is odd", "each prime p > 2 is odd"),
        (r"the set $\{x : x > 0\}$ is open", "The set {x : x > 0} is open."),
    ],
)
def test_rewordings_are_duplicates(a: str, b: str) -> None:
    assert near_duplicate(a, b, 0.7)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("x = 2", "x = 3"),
        ("x = 2 and y = 3", "x = 3 and y = 2"),
        ("x = 2", "x = -2"),
        ("n + 1 is prime", "n - 1 is prime"),
        ("a < b", "b < a"),
        ("a < b", r"a \leq b"),
        ("x = y", r"x \neq y"),
        (r"x \in A", r"x \not\in A"),
        ("m | n", "n | m"),
        ("2^n grows", "n^2 grows"),
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
        (r"it is \frac{2}{3}", r"it is \frac{3}{2}"),
        ("it is x_{n+1}", "it is x_n+1"),
        ("it holds for all values of k", "it holds for some values of k"),
        ("the sum of the roots is 7", "the product of the roots is 7"),
        ("point A lies on it", "point B lies on it"),
        ("AB = CD", "AB > CD"),
        ("AB < CD", "CD < AB"),
        ("AB^2+BC^2=AC^2", "AB^2+AC^2=BC^2"),
        ("sin x < cos x", "cos x < sin x"),
        ("it is (1,2)", "it is (2,1)"),
        ("it is [0,1)", "it is (0,1]"),
        ("f'(c) = 0", "f(c) = 0"),
        ("the ratio is 2:3", "the ratio is 3:2"),
    ],
)
def test_other_claims_are_not(a: str, b: str) -> None:
    assert not near_duplicate(FRAME.format(a), FRAME.format(b), 0.5)


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


@given(texts, st.integers(0, 999), st.integers(0, 999))
def test_another_number_is_another_claim(text: str, m: int, n: int) -> None:
    assert near_duplicate(f"{text} so x = {m}", f"{text} so x = {n}", 0.0) == (m == n)
