"""Whether two answers are equivalent, by math-verify (https://github.com/huggingface/Math-Verify).

Some of its habits would call different answers equal and are kept from it here: it drops what resembles a unit (``2c``
is 2), reads words as products of letters (``listen`` is ``silent``), and overlooks case, number bases and primes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from enum import StrEnum
from functools import cache
from typing import Any

from tmas.records import Record


class Equivalence(StrEnum):
    EQUAL = "equal"
    DIFFERENT = "different"
    UNDECIDED = "undecided"


class Verdict(Record):
    """Whether two answers are equivalent; ``reason`` tells why it is undecided, and is None otherwise."""

    equivalence: Equivalence
    reason: str | None = None

    @property
    def equal(self) -> bool:
        return self.equivalence is Equivalence.EQUAL


EQUAL = Verdict(equivalence=Equivalence.EQUAL)


def undecided(reason: str) -> Verdict:
    """A verdict that tells why there is none."""
    return Verdict(equivalence=Equivalence.UNDECIDED, reason=reason)


_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\?\$|~|(?<!\\)\\(?:[,;:!> ]|q?quad(?![A-Za-z]))", " "),
        (r"\\(?:left|right)(?![A-Za-z.])", ""),
        (r"\\[dt]frac(?![A-Za-z])", r"\\frac"),
        (r"\\?%|(?<=[\d\s])percent\b", "%"),
        (r"\\(?:text|textrm|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}", r" \1 "),
        (r"\s+(?![\w,.])|(?<![\w,.])\s+", ""),  # never between digits or letters: "1 2" is not "12"
        (r"\s+", " "),
        (r"\s*\.$", ""),
    )
]


def normalise(answer: str) -> str:
    """``answer`` without typesetting that cannot change its meaning: dollars, spacing, fonts, a final full stop."""
    for pattern, replacement in _REWRITES:
        answer = pattern.sub(replacement, answer)
    return answer.strip()


_UNIT = re.compile(
    r"(?:\s*\\(?:text|textrm|mathrm|mbox)\s*\{(?P<text>[^{}]*)\}|\s(?P<word>[a-z]{4,}|[cmk]m|kg|ft|mph))"
    r"(?P<power>\^\{?\d\}?)?[\s.$]*$"
)
_NOT_UNITS = re.compile(
    r"\b(?:hundred|thousand|million|billion|trillion|dozen|percent|times|factorial|mod|or|and|if|for)\b|\d", re.I
)
_COMMAND = re.compile(r"\\(?:(?:begin|end|operatorname)\s*\{[^{}]*\}|[A-Za-z]+)")
_SHORT_WORDS = "all|any|are|but|for|has|if|is|mod|no|non|not|odd|of|the|to|yes|sin|cos|tan|log|exp|gcd|lcm|max|min"
_WORDS = re.compile(rf"(?<![A-Za-z])(?:[A-Za-z]{{4,}}|(?i:{_SHORT_WORDS}))(?![A-Za-z])")


def _letters(text: str) -> str:
    return _COMMAND.sub(" ", text)


def _split_unit(answer: str) -> tuple[str, str]:
    """A number and its unit (``5 \\text{ cm}^2``); without a unit where what goes before it is not a plain number."""
    match = _UNIT.search(answer)
    if match is None:
        return normalise(answer), ""
    value = normalise(answer[: match.start()])
    unit = (match["text"] or match["word"] or "").strip()
    numeric = any(map(str.isdigit, value)) and not re.search("[A-Za-z]", _letters(value))
    if not numeric or _NOT_UNITS.search(unit):
        return normalise(answer), ""
    return value, unit + (match["power"] or "")


def _blind_spot(gold: str, answer: str) -> str | None:
    """What tells the two apart unseen by math-verify: letters' case, number bases (``11_2``), primes (``a'``)."""
    letters = set(_letters(gold + answer))
    if any(letter.islower() and letter.upper() in letters for letter in letters):
        return "upper and lower case"
    marks = (("number bases", r"\d_\{?(\d+)"), ("primes", r"'|\\prime"))
    return next((what for what, mark in marks if re.findall(mark, gold) != re.findall(mark, answer)), None)


def decide(gold: str, answer: str) -> Verdict:
    """math-verify's verdict. It may take for ever, or all memory: :mod:`tmas.answers` runs it in a worker."""
    from math_verify import verify

    values, units = zip(*map(_split_unit, (gold, answer)), strict=True)
    if all(units) and units[0] != units[1]:
        return undecided("the units differ")
    parsed: list[list[Any]] = []
    for side, value, other in zip(("gold answer", "answer"), values, reversed(values), strict=True):
        if _WORDS.search(_letters(value)):
            return undecided(f"the {side} holds words")
        parsed.append([expression for reading in _readings(value, other) for expression in _parse(reading)])
        if not parsed[-1]:
            return undecided(f"the {side} cannot be parsed")
    if not verify(parsed[0], parsed[1], timeout_seconds=None, raise_on_error=True):
        return Verdict(equivalence=Equivalence.DIFFERENT)
    difference = _blind_spot(*values)
    return undecided(f"equal but for {difference}") if difference else EQUAL


def _readings(value: str, other: str) -> list[str]:
    """``10%`` may be given as 10 or as 0.1, unless the other side is a percentage too."""
    if not value.endswith("%"):
        return [value]
    number = value.removesuffix("%")
    return [number] if other.endswith("%") else [number, f"\\frac{{{number}}}{{100}}"]


def _parse(value: str) -> list[Any]:
    """The SymPy expression of the whole of ``value``, never of a part of it; empty where there is none."""
    from math_verify import parse

    # a timeout of 0 or None is no signal.alarm: it fails off the main thread
    found = parse(f"\\boxed{{{value}}}", [_extraction()], extraction_mode="first_match", parsing_timeout=0)
    return [expression for expression in found if not isinstance(expression, str)]


@cache
def _extraction() -> Any:
    from math_verify import LatexExtractionConfig

    default = LatexExtractionConfig().normalization_config
    return LatexExtractionConfig(boxed_match_priority=0, normalization_config=replace(default, units=False))
