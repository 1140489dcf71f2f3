from __future__ import annotations

import pytest

from tests.support.benchmarks import WITH_ANSWERS, gold_answers, needs_data
from tmas.equivalence import Equivalence, decide, normalise


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"$\dfrac{1}{2}$.", r"\frac{1}{2}"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})".replace(",", ", ")),
        (r"\text{Evelyn}", "Evelyn"),
        (r"\$18", "18"),
        (r"10\%", "10 %"),
        ("a - b", "a-b"),
    ],
)
def test_typesetting_is_normalised_away(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("1 2", "12"), ("1 1/2", "11/2"), (r"\sin\text{h}", r"\sinh"), ("1, 234", "1,234"), (r"1\,2", "12"), ("R", "r")],
)
def test_normalisation_keeps_apart_what_differs(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


EQUAL = [
    ("1/2", r"\frac12"),
    (r"\frac12", "0.5"),
    (r"\{1,2\}", r"\{2,1\}"),
    ("{1,2}", "{2,1}"),
    ("5", "x=5"),
    ("x=5", "5"),
    (r"10\%", "10"),
    (r"10\%", "0.1"),
    ("0.1", r"10\%"),
    ("025", "25"),
    ("1,000", "1000"),
    ("18", r"\$18.00"),
    ("18", r"18\text{ dollars}"),
    (r"5 \text{ cm}^2", "5"),
    (r"145^\circ", "145"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    (r"x \in (0,1)", "(0,1)"),
    (r"3 \text{ or } 4", "4, 3"),
    ("1/3", "0.333333"),
    ("2516_8", "2516_{8}"),
]
DIFFERENT = [
    ("12", "13"),
    ("(1,2)", "(2,1)"),
    ("[1,2)", "[1,2]"),
    ("1/3", "0.33"),
    ("x=5", "y=5"),
    ("f(x)=x", "f(x)=-x"),
    ("10^{100}", "10^{100}+1"),
    (r"10\%", r"1000\%"),
    ("3", "3 or 4"),
    ("1,2", "12"),
    ("2c", "2"),  # math-verify takes "c" for a unit
    ("3h", "3"),
    (r"\frac12ab", r"\frac12"),
]
UNDECIDED = [
    ("listen", "silent", "the gold answer holds words"),
    ("n is prime", "n is", "the gold answer holds words"),
    (r"n\text{ odd}", r"n\text{ even}", "the gold answer holds words"),
    ("5", "5 million", "the answer holds words"),
    (r"5\text{ m}", r"5\text{ cm}", "the units differ"),
    ("2R", "2r", "equal but for upper and lower case"),
    ("11_8", "11_2", "equal but for number bases"),
    ("a", "a'", "equal but for primes"),
    ("", "5", "the gold answer cannot be parsed"),
    ("5", "", "the answer cannot be parsed"),
    ("5", r"\frac{", "the answer cannot be parsed"),
]


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_answers(gold: str, answer: str) -> None:
    assert decide(gold, answer).equivalence is Equivalence.EQUAL


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_different_answers(gold: str, answer: str) -> None:
    assert decide(gold, answer).equivalence is Equivalence.DIFFERENT


@pytest.mark.parametrize(("gold", "answer", "reason"), UNDECIDED)
def test_undecided_answers_tell_why(gold: str, answer: str, reason: str) -> None:
    verdict = decide(gold, answer)
    assert (verdict.equivalence, verdict.reason) == (Equivalence.UNDECIDED, reason)


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(("file", "least"), list(zip(WITH_ANSWERS, [1.0, 0.99, 1.0, 0.92, 0.915], strict=True)))
def test_the_share_of_gold_answers_that_math_verify_understands(file: str, least: float) -> None:
    golds = gold_answers(file)
    verdicts = [decide(gold, gold) for gold in golds]
    assert Equivalence.DIFFERENT not in {seen.equivalence for seen in verdicts}
    assert sum(seen.equal for seen in verdicts) / len(golds) >= least
