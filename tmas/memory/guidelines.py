"""The guideline bank G: high-level strategies that were tried, to move away from."""

from __future__ import annotations

from collections.abc import Sequence

from tmas.memory.bank import Bank, BankSettings, line
from tmas.prompts.schemas import GuidelineOutput
from tmas.records import Guideline


class GuidelineBank(Bank[Guideline, GuidelineOutput]):
    """Strategies by name and description."""

    prefix = "G"
    role = "guideline"
    item_type = Guideline
    output_type = GuidelineOutput

    settings: BankSettings = BankSettings(capacity=24)

    def _layout(self, items: Sequence[Guideline]) -> str:
        return "\n".join(map(line, items))
