r"""Answers that the reward refuses although they may state the right value: they let the checker do the work.

Restating the problem (``\sum_{k=1}^{100}k^2``), an equation that contains the value (``57+1=58``) and a list of guesses
(``1, 2, ..., 8``) would otherwise be rewarded. The evaluation does not refuse them.
"""

from __future__ import annotations

import re
from typing import Literal

from tmas.answers.equivalence import normalise
from tmas.answers.structure import split, without_name

Refusal = Literal["unevaluated", "several", "wordy"]
UNIT_WORDS = 4
"""Maximum number of words next to a number: a unit such as "square centimetres"."""

_INTEGER = r"[-+]?\d{1,3}(?:,\d{3})+|[-+]?\d+"
_DECIMAL = r"[-+]?\d*\.\d+"
_FRACTION = r"[-+]?\\frac\{-?\d+\}\{-?\d+\}|[-+]?\d+/\d+"
_SCALED = r"[-+]?\d*\.?\d+(?:\\times|\\cdot)10\^(?:\d|\{-?\d+\})"
_UNIT = r"(?:\s*(?:%|°|\^\{?\\circ\}?)|[ \\a-zA-Z]*[a-zA-Z](?:\^\{?[23]\}?)?)*"
_PLAIN = re.compile(rf"(?P<integer>{_INTEGER})|{_DECIMAL}|{_FRACTION}")
_ANSWER = re.compile(
    rf"(?:{_SCALED}|(?P<mixed>\d+ ?\\frac\{{\d+\}}\{{\d+\}})|{_DECIMAL}|(?P<fraction>{_FRACTION})|{_INTEGER})"
    rf"(?P<unit>{_UNIT})"
)
_OPERATOR = re.compile(
    r"\\(?:sum|prod|i*int|oint|lim\w*|gcd|lcm|max|min|sup|inf|det|[dt]?binom|choose|begin)(?![A-Za-z])|\b(?:gcd|lcm|max|min|det)\b|!"
)
"""What leaves a computation to the reader."""
_NAME = re.compile(r"\\?[A-Za-z]+(?:_\{?\w+\}?)?(?:\([^()]*\))?|\|?[A-Z]{2,3}\|?|\\angle ?[A-Z]{1,3}")
_COLLECTION = re.compile(r"\\?\{|[(\[].*[)\]]$|\\begin")
"""How a set, a tuple or an interval begins."""
_OR = re.compile(r"\bor\b|\\text\{\s*or\s*\}|\\lor\b")


def refusal(gold: str, answer: str) -> Refusal | None:
    """Why ``answer`` is refused; None if it is compared with ``gold``.

    - ``several``: it lists several values, and ``gold`` is one.
    - ``unevaluated``: it has an operator that ``gold`` has not, or it is a chain of equations. If ``gold`` is a number,
      the answer must be one, too: digits, a decimal or (unless ``gold`` is an integer) a fraction, and a unit.
    - ``wordy``: ``gold`` is a number, and the answer has more than :data:`UNIT_WORDS` words.
    """
    expected, given = normalise(gold), normalise(answer)
    given = without_name(given, expected)
    plain = _PLAIN.fullmatch(expected)
    if plain and not re.search(r"\d", given):
        return None if len(given.split()) <= UNIT_WORDS else "wordy"  # a number as a word, or no number at all
    if _values(given) > 1 and _values(expected) == 1 and not _COLLECTION.match(expected):
        return "several"
    if plain:
        return _not_a_number(given, is_integer=plain["integer"] is not None)
    return "unevaluated" if _is_chain(given, expected) or _operators(given) - _operators(expected) else None


def _values(text: str) -> int:
    if re.fullmatch(_INTEGER, text):
        return 1  # 1,234
    return len(split(text)) + len(_OR.findall(text))


def _not_a_number(given: str, is_integer: bool) -> Refusal | None:
    match = _ANSWER.fullmatch(given)
    if match is None:
        return "wordy" if len(re.findall(r"[A-Za-z]{2,}", given)) > UNIT_WORDS else "unevaluated"
    if is_integer and (match["fraction"] or match["mixed"]):
        return "unevaluated"
    return "wordy" if len(match["unit"].split()) > UNIT_WORDS else None


def _is_chain(given: str, expected: str) -> bool:
    """Whether an equation states the value in other words, as in ``1+1=2``; ``expected`` is no equation."""
    left, *others = given.split("=")
    return bool(others) and "=" not in expected and (len(others) > 1 or not _NAME.fullmatch(left.strip()))


def _operators(text: str) -> set[str]:
    return set(_OPERATOR.findall(text))
