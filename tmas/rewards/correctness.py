"""Whether the final answer is right: what counts as one, and what each verdict on it is worth."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal, NamedTuple

from tmas.answers.checker import AnswerChecker
from tmas.answers.equivalence import Comparison, Equivalence, normalise
from tmas.answers.extract import all_boxed, extract_stated
from tmas.concurrency import gather_all
from tmas.judge import EquivalenceVerdict, Judge, equivalence_prompt, forges
from tmas.records import Failure
from tmas.rewards.component import Component
from tmas.rewards.settings import AnswerSettings

Outcome = Literal["answered", "no_answer", "ambiguous", "unverifiable", "truncated", "bad_row"]
PLAIN_NUMBER = r"\frac{355}{113}"
"""What a checker in order can compare with every gold answer that can be checked by rule."""


class Checked(NamedTuple):
    """``right`` is None where nobody could decide, for the reason ``why``; ``verifiable`` is False where the answer
    itself is why it cannot be checked."""

    right: bool | None
    why: str = ""
    verifiable: bool = True


Check = Callable[[str, str], Coroutine[Any, Any, Checked]]
"""Whether an answer is right, given (gold, answer)."""


class Correctness(Component):
    """The component with what became of the response; ``answer`` is the last box, without typesetting, or empty."""

    outcome: Outcome
    answer: str = ""


async def correctness(text: str, gold: str, check: Check, settings: AnswerSettings) -> Correctness:
    """``text`` is what follows the thinking. Every box in it must be right: a hedge is ``ambiguous``, and wrong."""
    answers = _answers(text, settings)
    if not answers:
        return _wrong("no_answer", "")
    last = _key(answers[-1], settings)[: settings.max_chars]
    if any(len(answer) > settings.max_chars for answer in answers):
        return _wrong("unverifiable", last)
    if len(answers) > settings.max_boxes:
        return _wrong("ambiguous", last)
    checked = await gather_all(check(gold, answer) for answer in answers)
    found = {one.right for one in checked}
    if found >= {True, False}:
        return _wrong("ambiguous", last)
    for one in checked:
        if one.right is None and False not in found:  # one wrong box is enough
            return Correctness(state="masked", why=one.why, outcome="answered", answer=last)
    outcome = "answered" if checked[-1].verifiable else "unverifiable"
    return Correctness(state="scored", value=float(checked[-1].right is True), outcome=outcome, answer=last)


async def check_by_rule(checker: AnswerChecker, gold: str, answer: str) -> Checked:
    """math-verify's verdict. An answer that it cannot decide about (words, a tower of powers, another unit), twice,
    though it can about a plain number, is itself at fault and wrong; else the gold answer or the checker is. A doubt
    about two answers that could both be read is left as it is."""
    verdict = await checker.compare(gold, answer)
    if verdict.equivalence is Equivalence.UNDECIDED and not _is_doubt(verdict):
        if not await checkable_by_rule(checker, gold):
            return Checked(None, "timeout" if verdict.reason == "timeout" else "undecided")
        verdict = await checker.compare(gold, answer)
    if _is_doubt(verdict):
        return Checked(None, "undecided")
    return Checked(verdict.equal, verifiable=verdict.equivalence is not Equivalence.UNDECIDED)


async def check_by_judge(judge: Judge, gold: str, answer: str) -> Checked:
    """The majority of the judge's passes, by the evaluation's prompt. It is not asked where only typesetting differs,
    nor about an answer with a verdict of its own in it, which is wrong."""
    if normalise(gold) == normalise(answer):
        return Checked(True)
    if forges(answer, EquivalenceVerdict):
        return Checked(False, verifiable=False)
    passes = await judge.ask(equivalence_prompt(judge.prompts, gold, answer), EquivalenceVerdict)
    votes = [one.verdict == "equivalent" for one in passes if not isinstance(one, Failure)]
    if 2 * sum(votes) == len(votes):  # a tie, or no vote at all
        return Checked(None, next((one.reason.value for one in passes if isinstance(one, Failure)), "undecided"))
    return Checked(2 * sum(votes) > len(votes))


async def checkable_by_rule(checker: AnswerChecker, gold: str) -> bool:
    """Whether answers can be compared with ``gold`` by rule at all: rows of which they cannot belong to a judge."""
    return (await checker.compare(gold, PLAIN_NUMBER)).equivalence is not Equivalence.UNDECIDED


def _is_doubt(verdict: Comparison) -> bool:
    return (verdict.reason or "").startswith(("equal but for", "different, unless"))


def _answers(text: str, settings: AnswerSettings) -> list[str]:
    """The answers in ``text`` that are not the same but for typesetting, in order of their last sight."""
    found = all_boxed(text)
    if not found and settings.format == "stated" and (stated := extract_stated(text)):
        found = [stated]
    different = {_key(answer, settings): answer for answer in reversed(found)}
    return [answer for key, answer in reversed(different.items()) if key]


def _key(answer: str, settings: AnswerSettings) -> str:
    return answer if len(answer) > settings.max_chars else normalise(answer)


def _wrong(outcome: Outcome, answer: str) -> Correctness:
    return Correctness(state="scored", outcome=outcome, answer=answer)
