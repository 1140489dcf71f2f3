r"""Finds computations that an answer leaves to the reader, and that the gold answer does not.

Restating the problem is such an answer: ``\sqrt{(3-1)^2+(4-2)^2}`` for a distance, ``\frac{d}{dx}x^2`` for a
derivative, ``2x>4`` for the solution of this inequality. A checker that can compute calls it equal.
"""

from __future__ import annotations

import re

from tmas.answers.structure import split

_FUNCTIONS = r"a(?:rc)?(?:sin|cos|tan|cot)|(?:sin|cos|tan|cot|sec|csc)h?|ln|log|lg|exp"
_OPERATORS = [
    re.compile(pattern)
    for pattern in (
        *(rf"\\{name}(?![A-Za-z])" for name in ("sum", "prod", "(?:i*|o)int", r"lim\w*", "sup", "inf", "begin")),
        *(rf"(?:\\|\b){name}(?![A-Za-z])" for name in ("gcd", "lcm", "max", "min", "det")),
        r"\\(?:[dt]?binom|choose)(?![A-Za-z])|!",
        r"\\(?:Gamma|zeta|psi) ?\(",
        r"\\frac\{(?:d|\\partial)(?![A-Za-z]{2})[^{}]*\}\{(?:d|\\partial) ?[A-Za-z]",
        r"\\[bp]?mod(?![A-Za-z])|\\pod(?![A-Za-z])|\(mod",
        r"\\[lr](?:floor|ceil)(?![A-Za-z])",
    )
]
"""What leaves a computation to the reader, by kind."""
_OF_NUMBERS = re.compile(rf"\\(?:{_FUNCTIONS})(?![A-Za-z])")
"""Functions that leave a computation to the reader if the gold answer is a number without them."""
_TERM = r"(?:\d+(?:\.\d+)?(?:\^\{?\d+\}?)?|\\frac\{\d+\}\{\d+\}|\(-?\d+[-+]\d+\)\^\{?\d+\}?)"
_SUM = re.compile(rf"(?:^|(?<=[-+({{\[=<>,;|]))-?{_TERM}[-+]{_TERM}(?=$|[-+)}}\],;|=<>])")
"""A sum or difference of numbers, such as ``3-1`` and ``2^2+2^2``. ``1+2i`` and ``3-2\\sqrt{2}`` are none."""
_LETTERS = re.compile(r"(?<![A-Za-z\\])(?!(?:e|i)(?![A-Za-z]))[A-Za-z]")
_RELATION = re.compile(r"<|>|=|\\(?:leq|geq|neq)(?![A-Za-z])")
_CONNECTIVE = re.compile(r"\b(?:or|and)\b|\\(?:lor|land|cup|cap)(?![A-Za-z])")
_VARIABLE = re.compile(r"\|?[A-Za-z]\|?|\([A-Za-z](?:,[A-Za-z])+\)")


def unfinished(given: str, expected: str) -> bool:
    """Whether the answer ``given`` leaves a computation open that the gold answer ``expected`` does not.

    Both are normalised. The computations are: operators and special functions, by their kind; a sum of two numbers; if
    ``expected`` has no letters, a logarithm or a trigonometric function; if ``expected`` is a solution such as
    ``x>2``, an equation or inequality that is not solved for its letter.
    """
    if any(sign.search(given) and not sign.search(expected) for sign in (*_OPERATORS, _SUM)):
        return True
    if not _LETTERS.search(expected) and _OF_NUMBERS.search(given) and not _OF_NUMBERS.search(expected):
        return True
    return _is_solved(expected) and bool(_RELATION.search(given)) and not _is_solved(given)


def _is_solved(text: str) -> bool:
    """Whether ``text`` consists of relations between one letter and values without letters, such as ``x<1`` or
    ``0<x<1``."""
    stated = split(_CONNECTIVE.sub(",", text.removeprefix(r"\{").removesuffix(r"\}")))
    parts = [_RELATION.split(part) for part in stated if _RELATION.search(part)]
    return bool(parts) and all(_isolates(sides) for sides in parts)


def _isolates(sides: list[str]) -> bool:
    others = [side.strip() for side in sides if not _VARIABLE.fullmatch(side.strip())]
    return len(sides) - len(others) == 1 and not any(_LETTERS.search(other) for other in others)
