"""One component of a reward: a number, masked, or absent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from tmas.records import Record

State = Literal["scored", "masked", "absent"]


class Component(Record):
    """``value``: in [0, 1] if ``scored``, otherwise 0 and not to be used.

    ``masked``: the scoring failed. ``absent``: nothing is scored, for example because rows of this source do not have
    the component, it is switched off, or the response has no answer.
    ``why``: one word that says why the component is masked or absent, or why a scored value is 0.
    """

    state: State
    value: float = Field(default=0.0, ge=0, le=1)
    why: str = ""


def scored(value: float, why: str = "") -> Component:
    return Component(state="scored", value=value, why=why)


def masked(why: str) -> Component:
    return Component(state="masked", why=why)


def absent(why: str = "") -> Component:
    return Component(state="absent", why=why)


def mean_of(passes: Sequence[Component]) -> Component:
    """The mean over the scored passes. If none is scored, masked with the reason of the first pass."""
    values = [one.value for one in passes if one.state == "scored"]
    if not values:
        return masked(passes[0].why)
    mean = sum(values) / len(values)
    return scored(mean, "" if mean else next(one.why for one in passes if one.state == "scored"))
