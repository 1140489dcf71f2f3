"""When to stop verifying a candidate, as pure functions of its grades.

A *check* is one verification of a candidate. A candidate is checked in rounds, M checks at most. Each round's grades
decide whether there is another round:

1. *It cannot be selected any more.* Even if all its remaining checks graded it 1, its mean grade would stay below that
   of a candidate that is already fully checked. This rule makes no error.
2. *Its checks agree that it is wrong.* A sequential test compares two hypotheses about the mean score p of unlimited
   checks: p >= ``right`` and p <= ``wrong``. A check with score s (the grade, 0.5 replaced by ``half``) adds
   s ln(right / wrong) + (1 - s) ln((1 - right) / (1 - wrong)) to the *evidence*. If scores are 0 or 1, this is Wald's
   log-likelihood ratio. The candidate is *rejected* once the evidence is at most ln(``beta``).
3. *Its answer is settled.* If checks of the same answer in earlier iterations were evidence against it, the candidate
   starts with this evidence, or with ln(``beta``) if that is higher.

A candidate that is not rejected is checked M times. It is *accepted* if its evidence is then at least
ln(1 / ``alpha``).

The error rates hold for checks that are independent, given the candidate, and for any distribution of the scores.
exp(evidence) has an expectation of at most 1 after each check if p <= ``wrong``, and so has exp(-evidence) if p >=
``right``, because a^s b^(1-s) <= s a + (1-s) b. By Ville's inequality, a candidate with p <= ``wrong`` is accepted with
probability ``alpha`` at most, and one with p >= ``right`` is rejected with probability ``beta`` at most. Both rates are
per candidate. With rule 3, ``beta`` holds for the first candidate with an answer: an answer that was rejected by error
starts with that error. Between ``wrong`` and ``right`` nothing is guaranteed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Grades = Sequence[float | None]
"""The grades of a candidate's checks, in the order of the checks. None: the check failed and gave no grade."""


class VerificationSettings(BaseModel):
    """Verification in rounds, with a sequential test of each candidate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    round_size: int = Field(
        default=2,
        ge=1,
        description="Minimum number of checks in a round. A round is larger if so few checks could not decide "
        "anything.",
    )
    right: float = Field(
        default=0.8, gt=0, lt=1, description="A candidate is right if the mean score of its checks is at least this."
    )
    wrong: float = Field(
        default=0.2, gt=0, lt=1, description="A candidate is wrong if the mean score of its checks is at most this."
    )
    alpha: float = Field(
        default=0.001,
        gt=0,
        lt=1,
        description="Highest probability that a wrong candidate is accepted (see early_stop=accepted), per candidate.",
    )
    beta: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Highest probability that a right candidate is rejected, which ends its checks early.",
    )
    half: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Score of a check that grades 0.5. 0: it counts as a check that failed the candidate.",
    )

    @model_validator(mode="after")
    def _right_is_above_wrong(self) -> Self:
        if self.wrong >= self.right:
            raise ValueError(f"wrong ({self.wrong}) must be below right ({self.right})")
        return self

    @property
    def for_score_1(self) -> float:
        """The evidence of a check with score 1."""
        return math.log(self.right / self.wrong)

    @property
    def for_score_0(self) -> float:
        """The evidence of a check with score 0; negative."""
        return math.log((1 - self.right) / (1 - self.wrong))


_ROUNDING = 1e-9
"""Sums of logarithms that should be equal to a threshold may miss it by this much."""


def evidence(grades: Grades, settings: VerificationSettings) -> float:
    """The sum of the checks' evidence: positive for right, negative for wrong. Failed checks add nothing."""
    scores = [settings.half if grade == 0.5 else grade for grade in grades if grade is not None]
    return sum(score * settings.for_score_1 + (1 - score) * settings.for_score_0 for score in scores)


def rejected(grades: Grades, settings: VerificationSettings, earlier: Grades = ()) -> bool:
    """Whether the checks agree that the candidate is wrong. ``earlier``: see :func:`next_checks`.

    Earlier grades count at most as much as a rejection, so that a right candidate can always outweigh them.
    """
    against = max(min(0.0, evidence(earlier, settings)), math.log(settings.beta))
    return against + evidence(grades, settings) <= math.log(settings.beta) + _ROUNDING


def accepted(grades: Grades, full: int, settings: VerificationSettings) -> bool:
    """Whether the candidate has all its ``full`` checks, and they agree that it is right."""
    return len(grades) >= full and evidence(grades, settings) >= -math.log(settings.alpha) - _ROUNDING


def next_checks(
    grades: Grades, full: int, settings: VerificationSettings, best: float | None = None, earlier: Grades = ()
) -> int:
    """The number of checks in the next round of a candidate with these ``grades``; 0: no further round.

    ``full``: M, the number of checks of a fully checked candidate. ``best``: the mean grade that the candidate has to
    reach to be selected; None if there is no such grade. ``earlier``: grades that the same answer received in earlier
    iterations.

    Every candidate has a first round, because later prompts need a critique of it. A round has at least ``round_size``
    checks. If grades of 0 in all of them could not stop the candidate, the round has the smallest number of checks that
    could.
    """
    remaining = full - len(grades)
    if remaining <= 0:
        return 0
    if grades and (_cannot_reach(best, grades, remaining) or rejected(grades, settings, earlier)):
        return 0
    zeros = next(
        (
            k
            for k in range(1, remaining)
            if rejected([*grades, *[0.0] * k], settings, earlier)
            or _cannot_reach(best, [*grades, *[0.0] * k], remaining - k)
        ),
        remaining,
    )
    return min(remaining, max(settings.round_size, zeros))


def _cannot_reach(best: float | None, grades: Grades, remaining: int) -> bool:
    """Whether the mean grade stays below ``best`` even if all ``remaining`` checks grade 1."""
    known = [grade for grade in grades if grade is not None]
    return best is not None and (sum(known) + remaining) / (len(known) + remaining) < best - _ROUNDING
