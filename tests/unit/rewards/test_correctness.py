"""rewards/correctness.py: what counts as an answer, and what each verdict on it is worth."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmas.answers.checker import AnswerChecker
from tmas.answers.equivalence import EQUAL, Comparison, Equivalence, decide, undecided
from tmas.answers.verdicts import Cause
from tmas.rewards.correctness import PLAIN_NUMBER, Checked, Correctness, check_by_rule, correctness
from tmas.rewards.settings import AnswerSettings

SETTINGS = AnswerSettings()


async def equals(gold: str, answer: str) -> Checked:
    return Checked(gold == answer.strip(" $"))


async def nobody(gold: str, answer: str) -> Checked:
    return Checked(None, "timeout")


async def refuse(gold: str, answer: str) -> Checked:
    raise AssertionError("there is nothing to compare")


def boxes(*answers: str) -> str:
    return "Then " + " or ".join(f"$\\boxed{{{answer}}}$" for answer in answers) + "."


async def found(text: str, **changes: object) -> Correctness:
    return await correctness(text, "58", equals, SETTINGS.model_copy(update=changes))


def wrong(outcome: str, answer: str = "") -> Correctness:
    return Correctness.model_validate({"state": "scored", "outcome": outcome, "answer": answer})


RIGHT = Correctness(state="scored", value=1.0, outcome="answered", answer="58")


@pytest.mark.parametrize("text", [boxes("58"), boxes("58", "58"), boxes("58", r"\text{58}", "$58$", "58.")])
async def test_a_right_box_and_its_repetitions_are_right(text: str):
    assert await found(text) == RIGHT


@pytest.mark.parametrize("text", [boxes("58", "59"), boxes("59", "58"), boxes("1", "58", "58")])
async def test_a_hedge_is_wrong_wherever_the_right_box_stands(text: str):
    outcome = await found(text)
    assert (outcome.state, outcome.value, outcome.outcome) == ("scored", 0.0, "several")


@pytest.mark.parametrize("answers", [("1", "?"), ("?", "1")])
async def test_a_wrong_box_is_wrong_though_nobody_could_decide_about_another(answers: tuple[str, str]):
    async def check(gold: str, answer: str) -> Checked:
        return Checked(None, "timeout") if answer == "?" else await equals(gold, answer)

    outcome = await correctness(boxes(*answers), "58", check, SETTINGS)
    assert (outcome.state, outcome.value) == ("scored", 0.0)


async def test_two_wrong_boxes_are_a_wrong_answer():
    assert await found(boxes("1", "2")) == wrong("several", "1,2")


async def test_a_box_for_every_number_is_not_even_compared():
    text = boxes(*map(str, range(100)))
    assert (await correctness(text, "58", refuse, SETTINGS)).outcome == "several"


async def test_only_the_final_answer_counts_as_in_the_evaluation():
    assert await found(f"First \\boxed{{7}}. {boxes('58')}") == RIGHT
    assert await found(f"First \\boxed{{58}}. {boxes('7')}") == wrong("answered", "7")


@pytest.mark.parametrize("text", ["", "   ", "It is 58.", r"\boxed{}", r"\boxed{$$}", r"\boxed{58"])
async def test_without_a_box_there_is_no_answer(text: str):
    assert await correctness(text, "58", refuse, SETTINGS) == wrong("no_answer")


async def test_a_box_without_end_is_no_answer_that_anyone_is_asked_about():
    assert await correctness(boxes("5" * 100_000), "58", refuse, SETTINGS) == wrong("unverifiable", "5" * 1000)


async def test_a_stated_number_counts_where_the_settings_say_so():
    assert await found("The answer is 58.") == wrong("no_answer")
    assert await found("The answer is 58.", format="stated") == RIGHT


async def test_what_nobody_could_decide_is_masked_with_the_reason():
    outcome = await correctness(boxes("59"), "58", nobody, SETTINGS)
    assert outcome == Correctness(state="masked", why="timeout", outcome="answered", answer="59")


@given(st.lists(st.sampled_from(["58", "59", " 58 ", "$58$", "60"]), max_size=6))
def test_boxes_of_one_sentence_are_right_if_all_are(answers: list[str]):
    outcome = asyncio.run(found(boxes(*answers)))
    assert (outcome.value == 1.0) == (bool(answers) and {answer.strip(" $") for answer in answers} == {"58"})


async def test_boxes_of_one_list_are_right_if_the_list_is():
    async def listed(gold: str, answer: str) -> Checked:
        return Checked(answer == "2, 3")

    outcome = await correctness(boxes("2", "3"), "2, 3", listed, SETTINGS)
    assert outcome == Correctness(state="scored", value=1.0, outcome="answered", answer="2,3")
    assert (await correctness(r"\boxed{1}. " + boxes("2", "3"), "2, 3", listed, SETTINGS)).value == 1.0
    assert (await correctness(boxes("2", "3", "4"), "2, 3", listed, SETTINGS)).value == 0.0


class Scripted(AnswerChecker):
    """Gives the verdicts that it was made with, by answer and in order; any other answer is different."""

    def __init__(self, **verdicts: list[Comparison]) -> None:
        super().__init__()
        self._verdicts = {answer: iter(given) for answer, given in verdicts.items()}

    async def compare(self, gold: str, answer: str) -> Comparison:
        answer = "plain" if answer == PLAIN_NUMBER else answer
        different = Comparison(equivalence=Equivalence.DIFFERENT)
        return next(self._verdicts[answer]) if answer in self._verdicts else different


async def test_an_answer_that_only_it_makes_undecidable_is_wrong():
    checker = Scripted(words=[undecided("the answer contains words")] * 2)
    assert await check_by_rule(checker, "58", "words") == Checked(False, verifiable=False)


async def test_a_checker_that_cannot_decide_about_anything_masks():
    late = undecided("it took too long", Cause.TIMEOUT)
    checker = Scripted(x=[late], plain=[late])
    assert await check_by_rule(checker, "58", "x") == Checked(None, "timeout")
    checker = Scripted(
        x=[undecided("the gold answer contains words")], plain=[undecided("the gold answer contains words")]
    )
    assert await check_by_rule(checker, "no solution", "x") == Checked(None, "undecided")


async def test_a_worker_that_died_once_costs_no_right_answer():
    checker = Scripted(x=[undecided("worker died"), EQUAL])
    assert await check_by_rule(checker, "58", "x") == Checked(True)


@pytest.mark.parametrize(
    ("gold", "answer"), [("n(N+1)", "N(n+1)"), (r"\cos(\pi n)", "(-1)^n")], ids=["equal but for", "different, unless"]
)
async def test_a_doubt_about_answers_that_can_be_read_is_masked(gold: str, answer: str):
    doubt = decide(gold, answer)
    assert doubt.equivalence is Equivalence.UNDECIDED
    doubt = doubt.model_copy(update={"reason": "in other words"})  # only the cause decides
    assert await check_by_rule(Scripted(x=[doubt]), gold, "x") == Checked(None, "undecided")
    late = Scripted(x=[undecided("worker died"), doubt])
    assert await check_by_rule(late, gold, "x") == Checked(None, "undecided")


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\frac{n(n+1)}{2}", "T_n"),
        (r"1+\sqrt{2}", "K_5"),
        (r"\frac{\pi^2}{6}", r"\mathrm{Li}_2(1)"),
        (r"2\sqrt{2}", r"3/2\sqrt{2}"),
        ("n^2", r"O(n^2)"),
        ("x+1", r"\bar{x}"),
        ("2x", r"\log x"),
    ],
)
async def test_a_notation_of_the_answer_alone_does_not_mask(gold: str, answer: str):
    """A masked answer is better off than other wrong ones, so no name or notation may be a refuge."""
    doubt = decide(gold, answer)
    assert (doubt.reason or "").startswith("different, unless")
    doubt = doubt.model_copy(update={"reason": "in other words"})  # only the cause and the notation decide
    assert await check_by_rule(Scripted(x=[doubt]), gold, "x") == Checked(None, "undecided")
    assert await check_by_rule(Scripted(**{answer: [doubt]}), gold, answer) == Checked(False, verifiable=False)
    assert await check_by_rule(Scripted(**{gold: [doubt]}), answer, gold) == Checked(None, "undecided")


async def test_a_logarithm_without_its_base_stays_a_doubt():
    doubt = decide(r"\log_2 x", r"\log x")
    assert await check_by_rule(Scripted(**{r"\log x": [doubt]}), r"\log_2 x", r"\log x") == Checked(None, "undecided")


async def test_words_are_wrong_by_math_verify_and_other_forms_of_the_answer_right():
    async with AnswerChecker(timeout=60.0, workers=1) as checker:

        async def by_rule(gold: str, answer: str) -> Checked:
            return await check_by_rule(checker, gold, answer)

        texts = [boxes(r"\text{fifty-eight}"), boxes("57+1"), boxes("57")]
        outcomes = [await correctness(text, "58", by_rule, SETTINGS) for text in texts]
    assert [(one.value, one.outcome) for one in outcomes] == [(0, "unverifiable"), (0, "unevaluated"), (0, "answered")]
