"""The experience bank E: low-level findings to reuse, and pitfalls to avoid."""

from __future__ import annotations

from collections.abc import Sequence

from tmas.memory.bank import Bank, BankSettings, line
from tmas.prompts.schemas import ExperienceOutput
from tmas.records import Experience


class ExperienceBank(Bank[Experience, ExperienceOutput]):
    """Conclusions and pitfalls. Only two items of the same kind can be duplicates."""

    prefix = "E"
    role = "experience"
    item_type = Experience
    output_type = ExperienceOutput

    settings: BankSettings = BankSettings(capacity=48)

    def _alike(self, a: Experience, b: Experience) -> bool:
        return a.kind == b.kind and super()._alike(a, b)

    def _layout(self, items: Sequence[Experience]) -> str:
        headings = {
            "pitfall": "Pitfalls to avoid:",
            "conclusion": "Findings to reuse, re-check before relying on them:",
        }
        sections = {kind: [line(item) for item in items if item.kind == kind] for kind in headings}
        return "\n\n".join("\n".join([headings[kind], *lines]) for kind, lines in sections.items() if lines)
