"""Compares two mathematical expressions with math-verify (https://github.com/huggingface/Math-Verify).

If its result depends on something that it ignores (case, number bases, primes) or cannot know (that letters stand for
whole numbers), a doubt is reported instead. A comparison may hang or exhaust memory: see :mod:`tmas.answers.checker`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

_COMMAND = re.compile(r"\\(?:(?:begin|end|operatorname)\s*\{[^{}]*\}|[A-Za-z]+)")
_FREE_LETTERS = "abcjkmnpqrstuvwxyz"  # letters without a meaning of their own, so without d, e, f and i
_WHOLE = re.compile(
    r"\\lfloor|\\lceil|\\binom|!|\(-1\)\^|\\cos|\\sin|\\bmod"
)  # functions that may agree only at whole numbers
_DEGREES = re.compile(r"\^(?:\\circ|\{\\circ\})(?![A-Za-z])")
_THOUSANDS = re.compile(r"((?:[A-Za-z](?:_\{\w+\})?=)?-?)(\d{1,3}(?:,\d{3})+)")
_POINTS = 8
_EXACT = 12  # decimals
_RELATIVE = 2e-6
Parsed = tuple[Sequence[Any], Sequence[Any]]
"""The expressions of the gold answer and of the answer."""


def without_commands(text: str) -> str:
    """Replace each LaTeX command by a space, so that the remaining letters belong to the mathematics."""
    return _COMMAND.sub(" ", text)


def parse(value: str, other: str) -> list[Any]:
    """Parse the whole of ``value`` into SymPy expressions; empty if that fails. A part of it is never parsed alone.

    A percentage has two readings: ``10%`` is 10 or 0.1, unless the ``other`` side is also a percentage.
    """
    return [expression for reading in _readings(value, other) for expression in _parse(reading)]


def equal(gold: Sequence[Any], answer: Sequence[Any], decimals: int = 6) -> bool:
    r"""Compare two parsed sides with math-verify. The order matters: the gold answer ``(0,1)`` accepts ``x \in
    (0,1)``.

    Decimal fractions are compared after rounding to ``decimals`` decimals.
    """
    from math_verify import verify

    return verify([*gold], [*answer], float_rounding=decimals, timeout_seconds=None, raise_on_error=True)


def doubt_about_equal(gold: str, answer: str, parsed: Parsed) -> str | None:
    """Return what may distinguish two sides that math-verify finds equal, or None."""
    if re.search(r"\.\d", f"{gold}|{answer}") and not (equal(*parsed, _EXACT) or _are_close(*parsed)):
        return "rounding"
    marks = (("number bases", r"\d_\{?(\d+)"), ("primes", r"'|\\prime"))
    unseen = [what for what, mark in marks if re.findall(mark, gold) != re.findall(mark, answer)]
    if unseen:
        return unseen[0]
    return None if _equal_with_case(gold, answer) else "upper and lower case"


def doubt_about_different(gold: str, answer: str, parsed: Parsed) -> str | None:
    """Return what may make two sides equal that math-verify finds different, or None."""
    if re.search(r"\d[ ,]\d{3}", f"{gold}|{answer}") and _grouped(gold) == _grouped(answer):
        return "the digits are in groups of three"
    if bool(_DEGREES.search(gold)) != bool(_DEGREES.search(answer)) and _may_be_equal_in_radians(gold, answer):
        return "an angle is in degrees"
    whole = _WHOLE.search(gold + answer) and _equal_at_whole_numbers(parsed[0][0], parsed[1][0])
    return "the letters stand for whole numbers" if whole else None


def _are_close(gold: Sequence[Any], answer: Sequence[Any]) -> bool:
    """Whether two numbers agree to about six significant digits."""
    if not all(getattr(side[0], "is_number", False) for side in (gold, answer)):
        return False
    one, other = (complex(side[0].evalf()) for side in (gold, answer))
    return abs(one - other) <= _RELATIVE * max(abs(one), abs(other))


def _may_be_equal_in_radians(gold: str, answer: str) -> bool:
    """Whether one side may be the other in degrees. If that cannot be parsed: whether exactly one side contains pi."""
    one, other = (_DEGREES.sub(r"\\cdot\\frac{\\pi}{180}", value) for value in (gold, answer))
    sides = parse(one, other), parse(other, one)
    if not all(sides) or "'" in gold + answer:  # minutes of arc
        return (r"\pi" in gold) != (r"\pi" in answer)
    return equal(*sides)


def _grouped(value: str) -> str:
    return re.sub(r"(?<=\d)(?: |, ?)(?=\d{3}(?!\d))", "", value)


def _equal_with_case(gold: str, answer: str) -> bool:
    """Whether the sides are equal when case counts; math-verify ignores it.

    For this, each capital letter that also occurs as a small letter is renamed.
    """
    letters = set(without_commands(gold + answer))
    capitals = sorted(letter for letter in letters if letter.isupper() and letter.lower() in letters)
    free = [letter for letter in _FREE_LETTERS if not {letter, letter.upper()} & letters]
    if not capitals:
        return True
    if len(capitals) > len(free) or {"E", "I"} & set(capitals):
        return False
    names = dict(zip(capitals, free, strict=False))
    one, other = (re.sub(r"\\[A-Za-z]+|[A-Z]", lambda m: names.get(m[0], m[0]), value) for value in (gold, answer))
    return equal(parse(one, other), parse(other, one))


def _equal_at_whole_numbers(one: Any, other: Any) -> bool:
    from sympy import Expr

    if getattr(one, "lhs", None) == getattr(other, "lhs", None):
        one, other = (getattr(side, "rhs", side) for side in (one, other))
    if not (isinstance(one, Expr) and isinstance(other, Expr) and one.free_symbols | other.free_symbols):
        return False
    with suppress(TypeError, ValueError, ArithmeticError):
        return all(_equal_at(one, other, point) for point in range(_POINTS))
    return False


def _equal_at(one: Any, other: Any, point: int) -> bool:
    names = sorted({symbol.name for symbol in one.free_symbols | other.free_symbols})
    values = {name: 2 + (3 * place + point * (place + 1)) % 11 for place, name in enumerate(names)}
    left, right = (side.subs({s: values[s.name] for s in side.free_symbols}) for side in (one, other))
    return bool(abs((left - right).evalf()) < 1e-9)


def _readings(value: str, other: str) -> list[str]:
    if thousands := _THOUSANDS.fullmatch(value):
        return [thousands[1] + thousands[2].replace(",", "")]
    if not value.endswith("%"):
        return [value]
    number = value.removesuffix("%")
    return [number] if other.endswith("%") else [number, f"\\frac{{{number}}}{{100}}"]


def _parse(value: str) -> list[Any]:
    from math_verify import parse

    # a timeout of 0 or None avoids signal.alarm, which fails outside the main thread
    found = parse(f"\\boxed{{{value}}}", [_extraction()], extraction_mode="first_match", parsing_timeout=0)
    return [expression for expression in found if not isinstance(expression, str)]


@cache
def _extraction() -> Any:
    from math_verify import LatexExtractionConfig

    default = LatexExtractionConfig().normalization_config
    return LatexExtractionConfig(boxed_match_priority=0, normalization_config=replace(default, units=False))
