"""Scores one response at a time with the checker and the judge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Json, ValidationError

from tmas.answers.checker import AnswerChecker
from tmas.judge import Judge
from tmas.llm.thinking import OPEN, split_thinking
from tmas.llm.tokens import token_counter
from tmas.records import Experience, Failure, Guideline
from tmas.rewards import experience, novelty, verification
from tmas.rewards.component import Component, absent, masked, mean_of, scored
from tmas.rewards.correctness import Check, Checked, Correctness, Outcome, check_by_judge, check_by_rule, correctness
from tmas.rewards.evidence import Evidence
from tmas.rewards.hybrid import RewardBreakdown, Source
from tmas.rewards.plain import plain
from tmas.rewards.questions import KeptVerdicts, Questions
from tmas.rewards.settings import OverlongSettings, RewardSettings
from tmas.rewards.verification import VerificationTruth

V = TypeVar("V", bound=BaseModel)
_ESTIMATE = token_counter("estimate")


class RewardInput(BaseModel):
    """The fields of a row's ``extra_info`` that the reward reads. ``experience`` and ``guidelines`` are JSON lists.

    The reward manager adds ``truncated``, ``response_tokens``, ``max_response_tokens`` (the longest that a response can
    be, 0 if unknown), ``thinking_opened`` (the prompt ends with the tag that opens the thinking, as in some chat
    templates, so the response begins with thinking) and ``prompt``, which also shows earlier attempts.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    question: str = ""
    source: Source = "normal"
    experience: Json[tuple[Experience, ...]] = ()
    guidelines: Json[tuple[Guideline, ...]] = ()
    truncated: bool = False
    response_tokens: int = 0
    max_response_tokens: int = 0
    thinking_opened: bool = False
    prompt: str = ""


class Scorer:
    """Scores responses; an async context manager for one event loop. Workers and connections open on first use."""

    def __init__(self, settings: RewardSettings) -> None:
        self.settings = settings
        digits = settings.answer.approximation_digits
        self._checker = AnswerChecker(settings.checker.timeout, settings.checker.workers, approximation_digits=digits)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._checker.close()
        if "_judge" in vars(self):  # only if the judge was used: the property would open it
            await self._judge.__aexit__()

    @cached_property
    def _judge(self) -> Judge:
        assert self.settings.judge  # the settings guarantee it where a judge is used
        return Judge(self.settings.judge, self.settings.prompts, self.settings.answer.approximation_digits)

    def questions(self, kept: Iterable[KeptVerdicts] | None = None) -> Questions:
        """The judge's questions about one response. ``kept``: verdicts to use instead of asking."""
        return Questions(self.settings, (lambda: self._judge) if self.settings.judge else None, kept)

    async def score(
        self,
        data_source: str,
        response: str,
        gold: str,
        extra_info: Mapping[str, Any] | None,
        questions: Questions | None = None,
    ) -> dict[str, str | float]:
        """Score ``response`` and return its report (:meth:`~tmas.rewards.hybrid.RewardBreakdown.report`).

        The report also has what ``tmas rescore`` needs to reward the kept response again: ``truncated`` and
        ``thinking_opened`` (0 or 1), ``response_tokens``, and the judge's ``verdicts``.

        ``data_source``: ``math`` (checked by rule), ``math_grm`` (checked by rule and judge) or ``verification``.
        ``gold``: the gold answer; for a verification, a :class:`~tmas.rewards.verification.VerificationTruth` as JSON.
        ``extra_info``: the fields of :class:`RewardInput`. ``questions``: those of :meth:`questions`, with kept
        verdicts. Never raises for a bad row, a bad response or a failed judge: the report says what went wrong, and the
        parts that could not be scored are masked.
        """
        questions = questions or self.questions()
        try:
            row = RewardInput.model_validate(extra_info or {})
            check = self._check(data_source, row.question, questions)
            truth = VerificationTruth.model_validate_json(gold) if row.source == "verification" else None
        except ValidationError:
            row, check, truth = RewardInput(), None, None
        text = split_thinking(OPEN + response if row.thinking_opened else response, "").text
        if truth:
            correctness_part, bonus = await self._grading(row, text, truth, questions)
        else:
            if check is None:
                correctness_part = _unscored("row", "bad_row")
            elif row.truncated:
                correctness_part = self._truncated()
            else:
                correctness_part = await correctness(text, gold, check, self.settings.answer)
            bonus = await self._bonus(row, text, correctness_part, questions)
        parts = RewardBreakdown(
            source=row.source,
            correctness=correctness_part,
            bonus=bonus,
            weight=self.settings.weight_of(row.source),
            wrong_share=self.settings.wrong_share,
            length_penalty=overlong_penalty(row.response_tokens, row.max_response_tokens, self.settings.overlong),
            label=truth.label if truth else "",
        )
        return {
            **parts.report(),
            "truncated": int(row.truncated),
            "thinking_opened": int(row.thinking_opened),
            "response_tokens": row.response_tokens,
            "verdicts": questions.packed(),
        }

    def _check(self, data_source: str, question: str, questions: Questions) -> Check | None:
        """The check for rows of ``data_source``; None for an unknown source, and for verifications."""
        by_judge = partial(self._check_by_judge, question, questions)
        return {"math": partial(check_by_rule, self._checker), "math_grm": by_judge}.get(data_source)

    async def _check_by_judge(self, question: str, questions: Questions, gold: str, answer: str) -> Checked:
        if not questions.can_be_answered:
            return Checked(None, "no_judge")
        return await check_by_judge(questions, self._checker, gold, answer, question)

    def _truncated(self) -> Correctness:
        if self.settings.truncated == "mask":
            return _unscored("truncated", "truncated")
        return Correctness(state="scored", outcome="truncated")

    async def _bonus(
        self, row: RewardInput, text: str, correctness_part: Correctness, questions: Questions
    ) -> Component:
        """Score the bonus of the row's source. It is absent if no answer was compared, or if it would add nothing."""
        if correctness_part.state != "scored" or correctness_part.outcome != "answered":
            return absent(correctness_part.why or correctness_part.outcome)
        if correctness_part.value == 0 and self.settings.wrong_share == 0:
            return absent("wrong")
        if row.source == "experience" and row.experience:
            return await self._experience(row, text, questions)
        if row.source == "guideline" and row.guidelines:
            return await self._novelty(row, text, questions)
        return absent("" if row.source == "normal" else "empty_bank")

    async def _grading(
        self, row: RewardInput, text: str, truth: VerificationTruth, questions: Questions
    ) -> tuple[Correctness, Component]:
        """Score a verification: its grade and, if the candidate is wrong and the grade says so, its critique."""
        settings = self.settings.verification
        if row.truncated:
            return self._truncated(), absent("truncated")
        graded = verification.parsed(text)
        correctness_part = verification.grading(graded, truth, settings.half)
        if graded is None or correctness_part.value < 1:
            return correctness_part, absent("wrong" if graded else correctness_part.outcome)
        if truth.right or settings.form == "none":
            return correctness_part, absent("no_error" if truth.right else "off")
        critique = plain(graded.critique)
        evidence = [Evidence(quoted, (), self.settings.evidence) for quoted in (truth.candidate, critique)]
        prompt = verification.prompt(self.settings.prompts, row.question, truth, critique)
        return correctness_part, await self._judged(
            questions,
            critique,
            prompt,
            verification.CritiqueVerdict,
            lambda verdict: verification.score(verdict, *evidence),
        )

    async def _experience(self, row: RewardInput, text: str, questions: Questions) -> Component:
        settings, items = self.settings.experience, row.experience
        if settings.form == "none":
            return absent("off")
        text = plain(text)
        evidence = self._evidence(row, text, items)
        prompt = experience.prompt(self.settings.prompts, row.question, text, items)
        return await self._judged(
            questions,
            text,
            prompt,
            experience.ExperienceVerdict,
            lambda v: experience.score(v, evidence, items, settings),
        )

    async def _novelty(self, row: RewardInput, text: str, questions: Questions) -> Component:
        settings, items = self.settings.novelty, row.guidelines
        if settings.form == "none":
            return absent("off")
        text = plain(text)
        evidence = self._evidence(row, text, items)
        prompt = novelty.prompt(self.settings.prompts, row.question, text, items)
        return await self._judged(
            questions, text, prompt, novelty.NoveltyVerdict, lambda v: novelty.score(v, evidence, items, settings)
        )

    def _evidence(self, row: RewardInput, text: str, items: Iterable[Experience | Guideline]) -> Evidence:
        given = [row.prompt, row.question, *(item.text for item in items)]
        return Evidence(text, given, self.settings.evidence, row.question)

    async def _judged(
        self, questions: Questions, text: str, prompt: str, output: type[V], score: Callable[[V], Component]
    ) -> Component:
        """Return the mean over the judge's passes. A text longer than ``max_solution_tokens`` gets 0 without a call."""
        if _ESTIMATE(text) > self.settings.max_solution_tokens:
            return scored(0.0, "too_long")
        passes = await questions.ask(prompt, output, text)
        return mean_of([masked(one.reason.value) if isinstance(one, Failure) else score(one) for one in passes])


def overlong_penalty(tokens: int, limit: int, settings: OverlongSettings) -> float:
    """The soft overlong penalty of DAPO (arXiv 2503.14476, equation 13) for a response of ``tokens`` tokens.

    It is subtracted from the score. It is 0 up to (1 - share) * ``limit`` tokens, and then grows linearly to
    ``penalty`` at ``limit`` tokens. ``limit``: the longest that a response can be, in tokens; 0 if it is unknown, which
    gives no penalty.
    """
    buffer = settings.share * limit
    excess = tokens - (limit - buffer)
    return settings.penalty * min(1.0, max(0.0, excess / buffer)) if buffer else 0.0


def _unscored(why: str, outcome: Outcome) -> Correctness:
    return Correctness(state="masked", why=why, outcome=outcome)
