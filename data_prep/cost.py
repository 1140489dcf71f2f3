"""Estimates the calls and tokens of ``tmas distill``.

The estimate uses the mean cost of the finished problems. If there are none, it uses expected lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from pydantic import Field

from tmas.llm.tokens import Count
from tmas.methods.tmas import TMASSettings
from tmas.records import Problem, Record, Usage
from tmas.settings import ModelSettings, Settings

INSTRUCTIONS = 200
"""Tokens of the instructions in a prompt. The estimate counts the other parts separately."""


class Length(Settings):
    """Expected length of the replies of one role."""

    reply: int = Field(ge=0, description="Expected tokens of a reply, thinking included.")
    text: int = Field(
        default=0, ge=0, description="Expected tokens after the thinking, where later prompts contain them."
    )


class Expected(Settings):
    """Expected lengths in tokens, for the estimate before any problem is finished."""

    solution: Length = Field(default=Length(reply=12_000, text=1_000), description="Lengths of solutions.")
    verification: Length = Field(default=Length(reply=6_000, text=600), description="Lengths of verifications.")
    summary: Length = Field(default=Length(reply=2_000, text=350), description="Lengths of summaries.")
    experience: Length = Field(default=Length(reply=4_000), description="Lengths of updates of the experience bank.")
    guideline: Length = Field(default=Length(reply=3_000), description="Lengths of updates of the guideline bank.")
    bank: int = Field(default=1_500, ge=0, description="Expected tokens of a filled memory bank in a prompt.")

    def within(self, model: ModelSettings) -> Expected:
        """The expected lengths, none of them longer than the limit of its role."""

        def limited(role: str) -> Length:
            length, most = getattr(self, role), model.for_role(role).sampling.max_tokens
            return Length(reply=min(length.reply, most), text=min(length.text, most))

        return self.model_copy(update={role: limited(role) for role in TMASSettings.roles})


class Price(Settings):
    """Prices for the estimate."""

    prompt: float | None = Field(
        default=None, ge=0, description="Price per million prompt tokens, in any currency. null: no price is shown."
    )
    completion: float | None = Field(
        default=None,
        ge=0,
        description="Price per million completion tokens, in the same currency. null: no price is shown.",
    )


class CostEstimate(Record):
    """Estimated calls and tokens for a number of ``problems``.

    ``measured``: the estimate comes from finished problems, not from expected lengths.
    """

    problems: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    measured: bool

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def money(self, price: Price) -> float | None:
        """The cost in the currency of ``price``. None if a price is not set."""
        if price.prompt is None or price.completion is None:
            return None
        return (self.prompt_tokens * price.prompt + self.completion_tokens * price.completion) / 1e6


def measured_estimate(remaining: int, finished: Sequence[Usage]) -> CostEstimate:
    """Estimate for ``remaining`` problems at the mean cost of the ``finished`` ones. Needs at least one of these."""
    spent, factor = sum(finished, Usage()), remaining / len(finished)
    return CostEstimate(
        problems=remaining,
        calls=round(spent.calls * factor),
        prompt_tokens=round(spent.prompt_tokens * factor),
        completion_tokens=round(spent.completion_tokens * factor),
        measured=True,
    )


def expected_estimate(
    problems: Sequence[Problem], method: TMASSettings, expected: Expected, count: Count
) -> CostEstimate:
    """Estimate for all calls of the method on ``problems``, from the expected lengths of replies and prompts."""
    question = round(fmean(count(problem.question) for problem in problems)) + INSTRUCTIONS if problems else 0
    prompts, replies = _tokens_of_one(question, method, expected)
    return CostEstimate(
        problems=len(problems),
        calls=len(problems) * method.max_iterations * (3 * method.n_candidates + 2),
        prompt_tokens=len(problems) * prompts,
        completion_tokens=len(problems) * replies,
        measured=False,
    )


def _tokens_of_one(question: int, method: TMASSettings, expected: Expected) -> tuple[int, int]:
    """Prompt and completion tokens of one problem. The prompt of the M verifications is counted M times."""
    n, m, t = method.n_candidates, method.n_verifications, method.max_iterations
    solution, summary = question + expected.solution.text, expected.summary
    attempts = n * (expected.solution.text + summary.text)
    prompts = (
        n * (t * question + (t - 1) * (expected.bank + (1 - method.epsilon) * attempts))
        + t * n * m * solution
        + t * n * (solution + m * expected.verification.text)
        + t * 2 * (question + attempts + expected.bank)
    )
    replies = n * (expected.solution.reply + m * expected.verification.reply + summary.reply)
    return round(prompts), t * (replies + expected.experience.reply + expected.guideline.reply)
