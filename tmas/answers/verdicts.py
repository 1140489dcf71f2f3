"""The three verdicts on two answers."""

from __future__ import annotations

from enum import StrEnum

from tmas.records import Record


class Equivalence(StrEnum):
    EQUAL = "equal"
    DIFFERENT = "different"
    UNDECIDED = "undecided"


class Comparison(Record):
    """Result of comparing two answers. ``reason``: why it is undecided; None otherwise."""

    equivalence: Equivalence
    reason: str | None = None

    @property
    def equal(self) -> bool:
        return self.equivalence is Equivalence.EQUAL


EQUAL = Comparison(equivalence=Equivalence.EQUAL)
DIFFERENT = Comparison(equivalence=Equivalence.DIFFERENT)


def undecided(reason: str) -> Comparison:
    """Return an undecided result with its reason."""
    return Comparison(equivalence=Equivalence.UNDECIDED, reason=reason)
