"""Rewards verifications: how close the grade is to the truth, and whether the critique names the first error.

The prompt of a ``verification`` row shows a candidate whose final answer is known to be right or wrong.
docs/rewards.md has the formula.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tmas.judge import fence
from tmas.prompts import Prompts
from tmas.prompts.parsing import ParsedVerification, Unparsable, parse_verification
from tmas.prompts.schemas import cut
from tmas.records import Record
from tmas.rewards.component import Component, masked, scored
from tmas.rewards.correctness import Correctness
from tmas.rewards.evidence import Evidence

Quote = Annotated[str, cut(1000)]


class VerificationTruth(Record):
    """The candidate of a ``verification`` row and what is known about it: the JSON in the row's ``ground_truth``.

    ``right``: whether the candidate's final answer equals the gold answer. ``candidate``: its text, as in the prompt.
    """

    right: bool
    gold: str = Field(min_length=1)
    candidate: str = Field(min_length=1)

    @property
    def label(self) -> Literal["right", "wrong"]:
        """The candidate's class in the reward's report."""
        return "right" if self.right else "wrong"


class CritiqueVerdict(BaseModel):
    """The judge's verdict on the critique of a wrong candidate.

    ``first_error``: the candidate's first wrong step, quoted. ``named``: the critique says that this step is wrong, and
    objects to no earlier step. ``explained``: the critique's explanation of the error is true. ``critique_quote``: the
    passage of the critique that names the step.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    first_error: Quote
    named: bool
    explained: bool
    critique_quote: Quote


def parsed(text: str) -> ParsedVerification | None:
    """The critique and the grade, as inference parses them; None without a readable grade or without a critique."""
    with suppress(Unparsable):
        return parse_verification(text)
    return None


def grading(found: ParsedVerification | None, truth: VerificationTruth, half: float) -> Correctness:
    """Return c = 1 - abs(grade - label), where the label is 1 for a right candidate and 0 for a wrong one.

    ``half``: c of the grade 0.5. Without a readable grade c is 0.
    """
    if found is None:
        return Correctness(state="scored", outcome="no_grade")
    value = half if found.grade == 0.5 else 1 - abs(found.grade - truth.right)
    return Correctness(state="scored", value=value, outcome="graded", answer=f"{found.grade:g}")


def prompt(prompts: Prompts, question: str, truth: VerificationTruth, critique: str) -> str:
    """Render the judge's prompt. Unlike other bonus prompts, it has the gold answer, which helps to find the error."""
    given = {"question": question, "gold": truth.gold, "candidate": truth.candidate}
    marks = {"mark": fence(*given.values()), "critique_mark": fence(*given.values(), critique)}
    return prompts.render("judge_critique", **given, critique=critique, **marks)


def score(verdict: CritiqueVerdict, candidate: Evidence, critique: Evidence) -> Component:
    """Return 1 if the critique names the first error and explains it correctly, otherwise 0.

    A verdict is masked if its first error does not occur in the candidate, or if it says that the critique names the
    error, but its quote does not occur in the critique.
    """
    if not candidate.found(verdict.first_error):
        return masked("judge")
    if not verdict.named:
        return scored(0.0, "not_named")
    if not critique.found(verdict.critique_quote):
        return masked("judge")
    return scored(1.0) if verdict.explained else scored(0.0, "not_explained")
