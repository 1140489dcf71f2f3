"""The experience bank E: low-level findings to reuse, and pitfalls to avoid."""

from __future__ import annotations

from collections.abc import Sequence

from tmas.memory.bank import Bank, item_line
from tmas.memory.settings import BankSettings
from tmas.prompts.schemas import ExperienceOutput
from tmas.records import Experience


class ExperienceBank(Bank[Experience, ExperienceOutput]):
    """Conclusions and pitfalls. Two items of different kinds are never merged."""

    prefix = "E"
    role = "experience"
    item_type = Experience
    output_type = ExperienceOutput

    settings: BankSettings = BankSettings(capacity=48)

    def is_weakened_by_low_grades(self, item: Experience) -> bool:
        return item.kind == "conclusion"  # a pitfall comes from rollouts that failed

    def alike(self, a: Experience, b: Experience) -> bool:
        return a.kind == b.kind and super().alike(a, b)

    def _layout(self, items: Sequence[Experience]) -> str:
        headings = {
            "Pitfalls to avoid:": [item for item in items if item.kind == "pitfall" and item.refuted is None],
            "Refuted claims, not to be used again:": [item for item in items if item.refuted is not None],
            "Findings to reuse, re-check before relying on them:": [item for item in items if not item.is_pitfall],
        }
        return "\n\n".join("\n".join([heading, *map(item_line, found)]) for heading, found in headings.items() if found)
