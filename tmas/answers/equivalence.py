"""Decides whether two answers are equivalent.

Answers are compared as text, then by math-verify. Answers with words are equal if their words are the same and the
mathematics between the words is equal.

math-verify sometimes finds different answers equal: it drops what looks like a unit (``2c`` is 2) and reads words as
products of letters (``listen`` is ``silent``). This module avoids both; :mod:`tmas.answers.symbolic` handles the rest.
"""

from __future__ import annotations

import re
from enum import StrEnum

from tmas.answers.normalize import normalise
from tmas.answers.symbolic import doubt_about_different, doubt_about_equal, equal, parse, without_commands
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


_WHOLE_NUMBER = re.compile(r"-?\d{1,1000}")


def compare_texts(gold: str, answer: str) -> Comparison | None:
    """Decide the cheap cases: equal texts (ignoring typesetting) and whole numbers. None: use :func:`decide`."""
    gold, answer = normalise(gold), normalise(answer)
    if gold and gold == answer:
        return EQUAL
    if _WHOLE_NUMBER.fullmatch(gold) and _WHOLE_NUMBER.fullmatch(answer):
        return EQUAL if int(gold) == int(answer) else DIFFERENT
    return None


_SIDES = ("gold answer", "answer")
_UNIT = re.compile(
    r"(?:\s*\\(?:text|textrm|mathrm|mbox)\s*\{(?P<text>[^{}]*)\}|\s(?P<word>[a-z]{4,}|[cmk]m|kg|ft|mph))"
    r"(?P<power>\^\{?\d\}?)?[\s.$]*$"
)
_NOT_UNITS = re.compile(
    r"\b(?:hundred|thousand|million|billion|trillion|dozen|percent|times|factorial|mod|or|and|if|for)\b|\d", re.I
)
_SHORT_WORDS = "all|any|are|but|for|has|if|is|mod|no|non|not|odd|of|the|to|yes|sin|cos|tan|log|exp|gcd|lcm|max|min"
_WORDS = re.compile(rf"(?<![A-Za-z])(?:[A-Za-z]{{4,}}|(?i:{_SHORT_WORDS}))(?![A-Za-z])")
_LETTERS = re.compile(r"\\[A-Za-z]+|(?<![\dA-Za-z])(?P<word>[A-Za-z]{2,})")


def decide(gold: str, answer: str) -> Comparison:
    """Compare two answers completely. This may hang or exhaust memory: call it through :mod:`tmas.answers.checker`."""
    values, units = zip(*map(_split_unit, (gold, answer)), strict=True)
    if all(units) and units[0] != units[1]:
        return undecided("the units differ")
    for side, value in zip(_SIDES, values, strict=True):
        if _WORDS.search(without_commands(value)):
            return EQUAL if _same_words(*values) else undecided(f"the {side} holds words")
    return _decide_mathematics(*values)


def _split_unit(answer: str) -> tuple[str, str]:
    r"""Split a number from its unit (``5 \text{ cm}^2``). The unit is empty if the text before it is not a plain
    number.
    """
    match = _UNIT.search(answer)
    if match is None:
        return normalise(answer), ""
    value = normalise(answer[: match.start()])
    unit = (match["text"] or match["word"] or "").strip()
    a_list = re.search(r",(?!\d{3}(?!\d))", value)
    numeric = any(map(str.isdigit, value)) and not re.search("[A-Za-z]", without_commands(value))
    if a_list or not numeric or _NOT_UNITS.search(unit):
        return normalise(answer), ""
    return value, unit + (match["power"] or "")


def _decide_mathematics(gold: str, answer: str) -> Comparison:
    """Compare two normalised answers without words."""
    parsed = parse(gold, answer), parse(answer, gold)
    for side, expressions in zip(_SIDES, parsed, strict=True):
        if not expressions:
            return undecided(f"the {side} cannot be parsed")
    if equal(*parsed):
        doubt = doubt_about_equal(gold, answer, parsed)
        return undecided(f"equal but for {doubt}") if doubt else EQUAL
    doubt = doubt_about_different(gold, answer, parsed)
    return undecided(f"different, unless {doubt}") if doubt else DIFFERENT


def _same_words(gold: str, answer: str) -> bool:
    """Whether both have the same words, with equal mathematics between them, piece by piece and in order."""
    (words, pieces), (other_words, other_pieces) = map(_words_and_pieces, (gold, answer))
    return (
        words == other_words
        and len(pieces) == len(other_pieces)
        and all(_same_piece(*both) for both in zip(pieces, other_pieces, strict=True))
    )


def _same_piece(one: str, other: str) -> bool:
    return one == other or bool(one and other and _decide_mathematics(one, other).equal)


def _words_and_pieces(value: str) -> tuple[list[str], list[str]]:
    """Return the words (adjacent letters without a preceding digit) and the pieces between words and commas."""
    words = [match for match in _LETTERS.finditer(value) if match["word"]]
    starts, ends = [0, *(word.end() for word in words)], [*(word.start() for word in words), len(value)]
    between = [value[start:end] for start, end in zip(starts, ends, strict=True)]
    return [word[0] for word in words], [piece for text in between for piece in _split_at_commas(text)]


def _split_at_commas(text: str) -> list[str]:
    """Split at the commas outside all brackets."""
    pieces, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character in ",;" and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += character
    return [piece.strip(" .:") for piece in pieces]
