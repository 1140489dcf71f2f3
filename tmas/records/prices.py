"""Prices of models, and what the tokens of a run cost. A price that is not known makes a cost unknown, never 0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

from pydantic import Field, model_validator

from tmas.records.calls import Record, Usage
from tmas.records.values import UsageEntry

MILLION = 1_000_000


class Price(Record):
    """The price of a model. It is known if ``input`` and ``output`` are set."""

    input: float | None = Field(default=None, ge=0, description="Price of a million prompt tokens. null: not known.")
    cached_input: float | None = Field(
        default=None,
        ge=0,
        description="Price of a million prompt tokens that the server had cached. null: the same as input.",
    )
    output: float | None = Field(
        default=None, ge=0, description="Price of a million completion tokens, thinking included. null: not known."
    )
    currency: str = Field(default="USD", min_length=1, description="Currency of the prices.")

    @model_validator(mode="after")
    def _is_whole_or_unknown(self) -> Self:
        if (self.input is None) != (self.output is None):
            raise ValueError("input and output: set both prices, or none")
        if self.cached_input is not None and self.input is None:
            raise ValueError("cached_input needs input and output")
        return self

    @property
    def is_known(self) -> bool:
        return self.input is not None

    def cost(self, usage: Usage) -> float | None:
        """What ``usage`` costs, in ``currency``. None if the price is not known, or if no server reported the tokens.

        If a server does not report cached prompt tokens, the cost assumes that there were none.
        """
        is_unreported = usage.calls > 0 and usage.total_tokens == 0
        if self.input is None or self.output is None or is_unreported:
            return None
        cached_input = self.input if self.cached_input is None else self.cached_input
        fresh = usage.prompt_tokens - usage.cached_prompt_tokens
        prompt = fresh * self.input + usage.cached_prompt_tokens * cached_input
        return (prompt + usage.completion_tokens * self.output) / MILLION


UNKNOWN_PRICE = Price()


class ListPrice(Price):
    """A row of the table ``prices``: the price that a provider publishes for a model."""

    host: str | None = Field(
        default=None,
        description="Host name of the provider's server: the price holds for this server alone. null: for every"
        " server that serves a model of this name.",
    )
    as_of: str | None = Field(default=None, description="Date on which the price was looked up, as YYYY-MM-DD.")

    @property
    def plain(self) -> Price:
        """The price without ``host`` and ``as_of``."""
        return Price(**self.model_dump(include=set(Price.model_fields)))


class Cost(Record):
    """What usage costs. ``by_role``: None for a role whose price is not known. ``total``: None if any of them is None.

    ``currency`` is None if no price is known.
    """

    currency: str | None
    total: float | None
    by_role: dict[str, float | None]


def cost_of(usage: Mapping[str, Usage], prices: Mapping[str, Price]) -> Cost:
    """The cost of ``usage`` by role. ``prices``: the price of each role's model; all of them in the same currency."""
    by_role = {role: prices.get(role, UNKNOWN_PRICE).cost(used) for role, used in usage.items()}
    known = [cost for cost in by_role.values() if cost is not None]
    currency = next((price.currency for price in prices.values() if price.is_known), None)
    return Cost(
        currency=currency,
        total=sum(known) if currency and len(known) == len(by_role) else None,
        by_role=by_role,
    )


def cost_of_entries(entries: Iterable[UsageEntry], prices: Mapping[str, Price]) -> float | None:
    """The cost of usage by role and iteration. None if the price of a role is not known, or if there are no
    prices."""
    costs = [prices.get(entry.role, UNKNOWN_PRICE).cost(entry.usage) for entry in entries]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if prices and len(known) == len(costs) else None


def money(amount: float | None, currency: str | None = None) -> str:
    """An amount as text: two decimals, or four below 1. ``unknown`` if it is None."""
    if amount is None:
        return "unknown"
    text = f"{amount:,.2f}" if amount >= 1 or amount == 0 else f"{amount:.4f}"
    if text == "0.0000":
        text = "<0.0001"
    return f"{text} {currency}" if currency else text
