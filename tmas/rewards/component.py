"""One part of a reward, and what it may be instead of a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from tmas.records import Record

State = Literal["scored", "masked", "absent"]


class Component(Record):
    """``value`` in [0, 1] if ``scored``, and otherwise 0 and to be left out.

    ``masked``: whoever was to score it failed. ``absent``: there is nothing to score (another kind of row, switched
    off, no answer). ``why``: a word for the reason; for a scored one, of what kept it at 0 without being asked about.
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
    """The mean over the passes that scored; where none did, masked for the first one's reason."""
    values = [one.value for one in passes if one.state == "scored"]
    if not values:
        return masked(passes[0].why)
    mean = sum(values) / len(values)
    return scored(mean, "" if mean else next(one.why for one in passes if one.state == "scored"))
