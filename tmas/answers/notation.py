"""Rewrites notations that math-verify misreads into LaTeX that it reads correctly. No rewrite changes the meaning.

Examples: ``1.2e5``, ``10101_2``, ``5!!``, ``C(10,3)``, ``0.1\\overline{6}``, ``3 1/2``, ``22^\\circ30'``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction

_MAX_DOUBLE_FACTORIAL = 500
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUMBER_WORDS = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
]
_BASE = re.compile(
    r"(?<![\w.\\])(?:\((?P<enclosed>\d[\dA-Z]*)\)|(?P<digits>\d[\dA-Z]*|[\dA-F]{2,20}(?=_\{?16)))_\{?(?P<base>\d{1,2})\}?(?![\d}])"
)
_DEGREE = r"\^(?:\\circ|\{\\circ\})"
DEGREES = re.compile(rf"{_DEGREE}(?![A-Za-z])")
DECIMAL = re.compile(r"(?<![\d_{])(\d*)\.(\d+)|(?<=[_{])(\d*)\.(\d+)")


def number_base(text: str) -> int | None:
    """Return the base of a number written with its base, such as ``10101_2``; None for every other text."""
    match = _BASE.fullmatch(text)
    if match is None or not 2 <= (base := int(match["base"])) <= 36:
        return None
    return base if all(_DIGITS.index(digit) < base for digit in match["digits"] or match["enclosed"]) else None


def _in_base_ten(match: re.Match[str]) -> str:
    """Write ``10101_2`` in base ten."""
    base = number_base(match[0])
    return match[0] if base is None else str(int(match["digits"] or match["enclosed"], base))


def _repeating(match: re.Match[str]) -> str:
    """Write ``0.1\\overline{6}`` as a fraction."""
    whole, fixed, repeated = match["whole"] or "0", match["fixed"], match["repeated"]
    value = Fraction(int(whole + fixed + repeated) - int(whole + fixed), (10 ** len(repeated) - 1) * 10 ** len(fixed))
    return f"(\\frac{{{value.numerator}}}{{{value.denominator}}})"


def _double_factorial(match: re.Match[str]) -> str:
    """Write ``5!!`` as its value."""
    n = int(match[1])
    return match[0] if n > _MAX_DOUBLE_FACTORIAL else str(math.prod(range(n, 0, -2)))


def _angle(match: re.Match[str]) -> str:
    """Write degrees, minutes and seconds of arc as degrees."""
    seconds = 3600 * int(match[1]) + 60 * int(match[2]) + int(match[3] or 0)
    return f"(\\frac{{{seconds}}}{{3600}})^{{\\circ}}"


def _base_word(match: re.Match[str]) -> str:
    """Write the base of ``1010_{two}`` in digits."""
    return f"_{{{word_to_digits(match[1])}}}"


_Replacement = str | Callable[[re.Match[str]], str]
_WHOLE_TEXT: list[tuple[re.Pattern[str], _Replacement]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"0[xX]([\da-fA-F]{1,50})", lambda match: str(int(match[1], 16))),
        (r"0[bB]([01]{1,200})", lambda match: str(int(match[1], 2))),
        (r"([-+]?\d+(?:\.\d+)?)[eE]\+?(-?\d{1,4})", r"\1\\cdot 10^{\2}"),
        (r"(\d+)(?:\^\{)?(?:st|nd|rd|th)\}?", r"\1"),
        (r"(-?)(\d+)[ -](\d+)/(\d+)", r"\1(\2+\\frac{\3}{\4})"),
    )
]
_ANYWHERE: list[tuple[re.Pattern[str], _Replacement]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"(\d{{1,5}}){_DEGREE} ?(\d{{1,2}})' ?(?:(\d{{1,2}})(?:''|\"))?", _angle),
        (
            r"(?P<whole>\d{0,50})\.(?P<fixed>\d{0,50})\\(?:overline|bar|dot)\{?(?P<repeated>\d{1,50})\}?(?!\d)",
            _repeating,
        ),
        (r"(?<=\d) (?=[A-Za-z])", ""),
        (r"(?<=\d)_\{ ?(two|three|four|five|six|seven|eight|nine|ten) ?\}", _base_word),
        (_BASE.pattern, _in_base_ten),
        (r"(?<![\d.)!])(\d{1,4})!!(?!!)", _double_factorial),
        (r"\\(max|min|gcd|lcm)\\\{([^{}]*)\\\}", r"\\\1(\2)"),
        (r"(?<![A-Za-z\\])C\((\d+),(\d+)\)", r"\\binom{\1}{\2}"),
        (r"(?:\{\})?_\{(\d+)\}C_\{(\d+)\}", r"\\binom{\1}{\2}"),
        (r"(?:\{\})?\^\{(\d+)\}C_\{(\d+)\}", r"\\binom{\1}{\2}"),
        (r"(?<![A-Za-z\\}])C_\{(\d+)\}\^\{(\d+)\}", r"\\binom{\1}{\2}"),
    )
]


def for_math_verify(text: str) -> str:
    """Rewrite a normalised answer, or an item of it, so that math-verify reads it correctly."""
    for pattern, replacement in _WHOLE_TEXT:
        if match := pattern.fullmatch(text):
            return match.expand(replacement) if isinstance(replacement, str) else replacement(match)
    for pattern, replacement in _ANYWHERE:
        text = pattern.sub(replacement, text)
    return text


def exact_decimals(text: str) -> str:
    """Write each decimal as an exact fraction: ``0.25`` is 25/100, not the nearest binary number.

    A text of 4,000 characters or more is not changed: Python reads no whole number of more than 4,300 digits.
    """

    def fraction(match: re.Match[str]) -> str:
        whole, places = (match[1] or "", match[2]) if match[2] else (match[3] or "", match[4])
        return f"(\\frac{{{int(whole + places)}}}{{{10 ** len(places)}}})"

    return DECIMAL.sub(fraction, text) if len(text) < 4000 else text


def word_to_digits(text: str) -> str:
    """Return the digits of a number from zero to twenty written as a word; any other text unchanged."""
    return str(_NUMBER_WORDS.index(text.lower())) if text.lower() in _NUMBER_WORDS else text


def same_digits_in_another_base(one: str, other: str) -> bool:
    """Whether only one side names its number base, and the digits are the same: ``101_2`` and ``101``."""
    based = [bool(_BASE.fullmatch(text)) for text in (one, other)]
    digits = [text.partition("_")[0].strip("()") for text in (one, other)]
    return based[0] != based[1] and digits[0] == digits[1]
