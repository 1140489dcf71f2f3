"""The guideline bank G: high-level strategies that were tried, to move away from."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from tmas.memory.bank import Bank, item_line
from tmas.memory.settings import BankSettings
from tmas.prompts.schemas import GuidelineOutput
from tmas.records import Guideline


class GuidelineBankSettings(BankSettings):
    """Rules of the guideline bank. A strategy makes no claim that could be refuted, so some defaults differ."""

    capacity: int = Field(default=24, ge=1, description=BankSettings.model_fields["capacity"].description)
    shown_weight: float = Field(
        default=1.0, ge=0, le=1, description=BankSettings.model_fields["shown_weight"].description
    )
    drop_cost: int | None = Field(default=None, ge=1, description=BankSettings.model_fields["drop_cost"].description)
    tombstones: int = Field(default=0, ge=0, description=BankSettings.model_fields["tombstones"].description)


class GuidelineBank(Bank[Guideline, GuidelineOutput]):
    """Strategies by name and description."""

    prefix = "G"
    role = "guideline"
    item_type = Guideline
    output_type = GuidelineOutput

    settings: BankSettings = GuidelineBankSettings()

    def is_weakened_by_low_grades(self, item: Guideline) -> bool:
        return False  # strategies that failed are those to move away from

    def _layout(self, items: Sequence[Guideline]) -> str:
        return "\n".join(map(item_line, items))
