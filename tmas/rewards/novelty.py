"""Scores whether a solution used a strategy that is not among its guidelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tmas.agents.context import all_items
from tmas.judge import fence
from tmas.memory.guidelines import GuidelineBank
from tmas.prompts import Prompts
from tmas.prompts.schemas import cut
from tmas.records import Guideline
from tmas.rewards.component import Component, masked, scored
from tmas.rewards.evidence import Evidence
from tmas.rewards.settings import NoveltySettings

Ids = Annotated[tuple[Annotated[str, Field(max_length=16)], ...], Field(json_schema_extra={"maxItems": 64})]


class NoveltyVerdict(BaseModel):
    """The judge's verdict: the approach of the solution, quotes of its key steps, and similar guidelines.

    ``same``: ids of guidelines with the same main idea. ``variation_of``: ids of guidelines that it varies or extends.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Annotated[str, Field(min_length=1), cut(200)]
    description: Annotated[str, Field(min_length=1), cut(1000)]
    steps: Annotated[tuple[Annotated[str, cut(1000)], ...], Field(json_schema_extra={"maxItems": 16})]
    same: Ids
    variation_of: Ids


def prompt(prompts: Prompts, question: str, solution: str, guidelines: Sequence[Guideline]) -> str:
    """Render the judge's prompt. It contains neither the gold answer nor whether the solution is correct."""
    bank = all_items(GuidelineBank(items=tuple(guidelines)))
    marks = {"mark": fence(question, bank), "solution_mark": fence(question, bank, solution)}
    return prompts.render("judge_novelty", question=question, bank=bank, solution=solution, **marks)


def score(
    verdict: NoveltyVerdict, evidence: Evidence, guidelines: Sequence[Guideline], settings: NoveltySettings
) -> Component:
    """Return 1 for a new strategy, ``variation`` for a variation of one of the ``guidelines``, and 0 otherwise.

    A strategy is known if the judge says so, or if its name, description or both nearly duplicate a guideline's. It
    must be carried out: the quotes must contain ``min_steps`` steps of the solution's own work. A verdict that names
    unknown guidelines, or whose quotes are all invented, is masked.
    """
    known = {guideline.item_id for guideline in guidelines}
    similar = {*verdict.same, *verdict.variation_of}
    if not similar <= known or (verdict.steps and not any(map(evidence.found, verdict.steps))):
        return masked("judge")
    if verdict.same or any(_repeats(verdict, guideline, evidence, settings.similarity) for guideline in guidelines):
        return scored(0.0, "known")
    if evidence.own_work(verdict.steps) < settings.min_steps:
        return scored(0.0, "not_carried_out")
    return scored(settings.variation if verdict.variation_of else 1.0)


def _repeats(verdict: NoveltyVerdict, guideline: Guideline, evidence: Evidence, similarity: float) -> bool:
    pairs = (
        (verdict.name, guideline.name),
        (verdict.description, guideline.description),
        (f"{verdict.name}: {verdict.description}", guideline.text),
    )
    return any(evidence.repeats(judged, known, similarity) for judged, known in pairs)
