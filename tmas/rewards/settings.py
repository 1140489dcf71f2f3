"""Settings of the reward: all weights and thresholds. docs/rewards.md gives the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tmas.judge import JudgeSettings
from tmas.prompts import BUILT_IN, PackedPrompts
from tmas.settings import Settings


class AnswerSettings(Settings):
    """``format``: as ``method.agents.answer_format``.

    More than ``max_boxes`` different boxes are ambiguous. A box longer than ``max_chars`` characters is not an answer.
    """

    format: Literal["boxed", "stated"] = "boxed"
    max_boxes: int = Field(default=4, ge=1)
    max_chars: int = Field(default=1000, ge=1)


class CheckerSettings(Settings):
    """Workers for math-verify in each reward process. ``timeout``: seconds per comparison."""

    timeout: float = Field(default=5.0, gt=0)
    workers: int = Field(default=2, ge=1)


class EvidenceSettings(Settings):
    """When a quote counts as the solution's own work.

    Runs of at least ``copied_run`` tokens that occur in the prompt are removed. ``min_tokens`` tokens must remain,
    ``min_symbols`` of them mathematical.
    """

    min_tokens: int = Field(default=6, ge=1)
    min_symbols: int = Field(default=3, ge=0)
    copied_run: int = Field(default=4, ge=1)


class ExperienceSettings(Settings):
    """``enough``: applied items that earn the whole bonus. ``similarity``: minimum similarity of a quote that repeats
    an item.
    """

    form: Literal["judge", "delta", "none"] = "judge"
    weight: float = Field(default=0.3, ge=0, lt=1)
    enough: int = Field(default=2, ge=1)
    similarity: float = Field(default=0.7, ge=0, le=1)


class NoveltySettings(Settings):
    """``min_steps``: steps that must be shown. ``variation``: bonus for a variation of a known strategy.

    ``similarity``: minimum similarity of an approach that equals a guideline.
    """

    form: Literal["judge", "none"] = "judge"
    weight: float = Field(default=0.3, ge=0, lt=1)
    min_steps: int = Field(default=2, ge=1)
    variation: float = Field(default=0.5, ge=0, le=1)
    similarity: float = Field(default=0.7, ge=0, le=1)


class RewardSettings(Settings):
    """All settings under ``reward_kwargs.settings``.

    ``wrong_share``: share of its bonus that a wrong answer keeps. ``truncated``: how a truncated response is scored.
    ``deadline``: seconds per sample including all waiting; it must exceed the judge's ``timeout``, or the circuit
    breaker would never open. ``max_solution_chars``: a longer final text earns no bonus. ``judge``: opened only when
    needed. ``prompts``: the judges' prompts, set by ``tmas train prompts=FOLDER``.
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
        """The weight w of the bonus for rows of ``source``."""
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
    """Validate plain settings.

    ``router_address`` (``host:port``): address of the judge that verl hosts, used if the judge has no ``base_url``.
    """
    judge = values.get("judge")
    if judge and router_address and not judge.get("base_url"):
        whole = {"base_url": f"http://{router_address}/v1", "stream": False}  # verl 0.9.1's router takes no streams
        values = {**values, "judge": {**judge, **whole}}
    return RewardSettings.model_validate(values)
