"""Settings of a memory bank: how much it holds, and how it weighs evidence."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class BankSettings(BaseModel):
    """Rules of a memory bank. The paper publishes none of them; docs/decisions.md gives the reasons."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    capacity: int = Field(
        ge=1,
        description="Maximum number of items, not counting refuted ones. A full bank evicts the items with the lowest"
        " rank.",
    )
    similarity: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="When two items are merged. null: if their texts differ only in typesetting and function words. A"
        " number: also if they are near-duplicates with at least this Jaccard similarity of words.",
    )
    support: Literal["rollouts", "mentions"] = Field(
        default="rollouts",
        description="What an item's support counts. rollouts: distinct rollouts that derived it. mentions: every time"
        " that the agent states or confirms it, as in older versions.",
    )
    shown_weight: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="What each rollout whose prompt showed an item adds to the item's support. The sum over these"
        " rollouts is rounded down.",
    )
    drop_cost: int | None = Field(
        default=2,
        ge=1,
        description="Maximum number of contradictions that one drop or correction adds to an item. null: one "
        "drop always refutes the item, and one correction always replaces its text.",
    )
    tombstones: int = Field(
        default=16,
        ge=0,
        description="Maximum number of refuted items that are kept as warnings, the latest ones. They cannot be added"
        " again.",
    )
    grade_weight: float = Field(
        default=2.0,
        ge=0,
        description="How much rank a conclusion loses per grade point of shortfall. The shortfall is how far the "
        "grades of its rollouts lie below the mean grades of their iterations, summed. 0: grades do not "
        "matter.",
    )
    cap_new: bool = Field(
        default=True,
        description="Whether agents.max_new_items limits the new items of a reply. false: all are accepted.",
    )


OLDER_RULES: dict[str, Any] = {
    "support": "mentions",
    "shown_weight": 1.0,
    "drop_cost": None,
    "tombstones": 0,
    "grade_weight": 0.0,
    "cap_new": False,
}
"""The values that reproduce the rules from before these settings existed.

``similarity`` is not one of them: it existed before, with a default of 0.7, and older runs recorded it.
"""
