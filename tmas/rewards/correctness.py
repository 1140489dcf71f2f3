"""Scores whether the final answer is correct."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal, NamedTuple

from tmas.answers.ambiguity import only_in
from tmas.answers.checker import AnswerChecker
from tmas.answers.equivalence import Equivalence, normalise
from tmas.answers.extract import extract_boxed, extract_stated
from tmas.answers.verdicts import Cause
from tmas.judge import EquivalenceVerdict, equivalence_prompt
from tmas.records import Failure, FailureReason
from tmas.rewards.component import Component
from tmas.rewards.questions import Questions
from tmas.rewards.refused import refusal
from tmas.rewards.settings import AnswerSettings

Outcome = Literal[
    "answered",
    "no_answer",
    "unevaluated",
    "several",
    "wordy",
    "unverifiable",
    "graded",
    "no_grade",
    "truncated",
    "bad_row",
]
"""What became of a response. ``graded`` and ``no_grade`` are only used for verifications."""
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
    """The component with the outcome of the response. ``answer``: the final answer, without typesetting, or empty."""

    outcome: Outcome
    answer: str = ""


async def correctness(text: str, gold: str, check: Check, settings: AnswerSettings) -> Correctness:
    """Score ``text``, the text after the thinking, by its final answer, which is found as in the evaluation.

    Some answers are wrong without a comparison: see :mod:`tmas.rewards.refused`.
    """
    answer = extract_stated(text) if settings.format == "stated" else extract_boxed(text)
    shown = normalise(answer[: settings.max_chars]) if answer else ""
    if answer is None or not shown:
        return _wrong("no_answer", "")
    if len(answer) > settings.max_chars:
        return _wrong("unverifiable", answer[: settings.max_chars])
    if refused := refusal(gold, answer):
        return _wrong(refused, shown)
    checked = await check(gold, answer)
    if checked.right is None:
        return Correctness(state="masked", why=checked.why, outcome="answered", answer=shown)
    outcome = "answered" if checked.verifiable else "unverifiable"
    return Correctness(state="scored", value=float(checked.right), outcome=outcome, answer=shown)


async def check_by_rule(checker: AnswerChecker, gold: str, answer: str) -> Checked:
    """Check by math-verify, which may be undecided (words, a tower of powers, another unit).

    If it is undecided, ``gold`` is compared with a plain number. If this is undecided, too, the gold answer or the
    checker is at fault, and the result stays undecided. Otherwise the answer is compared again. If this is still
    undecided, the answer itself is at fault and counts as wrong.

    If both answers could be parsed, but their notation leaves a doubt, the result stays undecided. But if only the
    answer has this notation, it counts as wrong: no response may avoid a verdict with ``T_n`` or ``1/2x``.
    """
    verdict = await checker.compare(gold, answer)
    if verdict.equivalence is Equivalence.UNDECIDED and verdict.cause is not Cause.DOUBT:
        if not await checkable_by_rule(checker, gold):
            return Checked(None, "timeout" if verdict.cause is Cause.TIMEOUT else "undecided")
        verdict = await checker.compare(gold, answer)
    if verdict.notation in only_in(normalise(answer), normalise(gold)):
        return Checked(False, verifiable=False)
    if verdict.cause is Cause.DOUBT:
        return Checked(None, "undecided")
    return Checked(verdict.equal, verifiable=verdict.equivalence is not Equivalence.UNDECIDED)


async def check_by_judge(
    judge: Questions, checker: AnswerChecker, gold: str, answer: str, question: str = ""
) -> Checked:
    """Return the majority of the judge's passes, with the evaluation's prompt. It shows the problem ``question``.

    The judge is only asked if the rule cannot decide, so that no text in an answer can hide a difference that the rule
    finds. If no verdict repeats the code of its prompt (:meth:`tmas.judge.Judge.ask`), the judge is asked about a
    plain number instead. If it repeats the code there, the answer itself is the cause and counts as wrong: if it were
    masked, it would be better off than other wrong answers.
    """
    if normalise(gold) == normalise(answer):
        return Checked(True)
    verdict = await checker.compare(gold, answer)
    if verdict.equivalence is not Equivalence.UNDECIDED:
        return Checked(verdict.equal)
    passes = await _ask(judge, gold, answer, question)
    votes = [one.verdict == "equivalent" for one in passes if not isinstance(one, Failure)]
    reasons = [one.reason for one in passes if isinstance(one, Failure)]
    if not votes and FailureReason.CODE in reasons:
        control = await _ask(judge, gold, PLAIN_NUMBER, question)
        if any(isinstance(one, EquivalenceVerdict) for one in control):
            return Checked(False, verifiable=False)
    if 2 * sum(votes) == len(votes):  # a tie, or no vote at all
        return Checked(None, reasons[0].value if reasons else "undecided")
    return Checked(2 * sum(votes) > len(votes))


async def _ask(judge: Questions, gold: str, answer: str, question: str) -> list[EquivalenceVerdict | Failure]:
    prompt = equivalence_prompt(judge.prompts, gold, answer, question, judge.approximation_digits)
    return await judge.ask(prompt, EquivalenceVerdict, gold, answer, str(judge.approximation_digits))


async def checkable_by_rule(checker: AnswerChecker, gold: str) -> bool:
    """Whether answers can be compared with ``gold`` by rule at all. Other rows need a judge."""
    return (await checker.compare(gold, PLAIN_NUMBER)).equivalence is not Equivalence.UNDECIDED


def _wrong(outcome: Outcome, answer: str) -> Correctness:
    return Correctness(state="scored", outcome=outcome, answer=answer)
