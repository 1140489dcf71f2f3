"""The settings of the reward, typed and checked: every weight and gate. Reasons: docs/rewards.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tmas.judge import JudgeSettings
from tmas.prompts import BUILT_IN, PackedPrompts
from tmas.settings import Settings


class AnswerSettings(Settings):
    """``format`` as ``method.agents.answer_format``. More different boxes than ``max_boxes`` are ambiguous uncompared,
    a box of more than ``max_chars`` characters is no answer."""

    format: Literal["boxed", "stated"] = "boxed"
    max_boxes: int = Field(default=4, ge=1)
    max_chars: int = Field(default=1000, ge=1)


class CheckerSettings(Settings):
    """math-verify's workers in each reward process; ``timeout`` in seconds a comparison."""

    timeout: float = Field(default=5.0, gt=0)
    workers: int = Field(default=2, ge=1)


class EvidenceSettings(Settings):
    """When a quote shows a step of the solution's own: at least ``min_tokens`` tokens, ``min_symbols`` of them
    mathematical, are in no run of ``copied_run`` or more that stands in the problem or the bank."""

    min_tokens: int = Field(default=6, ge=1)
    min_symbols: int = Field(default=3, ge=0)
    copied_run: int = Field(default=4, ge=1)


class ExperienceSettings(Settings):
    """``enough`` items applied earn the whole bonus; ``similarity`` from which a quote repeats a bank item."""

    form: Literal["judge", "delta", "none"] = "judge"
    weight: float = Field(default=0.3, ge=0, lt=1)
    enough: int = Field(default=2, ge=1)
    similarity: float = Field(default=0.7, ge=0, le=1)


class NoveltySettings(Settings):
    """``min_steps`` steps must be shown; a variation of a known strategy earns ``variation``; ``similarity`` from which
    an approach is one of the guidelines."""

    form: Literal["judge", "none"] = "judge"
    weight: float = Field(default=0.3, ge=0, lt=1)
    min_steps: int = Field(default=2, ge=1)
    variation: float = Field(default=0.5, ge=0, le=1)
    similarity: float = Field(default=0.7, ge=0, le=1)


class RewardSettings(Settings):
    """Everything that ``reward_kwargs.settings`` may hold.

    ``wrong_share``: of its bonus that a wrong answer keeps. ``truncated``: what a cut-off response counts as.
    ``deadline``: seconds for one sample with all waiting; more than the judge's ``timeout``, or its breaker would never
    open. ``max_solution_chars``: a longer final text earns no bonus. ``judge``: only opened when something needs it.
    ``prompts``: the judges' prompts; ``tmas train prompts=FOLDER`` sets it.
    """

    wrong_share: float = Field(default=0.5, ge=0, le=1)
    truncated: Literal["wrong", "mask"] = "wrong"
    deadline: float = Field(default=300.0, gt=0)
    max_solution_chars: int = Field(default=40_000, ge=1)
    answer: AnswerSettings = AnswerSettings()
    checker: CheckerSettings = CheckerSettings()
    evidence: EvidenceSettings = EvidenceSettings()
    experience: ExperienceSettings = ExperienceSettings()
    novelty: NoveltySettings = NoveltySettings()
    judge: JudgeSettings | None = None
    prompts: PackedPrompts = BUILT_IN

    def weight_of(self, source: str) -> float:
        """w, the weight of the bonus that rows of ``source`` can earn."""
        return {"experience": self.experience.weight, "guideline": self.novelty.weight}.get(source, 0.0)

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        needed = [name for name in ("experience", "novelty") if getattr(self, name).form == "judge"]
        if needed and self.judge is None:
            raise ValueError(f"{' and '.join(needed)}: form=judge needs a judge: set judge.name and judge.base_url")
        if self.judge and self.judge.timeout >= self.deadline:
            raise ValueError("deadline must be longer than judge.timeout")
        return self


def reward_settings(values: Mapping[str, Any], router_address: str | None = None) -> RewardSettings:
    """Checked settings from plain ones; ``router_address`` (``host:port``): of the judge that verl hosts, which is
    asked where the judge has no ``base_url`` of its own."""
    judge = values.get("judge")
    if judge and router_address and not judge.get("base_url"):
        whole = {"base_url": f"http://{router_address}/v1", "stream": False}  # verl 0.9.1's router takes no streams
        values = {**values, "judge": {**judge, **whole}}
    return RewardSettings.model_validate(values)
