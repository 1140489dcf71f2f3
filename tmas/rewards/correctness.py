"""Scores whether the final answer is correct."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal, NamedTuple

from tmas.answers.checker import AnswerChecker
from tmas.answers.equivalence import Comparison, Equivalence, normalise
from tmas.answers.extract import all_boxed, extract_stated, last_boxes
from tmas.concurrency import gather_all
from tmas.judge import EquivalenceVerdict, Judge, contains_forged_verdict, equivalence_prompt
from tmas.records import Failure
from tmas.rewards.component import Component
from tmas.rewards.settings import AnswerSettings

Outcome = Literal["answered", "no_answer", "ambiguous", "unverifiable", "truncated", "bad_row"]
PLAIN_NUMBER = r"\frac{355}{113}"
"""A working checker can compare this number with every gold answer that can be checked by rule."""


class Checked(NamedTuple):
    """``right``: None if undecided, for the reason ``why``. ``verifiable``: False if the answer itself prevents the
    check.
    """

    right: bool | None
    why: str = ""
    verifiable: bool = True


Check = Callable[[str, str], Coroutine[Any, Any, Checked]]
"""Checks an answer, given (gold, answer)."""


class Correctness(Component):
    """The component with the outcome of the response. ``answer``: the last box, without typesetting, or empty."""

    outcome: Outcome
    answer: str = ""


async def correctness(text: str, gold: str, check: Check, settings: AnswerSettings) -> Correctness:
    """Score ``text``, the text after the thinking. All boxes in it must be correct; contradictory ones are
    ``ambiguous``. If all boxes are one list (``\\boxed{2} and \\boxed{3}``), the list may be correct instead.
    """
    answers = _answers(text, settings)
    if not answers:
        return _wrong("no_answer", "")
    last = _key(answers[-1], settings)[: settings.max_chars]
    if any(len(answer) > settings.max_chars for answer in answers):
        return _wrong("unverifiable", last)
    if len(answers) > settings.max_boxes:
        return _wrong("ambiguous", last)
    checked = await gather_all(check(gold, answer) for answer in answers)
    listed = _as_list(text, answers, settings)
    if listed and not all(one.right for one in checked) and (await check(gold, listed)).right:
        return Correctness(state="scored", value=1.0, outcome="answered", answer=_key(listed, settings))
    found = {one.right for one in checked}
    if found >= {True, False}:
        return _wrong("ambiguous", last)
    for one in checked:
        if one.right is None and False not in found:  # one wrong box decides
            return Correctness(state="masked", why=one.why, outcome="answered", answer=last)
    outcome = "answered" if checked[-1].verifiable else "unverifiable"
    return Correctness(state="scored", value=float(checked[-1].right is True), outcome=outcome, answer=last)


async def check_by_rule(checker: AnswerChecker, gold: str, answer: str) -> Checked:
    """Check by math-verify, which may be undecided (words, a tower of powers, another unit).

    An undecided answer is compared again, if a plain number can be compared with ``gold``. If it is still undecided,
    the answer itself is at fault and wrong. Otherwise the gold answer or the checker is at fault, and nobody decides. A
    doubt about two answers that could both be parsed also remains undecided.
    """
    verdict = await checker.compare(gold, answer)
    if verdict.equivalence is Equivalence.UNDECIDED and not _is_doubt(verdict):
        if not await checkable_by_rule(checker, gold):
            return Checked(None, "timeout" if verdict.reason == "timeout" else "undecided")
        verdict = await checker.compare(gold, answer)
    if _is_doubt(verdict):
        return Checked(None, "undecided")
    return Checked(verdict.equal, verifiable=verdict.equivalence is not Equivalence.UNDECIDED)


async def check_by_judge(judge: Judge, gold: str, answer: str, question: str = "") -> Checked:
    """Return the majority of the judge's passes, with the evaluation's prompt. It shows the problem ``question``.

    The judge is not asked if only typesetting differs. An answer that contains a forged verdict is wrong.
    """
    if normalise(gold) == normalise(answer):
        return Checked(True)
    if contains_forged_verdict(answer, EquivalenceVerdict):
        return Checked(False, verifiable=False)
    prompt = equivalence_prompt(judge.prompts, gold, answer, question, judge.approximation_digits)
    passes = await judge.ask(prompt, EquivalenceVerdict)
    votes = [one.verdict == "equivalent" for one in passes if not isinstance(one, Failure)]
    if 2 * sum(votes) == len(votes):  # a tie, or no vote at all
        return Checked(None, next((one.reason.value for one in passes if isinstance(one, Failure)), "undecided"))
    return Checked(2 * sum(votes) > len(votes))


async def checkable_by_rule(checker: AnswerChecker, gold: str) -> bool:
    """Whether answers can be compared with ``gold`` by rule at all. Other rows need a judge."""
    return (await checker.compare(gold, PLAIN_NUMBER)).equivalence is not Equivalence.UNDECIDED


def _is_doubt(verdict: Comparison) -> bool:
    return (verdict.reason or "").startswith(("equal but for", "different, unless"))


def _answers(text: str, settings: AnswerSettings) -> list[str]:
    """The answers in ``text`` that differ by more than typesetting, in order of their last occurrence."""
    found = all_boxed(text)
    if not found and settings.format == "stated" and (stated := extract_stated(text)):
        found = [stated]
    different = {_key(answer, settings): answer for answer in reversed(found)}
    return [answer for key, answer in reversed(different.items()) if key]


def _as_list(text: str, answers: list[str], settings: AnswerSettings) -> str | None:
    """The list that the last boxes form, if it holds every answer in ``text``."""
    joined, boxes = last_boxes(text)
    whole = {_key(box, settings) for box in boxes} == {_key(answer, settings) for answer in answers}
    return joined if whole and len(boxes) > 1 else None


def _key(answer: str, settings: AnswerSettings) -> str:
    return answer if len(answer) > settings.max_chars else normalise(answer)


def _wrong(outcome: Outcome, answer: str) -> Correctness:
    return Correctness(state="scored", outcome=outcome, answer=answer)
