r"""Answers that the reward refuses although they may state the right value: they let the checker do the work.

Restating the problem (``\sum_{k=1}^{100}k^2``), an equation that contains the value (``57+1=58``) and a list of guesses
(``1, 2, ..., 8``) would otherwise be rewarded. The evaluation does not refuse them.
"""

from __future__ import annotations

import re
from typing import Literal

from tmas.answers.equivalence import normalise
from tmas.answers.structure import Form, read, split, without_name
from tmas.rewards.unfinished import unfinished

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
_WORDS = re.compile(r"[A-Za-z]{2,}(?: [A-Za-z]{2,}|-[A-Za-z]{3,})*|\\?[A-Za-z]*")
"""Answers without digits that are compared with a number: words (``twelve``, ``no solution``) and names (``\\pi``)."""
_NAME = re.compile(r"\\?[A-Za-z]+(?:_\{?\w+\}?)?(?:\([^()]*\))?|\|?[A-Z]{2,3}\|?|\\angle ?[A-Z]{1,3}")
_COLLECTION = re.compile(r"\\?\{|[(\[].*[)\]]$|\\begin")
"""How a set, a tuple or an interval begins."""
_ITEMISED = ("list", "tuple", "brackets", "set")
_OR = re.compile(r"\bor\b|\\text\{\s*or\s*\}|\\lor\b")
_EQUATES = re.compile(
    r"=|\\(?:equiv|approx|simeq|sim|cong|to|implies|iff|[RL]eft(?:right)?arrow|Rightarrow)(?![A-Za-z])"
)
"""Signs that state the same value again, or may be meant so."""


def refusal(gold: str, answer: str) -> Refusal | None:
    """Why ``answer`` is refused; None if it is compared with ``gold``.

    - ``several``: it lists several values, and ``gold`` is one.
    - ``unevaluated``: it leaves a computation to the reader that ``gold`` does not (:mod:`tmas.rewards.unfinished`), or
      it is a chain of equations. If ``gold`` is a number, an answer with digits must be a number, too: an integer,
      a decimal or (unless ``gold`` is an integer) a fraction, with or without a unit. If ``gold`` is several numbers,
      each item must be such a number.
    - ``wordy``: ``gold`` is a number, and the answer has more than :data:`UNIT_WORDS` words.
    """
    expected, given = normalise(gold), normalise(answer)
    given = without_name(given, expected)
    plain = _PLAIN.fullmatch(expected)
    if plain and not re.search(r"\d", given):
        return _without_digits(given)
    if _count_values(given) > 1 and _count_values(expected) == 1 and not _COLLECTION.match(expected):
        return "several"
    if plain:
        return _not_a_number(given, is_integer=plain["integer"] is not None)
    if _is_chain(given, expected) or unfinished(given, expected) or _has_unevaluated_item(read(given), read(expected)):
        return "unevaluated"
    return None


def _count_values(text: str) -> int:
    if re.fullmatch(_INTEGER, text):
        return 1  # 1,234
    return len(split(text)) + len(_OR.findall(text))


def _without_digits(given: str) -> Refusal | None:
    r"""Why ``given``, which has no digits, is refused where ``gold`` is a number; None if it is compared.

    A formula is refused, because a checker that can compute may find ``\frac{x}{x}`` equal to 1.
    """
    if len(given.split()) > UNIT_WORDS:
        return "wordy"
    return None if _WORDS.fullmatch(given) else "unevaluated"


def _not_a_number(given: str, is_integer: bool) -> Refusal | None:
    """Why ``given`` does not answer a question for a number; None if it is a number, with or without a unit."""
    match = _ANSWER.fullmatch(given)
    if match is None:
        return "wordy" if len(re.findall(r"[A-Za-z]{2,}", given)) > UNIT_WORDS else "unevaluated"
    if (is_integer and (match["fraction"] or match["mixed"])) or unfinished(match["unit"], ""):
        return "unevaluated"
    return "wordy" if len(match["unit"].split()) > UNIT_WORDS else None


def _has_unevaluated_item(given: Form, expected: Form) -> bool:
    """Whether ``expected`` is several numbers, and ``given`` as many items that are not all numbers."""
    if expected.kind not in _ITEMISED or given.kind not in _ITEMISED or len(given.items) != len(expected.items):
        return False
    plain = [_PLAIN.fullmatch(without_name(item, "")) for item in expected.items]
    if not all(plain):
        return False
    is_integer = all(match["integer"] for match in plain if match)
    return any(_not_a_number(without_name(item, ""), is_integer) for item in given.items)


def _is_chain(given: str, expected: str) -> bool:
    """Whether ``given`` has an equation that restates a value, such as ``1+1=2``, and ``expected`` has none."""
    return not _EQUATES.search(expected) and any(_restates(part) for part in split(given))


def _restates(part: str) -> bool:
    left, *others = _EQUATES.split(part)
    return bool(others) and (len(others) > 1 or not _NAME.fullmatch(left.strip()))
