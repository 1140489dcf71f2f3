"""The three verdicts on two answers."""

from __future__ import annotations

from enum import StrEnum

from tmas.records import Record


class Equivalence(StrEnum):
    EQUAL = "equal"
    DIFFERENT = "different"
    UNDECIDED = "undecided"


class Cause(StrEnum):
    """Why a comparison is undecided, as far as other code needs to know.

    ``DOUBT``: both answers could be parsed, but how they are written leaves a doubt.
    """

    TIMEOUT = "timeout"
    DOUBT = "doubt"


class Notation(StrEnum):
    """Notations that raise a doubt about the verdict "different". The value completes "different, unless ..."."""

    NAME = "a name is known"
    ORDER_OF_GROWTH = "an order of growth is stated without its sign"
    DERIVATIVE = "a derivative has another notation"
    ACCENT = "a bar or a hat has a meaning"
    MODULUS = "the modulus is given by the problem"
    LOGARITHM = "the base of a logarithm is known"
    FUNCTION = "a function is known"
    SLASH = "a slash divides by less or more than was assumed"


class Comparison(Record):
    """Result of comparing two answers.

    ``reason``: why it is undecided, for a reader; None otherwise. ``cause`` and ``notation`` say the same for code.
    ``notation``: the notation that raises the doubt; None if there is no doubt, or another one.
    """

    equivalence: Equivalence
    reason: str | None = None
    cause: Cause | None = None
    notation: Notation | None = None

    @property
    def equal(self) -> bool:
        return self.equivalence is Equivalence.EQUAL


EQUAL = Comparison(equivalence=Equivalence.EQUAL)
DIFFERENT = Comparison(equivalence=Equivalence.DIFFERENT)


def undecided(reason: str, cause: Cause | None = None) -> Comparison:
    """Return an undecided result with its reason."""
    return Comparison(equivalence=Equivalence.UNDECIDED, reason=reason, cause=cause)


def equal_but_for(doubt: str) -> Comparison:
    """Return the result for answers with equal values that ``doubt`` may distinguish."""
    return undecided(f"equal but for {doubt}", Cause.DOUBT)


def different_unless(doubt: str | Notation) -> Comparison:
    """Return the result for answers with different values that are equal if ``doubt`` holds."""
    notation = doubt if isinstance(doubt, Notation) else None
    reason = f"different, unless {doubt}"
    return Comparison(equivalence=Equivalence.UNDECIDED, reason=reason, cause=Cause.DOUBT, notation=notation)
