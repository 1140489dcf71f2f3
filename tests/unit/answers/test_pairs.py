"""The table of pairs in pairs.tsv: each pair with its expected verdict, compared in both directions."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.waiting import LIMIT
from tmas.answers.checker import AnswerChecker
from tmas.answers.equivalence import Equivalence, decide
from tmas.answers.normalize import normalise
from tmas.concurrency import gather_all

PAIRS = [tuple(line.split("\t")) for line in (Path(__file__).parent / "pairs.tsv").read_text().splitlines()[1:]]
ANSWERS = sorted({answer for left, right, *_ in PAIRS for answer in (left, right)})


@pytest.mark.parametrize(("left", "right", "verdict", "why"), PAIRS)
def test_pairs_have_the_expected_verdict_in_both_directions(left: str, right: str, verdict: str, why: str) -> None:
    assert [decide(left, right).equivalence, decide(right, left).equivalence] == [verdict, verdict], why


def test_the_table_has_no_pair_twice_and_all_verdicts() -> None:
    assert max(Counter(frozenset(pair[:2]) for pair in PAIRS).values()) == 1
    assert {pair[2] for pair in PAIRS} == {"equal", "different", "undecided"}
    assert all(len(pair) == 4 for pair in PAIRS)


@given(st.sampled_from(ANSWERS), st.sampled_from(ANSWERS))
@settings(max_examples=100)
def test_the_verdict_does_not_depend_on_the_order_for_answers_of_the_table(one: str, other: str) -> None:
    assert decide(one, other).equivalence is decide(other, one).equivalence


def test_a_large_number_and_a_logarithm_are_compared_without_simplifying_their_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simplified: list[object] = []
    monkeypatch.setattr("math_verify.grader.simplify", simplified.append)
    pairs = [("1234567", r"\log_{10} x"), ("3628800", r"O(n\log n)"), ("7^{20}-1", r"\log x")]
    found = [decide(*pair).equivalence for pair in pairs]
    assert found == [Equivalence.DIFFERENT, Equivalence.UNDECIDED, Equivalence.UNDECIDED]
    assert simplified == []


def generated_answers() -> st.SearchStrategy[str]:
    """Answers of small numbers and letters in nested sets, tuples, fractions, powers and lists."""
    leaf = st.sampled_from(
        ["0", "1", "2", "-3", "0.5", r"\pi", "x", "n", "i", r"\sqrt{2}", "AB", "yes", "10%", "7_{8}"]
    )

    def compose(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        pairs = st.tuples(inner, inner)
        forms = [r"\{%s,%s\}", "(%s,%s)", "[%s,%s)", "%s,%s", r"\frac{%s}{%s}"]
        forms += ["%s+%s", "%s=%s", "%s<%s", "%s:%s", r"%s\text{or}%s"]
        return st.one_of(*(pairs.map(lambda pair, form=form: form % pair) for form in forms))

    return st.recursive(leaf, compose, max_leaves=4)


@given(generated_answers(), generated_answers())
@settings(max_examples=100)
def test_the_verdict_does_not_depend_on_the_order_for_generated_answers(one: str, other: str) -> None:
    assert decided(one, other) == decided(other, one)


@given(generated_answers())
@settings(max_examples=50)
def test_no_answer_is_different_from_itself(answer: str) -> None:
    assert decided(answer, f"${answer}$") != "different"


def decided(one: str, other: str) -> str:
    """The verdict, or the name of the error, which the checker reports as undecided."""
    try:
        return decide(one, other).equivalence.value
    except Exception as error:
        return type(error).__name__


@pytest.mark.parametrize(
    ("one", "other", "digits", "verdict"),
    [
        (r"\pi", "3.141593", None, "different"),
        (r"\pi", "3.141593", 4, "equal"),
        (r"\pi", "3.14", 4, "different"),
        (r"\pi", "3.14", 3, "equal"),
        (r"\pi", "3.142593", 4, "different"),
        ("1/3", "0.333", 3, "equal"),
        ("2/3", "0.666", 3, "different"),
        ("1.574", "1.5743", 4, "equal"),
        ("1.574", "1.5743", None, "undecided"),
        ("1.574", "1.575", 2, "different"),
        (r"(\pi, 1)", "(3.1416, 1)", 4, "equal"),
        (r"\frac{1}{3} \cdot 10^{-6}", r"3.333 \cdot 10^{-7}", 4, "equal"),
        ("3", "3.0", None, "equal"),
    ],
)
def test_approximations_follow_the_policy(one: str, other: str, digits: int | None, verdict: str) -> None:
    assert {decide(one, other, digits).equivalence, decide(other, one, digits).equivalence} == {verdict}


HOSTILE = [
    "9^{9^{9^9}}",
    "(10^{10})!",
    "((((9!)!)!)!)!",
    r"\binom{10^{12}}{10^{11}}",
    r"\sum_{k=1}^{10^{15}} \frac{1}{k}",
    r"\prod_{k=1}^{10^{12}} k",
    "99999999!!",
    "1e9999",
    r"0.\overline{" + "7" * 5000 + "}",
    "(" * 2000 + "1" + ")" * 2000,
    r"\sqrt{" * 500 + "2" + "}" * 500,
    "1" * 100_000,
    "1," * 50_000,
    r"\{" * 50_000,
    r"\begin{cases}" * 5000,
    "x_{" * 5000,
    "and " * 25_000,
    "(x+1)^{100000000}",
]


@pytest.mark.parametrize("gold", ["5", "(1,2)", r"\{1, x\}"])
async def test_hostile_answers_are_never_equal_and_the_checker_survives(gold: str) -> None:
    async with AnswerChecker(timeout=0.5, workers=2) as checker:
        verdicts = await gather_all(checker.compare(gold, answer) for answer in HOSTILE)
        assert [answer[:30] for answer, one in zip(HOSTILE, verdicts, strict=True) if one.equal] == []
        checker._timeout = LIMIT  # on a busy machine, ordinary answers may take a second, too
        ordinary = await gather_all(checker.compare(f"{n}/2", str(n / 2)) for n in (1, 3, 5, 7))
        assert [one.equal for one in ordinary] == [True] * 4


def test_the_checker_passes_the_policy_about_approximations_on() -> None:
    async def compare() -> list[bool]:
        async with AnswerChecker(timeout=20.0, approximation_digits=4) as checker:
            return [(await checker.compare(r"\pi", decimal)).equal for decimal in ("3.1416", "3.14")]

    assert asyncio.run(compare()) == [True, False]


def test_the_table_holds_no_pair_that_typesetting_alone_decides_wrongly() -> None:
    assert [pair for pair in PAIRS if pair[2] == "different" and normalise(pair[0]) == normalise(pair[1])] == []
