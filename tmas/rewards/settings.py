"""Settings of the reward: all weights and thresholds. docs/rewards.md gives the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from tmas.judge import JudgeSettings
from tmas.prompts import BUILT_IN, PromptsAsJson
from tmas.settings import Settings

WITHOUT_JUDGE = {"judge": "not needed"}
"""Validation context for settings that score responses with kept verdicts: they need no judge."""


class AnswerSettings(Settings):
    """How the final answer of a response is found."""

    format: Literal["boxed", "stated"] = Field(
        default="boxed",
        description='boxed: the answer is in \\boxed{}. stated: without a box, the number in the last "answer is 12"'
        " counts.",
    )
    max_chars: int = Field(default=1000, ge=1, description="A box with more characters than this is not an answer.")
    approximation_digits: int | None = Field(
        default=None,
        ge=2,
        description="Minimum number of significant digits of a decimal that is accepted for an exact value which rounds"
        " to it (with 3, 0.333 equals 1/3). null: an approximation is never accepted. The judge follows the same"
        " policy.",
    )


class CheckerSettings(Settings):
    """The math-verify processes of each reward worker."""

    timeout: float = Field(default=5.0, gt=0, description="Seconds of CPU time per comparison of two answers.")
    workers: int = Field(default=2, ge=1, description="Processes that compare answers, for each reward worker of verl.")


class EvidenceSettings(Settings):
    """When a quote from a solution counts as a step that the solution did not copy."""

    min_tokens: int = Field(default=6, ge=1, description="A quote needs at least this many tokens that are not copied.")
    min_symbols: int = Field(
        default=3, ge=0, description="A quote needs at least this many mathematical symbols that are not copied."
    )
    copied_run: int = Field(
        default=4,
        ge=1,
        description="A run of at least this many tokens that also occurs in the prompt (problem, memory bank, earlier"
        " attempts) counts as copied.",
    )
    copied_symbols: int = Field(
        default=8,
        ge=1,
        description="A run of at least this many mathematical symbols that also occurs in the prompt counts as copied,"
        " also with other letters or with words in between. A part of the prompt with fewer symbols counts as"
        " copied if all of its symbols are repeated, unless it has fewer than copied_run.",
    )
    connected: bool = Field(
        default=True,
        description="true: a quote must share a number or a letter with the prompt or with the rest of the solution,"
        " since no answer depends on a step that shares none.",
    )


class ExperienceSettings(Settings):
    """The bonus on rows with an experience bank."""

    form: Literal["judge", "none"] = Field(
        default="judge",
        description="judge: a judge finds the bank items that the solution applied. none: no bonus.",
    )
    weight: float = Field(default=0.3, ge=0, lt=1, description="Weight of the bonus for using the experience bank.")
    enough: int = Field(default=2, ge=1, description="Number of applied items that earns the whole bonus.")
    similarity: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="Jaccard similarity at which a quote counts as a repetition of a bank item.",
    )


class NoveltySettings(Settings):
    """The bonus on rows with guidelines."""

    form: Literal["judge", "none"] = Field(
        default="judge", description="judge: a judge decides whether the strategy is new. none: no bonus."
    )
    weight: float = Field(default=0.3, ge=0, lt=1, description="Weight of the bonus for a new strategy.")
    min_steps: int = Field(
        default=2, ge=1, description="Minimum number of quoted steps that are the solution's own work."
    )
    variation: float = Field(
        default=0.5, ge=0, le=1, description="Share of the bonus that a variation of a known strategy earns."
    )
    similarity: float = Field(
        default=0.7, ge=0, le=1, description="Jaccard similarity at which an approach counts as one of the guidelines."
    )


class OverlongSettings(Settings):
    """The soft overlong penalty (DAPO, arXiv 2503.14476): it discourages responses that are nearly cut off."""

    penalty: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Amount subtracted from the correctness of a response of data.max_response_length tokens. 0: none."
        " 0.5 corresponds to DAPO, whose answers are worth 1 or -1.",
    )
    share: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="The penalty grows linearly over this last share of data.max_response_length; shorter responses"
        " have none.",
    )


class VerificationRewardSettings(Settings):
    """The reward of rows that ask for a verification."""

    form: Literal["judge", "none"] = Field(
        default="none",
        description="judge: a critique that grades a wrong candidate 0 earns a bonus if it names the candidate's first"
        " error, as a judge decides. none: no bonus; the grade alone counts.",
    )
    weight: float = Field(default=0.3, ge=0, lt=1, description="Weight of the bonus for naming the first error.")
    half: float = Field(
        default=0.5,
        ge=0,
        le=0.5,
        description="Correctness of the grade 0.5; the right grade has 1, the opposite one 0. With the default, every"
        " grade has 1 - |grade - label|, where the label is 1 for a right candidate and 0 for a wrong one. A smaller"
        " value makes undecided grades cost more.",
    )


class AdvantageSettings(Settings):
    """How correctness and bonus become an advantage."""

    form: Literal["decoupled", "additive"] = Field(
        default="decoupled",
        description="decoupled: the bonus is compared among samples of a prompt that are equally right, and moves the"
        " advantage by at most its weight. additive: verl compares the scores; divided by a group's standard deviation,"
        " a bonus of any weight can then count as much as correctness.",
    )
    bonus_by_std: bool = Field(
        default=False,
        description="With form=decoupled: divide the bonus by its standard deviation among the samples that it is"
        " compared with. The bound stays the same.",
    )


JUDGE_PROMPTS: Mapping[str, str] = {
    "experience": "judge_experience",
    "novelty": "judge_novelty",
    "verification": "judge_critique",
}
"""The judge's prompt of each setting whose ``form`` may be ``judge``."""


class RewardSettings(Settings):
    """All settings of the reward (docs/rewards.md)."""

    wrong_share: float = Field(
        default=0.0, ge=0, le=1, description="Share of its bonus that a wrong answer keeps. 0: none."
    )
    truncated: Literal["wrong", "mask"] = Field(
        default="wrong",
        description="wrong: a cut-off response counts as wrong. mask: it does not change the policy.",
    )
    overlong: OverlongSettings = Field(
        default=OverlongSettings(), description="The penalty for responses that are nearly cut off."
    )
    max_solution_tokens: int = Field(
        default=16_384,
        ge=1,
        description="Longest final text that can earn a bonus, in tokens estimated from its bytes. It must fit into the"
        " judge's context together with the problem and the bank.",
    )
    advantage: AdvantageSettings = Field(
        default=AdvantageSettings(), description="How correctness and bonus become an advantage."
    )
    answer: AnswerSettings = Field(default=AnswerSettings(), description="How the final answer is found.")
    checker: CheckerSettings = Field(default=CheckerSettings(), description="The processes that compare answers.")
    evidence: EvidenceSettings = Field(
        default=EvidenceSettings(), description="When a quote counts as a step that the solution did not copy."
    )
    experience: ExperienceSettings = Field(
        default=ExperienceSettings(), description="The bonus on rows with an experience bank."
    )
    novelty: NoveltySettings = Field(default=NoveltySettings(), description="The bonus on rows with guidelines.")
    verification: VerificationRewardSettings = Field(
        default=VerificationRewardSettings(), description="The reward of rows that ask for a verification."
    )
    judge: JudgeSettings | None = Field(
        default=None,
        description="The judge of the bonuses and of math_grm rows; in tmas train it is set as judge.name,"
        " judge.base_url, ... null: no judge.",
    )
    prompts: PromptsAsJson = Field(
        default=BUILT_IN,
        description="The judge's prompts as text; tmas train sets it from prompts=FOLDER. null: the built-in prompts.",
    )

    def weight_of(self, source: str) -> float:
        """The weight w of the bonus for rows of ``source``."""
        weights = {"experience": self.experience, "guideline": self.novelty, "verification": self.verification}
        return weights[source].weight if source in weights else 0.0

    @model_validator(mode="after")
    def _can_be_judged(self, info: ValidationInfo) -> Self:
        if info.context is WITHOUT_JUDGE:
            return self
        needed = [name for name in JUDGE_PROMPTS if getattr(self, name).form == "judge"]
        if needed and self.judge is None:
            raise ValueError(f"{' and '.join(needed)}: form=judge needs a judge: set judge.name and judge.base_url")
        return self

    @model_validator(mode="after")
    def _right_answers_score_more(self) -> Self:
        bonus = self.wrong_share * max(self.experience.weight, self.novelty.weight)
        if self.overlong.penalty + bonus >= 1:
            raise ValueError(
                f"overlong.penalty {self.overlong.penalty}: a wrong answer with a bonus of {bonus} could score as much"
                " as a long right one; their sum must be below 1"
            )
        return self


def reward_settings(values: Mapping[str, Any], router_address: str | None = None) -> RewardSettings:
    """Validate plain settings.

    ``router_address`` (``host:port``): address of the judge that verl hosts, used if the judge has no ``base_url``.
    """
    judge = values.get("judge")
    if judge and router_address and not judge.get("base_url"):
        whole = {"base_url": f"http://{router_address}/v1", "stream": False}  # verl 0.9.1's router cannot stream
        values = {**values, "judge": {**judge, **whole}}
    return RewardSettings.model_validate(values)
