"""Scores the use of experience: a judge says for each item whether it was used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tmas.agents.context import all_items
from tmas.judge import fence
from tmas.memory.experience import ExperienceBank
from tmas.prompts import Prompts
from tmas.prompts.schemas import cut
from tmas.records import Experience
from tmas.rewards.component import Component, masked, scored
from tmas.rewards.evidence import Evidence
from tmas.rewards.settings import ExperienceSettings

Quote = Annotated[str, cut(1000)]
_VERDICT_CONFIG = ConfigDict(frozen=True, extra="ignore")


class ItemUse(BaseModel):
    """The use of one item. ``applied``: a step that the answer depends on was derived from it, as ``quote`` shows."""

    model_config = _VERDICT_CONFIG

    id: Annotated[str, Field(max_length=16)]
    use: Literal["none", "cited", "applied"]
    correct: bool
    quote: Quote


class Repetition(BaseModel):
    """A pitfall of the bank that the solution repeats, as ``quote`` shows."""

    model_config = _VERDICT_CONFIG

    id: Annotated[str, Field(max_length=16)]
    quote: Quote


class ExperienceVerdict(BaseModel):
    """The judge's verdict."""

    model_config = _VERDICT_CONFIG

    items: Annotated[tuple[ItemUse, ...], Field(json_schema_extra={"maxItems": 64})]
    repeated: Annotated[tuple[Repetition, ...], Field(json_schema_extra={"maxItems": 64})] = ()


def prompt(prompts: Prompts, question: str, solution: str, items: Sequence[Experience]) -> str:
    """Render the judge's prompt. It contains neither the gold answer nor whether the solution is correct."""
    bank = all_items(ExperienceBank(items=tuple(items)))
    marks = {"mark": fence(question, bank), "solution_mark": fence(question, bank, solution)}
    return prompts.render("judge_experience", question=question, bank=bank, solution=solution, **marks)


def score(
    verdict: ExperienceVerdict, evidence: Evidence, items: Sequence[Experience], settings: ExperienceSettings
) -> Component:
    """Return min(1, n / ``enough``), where n is the number of items shown to be applied.

    If there are fewer items than ``enough``, all of them are enough. A repeated pitfall gives 0. An item counts if it
    is not refuted, it was applied correctly, and the quote is the solution's own work and repeats no item. A verdict
    that names unknown items or no items, or whose quotes are all invented, is masked.
    """
    texts = {item.item_id: item.text for item in items}
    pitfalls = {item.item_id for item in items if item.is_pitfall}
    refuted = {item.item_id for item in items if item.refuted is not None}
    uses = {use.id: use for use in verdict.items}
    repeated = [evidence.found(repetition.quote) for repetition in verdict.repeated if repetition.id in pitfalls]
    applied = [use.quote for use in uses.values() if use.use == "applied" and use.correct and use.id not in refuted]
    names_unknown_item = not {*uses, *(repetition.id for repetition in verdict.repeated)} <= texts.keys()
    if names_unknown_item or (repeated and not any(repeated)) or (applied and not any(map(evidence.found, applied))):
        return masked("judge")
    if repeated:
        return scored(0.0, "pitfall")
    if not uses:
        return masked("judge")
    copies = {q for q in applied for text in texts.values() if evidence.repeats(q, text, settings.similarity)}
    shown = evidence.own_work(quote for quote in applied if quote not in copies)
    value = min(1.0, shown / min(settings.enough, len(texts)))
    return scored(value, "" if value else "not_shown" if applied else "not_applied")
