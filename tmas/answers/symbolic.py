"""Compares two mathematical expressions with math-verify (https://github.com/huggingface/Math-Verify).

If its result depends on something that it ignores (case, primes, the order of capital letters) or cannot know (that
letters stand for whole numbers), a doubt is reported instead. A comparison may hang or exhaust memory: see
:mod:`tmas.answers.checker`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, lru_cache
from itertools import permutations
from typing import Any

from tmas.answers.ambiguity import doubt_about_notation, doubt_about_signs
from tmas.answers.notation import DEGREES, exact_decimals, for_math_verify
from tmas.answers.numbers import is_number, same_function, same_number
from tmas.answers.verdicts import Notation

_COMMAND = re.compile(r"\\(?:(?:begin|end|operatorname)\s*\{[^{}]*\}|[A-Za-z]+)")
_FREE_LETTERS = "abcjkmnpqrstuvwxyz"  # letters without a meaning of their own, so without d, e, f and i
# Functions that may agree only at whole numbers.
_WHOLE_NUMBER_FUNCTIONS = re.compile(r"\\lfloor|\\lceil|\\binom|!|\(-1\)\^|\\cos|\\sin|\\bmod|\\sum|\\prod")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_ODD_ROOT = re.compile(r"\\sqrt\s*\[\d*[13579]\]")
_INDEX_I = re.compile(r"_\{?i(?![A-Za-z])|(?<![A-Za-z\\])i(?:=|\\in|\\neq|\\leq|\\geq|<|>)|\\(?:sum|prod)")
_CAPITALS = re.compile(r"(?<![A-Za-z\\])(?:[A-Z](?:_\{\w+\})?){2,}")
_NAMED_CONSTANT = re.compile(r"\\(?:varphi|phi|omega)(?![A-Za-z])")
_PRIMES = re.compile(r"'|\\prime")
_CONSTANTS = frozenset("cCkK")
_GCD = re.compile(r"\\(?:gcd|lcm)(?![A-Za-z])|\\operatorname\s*\{\s*(?:gcd|lcm)\s*\}")
_PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?)%")
_THOUSANDS = re.compile(r"((?:[A-Za-z](?:_\{\w+\})?=)?-?)(\d{1,3}(?:,\d{3})+(?:\.\d+)?)")
_POINTS = 8
Parsed = tuple[Sequence[Any], Sequence[Any]]
"""The expressions of the two sides."""


def without_commands(text: str) -> str:
    """Replace each LaTeX command by a space, so that the remaining letters belong to the mathematics."""
    return _COMMAND.sub(" ", text)


def parse(value: str, other: str) -> list[Any]:
    r"""Parse the whole of ``value`` into SymPy expressions; empty if that fails. A part of it is never parsed alone.

    A percentage has two readings: ``10%`` is 10 or 0.1. So has an angle in degrees: ``30^\circ`` is 30 or \pi/6. If
    ``other`` also has a percent sign or a degree sign, there is one reading. The angle of a trigonometric function is
    always read in radians.
    """
    return [expression for reading in _readings(value, other) for expression in _parse(reading)]


def equal(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether any reading of one side equals any reading of the other side."""
    return any(_equal(left, right) for left in one for right in other)


def _equal(one: Any, other: Any) -> bool:
    """Compare two expressions: numbers by value, others with math-verify in both directions."""
    from math_verify import verify
    from sympy import Eq, Expr

    if is_number(one) and is_number(other) and (same := same_number(one, other)) is not None:
        return same
    if _is_number_and_function(one, other) and same_function(one, other) is False:
        return False  # math-verify would simplify the difference, which takes minutes for 1234567 and log x
    if any(verify(a, b, timeout_seconds=None, raise_on_error=True) for a, b in ((one, other), (other, one))):
        return not _is_refuted(one, other)
    if isinstance(one, Expr) and isinstance(other, Expr) and one.free_symbols == other.free_symbols:
        return bool(one.free_symbols) and same_function(one, other) is True
    if isinstance(one, Eq) and isinstance(other, Eq) and one.free_symbols == other.free_symbols:
        return _are_proportional(one, other)
    return False


def _is_number_and_function(one: Any, other: Any) -> bool:
    """Whether one side has letters and the other has none. A single letter does not count: it may name a number."""
    from sympy import Expr

    sides = (one, other)
    if not all(isinstance(side, Expr) and not side.is_Symbol for side in sides):
        return False
    return bool(one.free_symbols) != bool(other.free_symbols)


def _is_refuted(one: Any, other: Any) -> bool:
    """Whether two expressions that math-verify finds equal have different values."""
    from sympy import Expr

    same_kind = isinstance(one, Expr) and isinstance(other, Expr) and one.free_symbols == other.free_symbols
    return same_kind and bool(one.free_symbols) and same_function(one, other) is False


def _are_proportional(one: Any, other: Any) -> bool:
    """Whether two equations are the same up to a constant factor other than zero."""
    from sympy import simplify

    with suppress(TypeError, ValueError, ArithmeticError, AttributeError):
        ratio = simplify((one.lhs - one.rhs) / (other.lhs - other.rhs))
        return bool(ratio.is_number and ratio.is_finite and not ratio.is_zero)
    return False  # SymPy cannot divide the sides, for example sets; math-verify's verdict (unequal) stands


def doubt_about_equal(one: str, other: str) -> str | None:
    """Return what may distinguish two sides that have equal values, or None."""
    one, other = for_math_verify(one), for_math_verify(other)
    if _PRIMES.findall(one) != _PRIMES.findall(other):
        return "primes"
    if sorted(_CAPITALS.findall(one)) != sorted(_CAPITALS.findall(other)):
        return "the order of letters"
    if doubt := doubt_about_signs(one, other):
        return doubt
    return None if _equal_with_case(one, other) else "upper and lower case"


def doubt_about_different(one: str, other: str, parsed: Parsed) -> str | None:
    """Return how two sides with different values may still be equal, or None."""
    if "'" in one + other and any(DEGREES.search(side) for side in (one, other)):
        return "an angle is in degrees"
    first, second = parsed[0][0], parsed[1][0]
    if set(_NAMED_CONSTANT.findall(one)) != set(_NAMED_CONSTANT.findall(other)):
        return "a letter stands for a known number"
    if "%" in one + other and equal(*(parse(side.replace("%", ""), "") for side in (one, other))):
        return "a percent sign is left out"
    if _has_unknown_function(first) != _has_unknown_function(second):
        return Notation.FUNCTION
    if _WHOLE_NUMBER_FUNCTIONS.search(one + other) and _equal_at_whole_numbers(first, second):
        return "the letters stand for whole numbers"
    if _equal_if_renamed(first, second):
        return "letters are renamed"
    return doubt_about_notation(one, other, first, second)


def _has_unknown_function(expression: Any) -> bool:
    """Whether the expression has the value of a function that SymPy does not know, such as ``P(10,3)``."""
    from sympy.core.function import AppliedUndef

    return any(not call.free_symbols for call in getattr(expression, "atoms", lambda _: ())(AppliedUndef))


def _equal_if_renamed(one: Any, other: Any) -> bool:
    """Whether two expressions are equal after a renaming of the letters that occur on only one side."""
    return find_renaming(one, other) is not None


def find_renaming(one: Any, other: Any) -> dict[Any, Any] | None:
    """Return a renaming of the letters that occur on only one side that makes both sides equal, or None."""
    from sympy import Expr

    if not (isinstance(one, Expr) and isinstance(other, Expr)):
        return None
    own, others = (
        sorted(s, key=str) for s in (one.free_symbols - other.free_symbols, other.free_symbols - one.free_symbols)
    )
    if not own or len(own) != len(others) or len(own) > 3:
        return None
    for order in permutations(others):
        names = dict(zip(own, order, strict=True))
        if same_function(one.xreplace(names), other) is True:
            return names
    return None


def equal_if_constants_are_swapped(one: Any, other: Any) -> bool:
    """Whether two expressions with the same letters are equal after a permutation of a, b, c and d."""
    symbols = sorted((s for s in getattr(one, "free_symbols", ()) if str(s) in "abcdABCD"), key=str)
    orders = permutations(symbols) if 1 < len(symbols) <= 4 and one.free_symbols == other.free_symbols else ()
    return any(same_function(one.xreplace(dict(zip(symbols, o, strict=True))), other) is True for o in orders)


def are_constants(names: dict[Any, Any]) -> bool:
    """Whether a renaming only concerns letters that usually stand for arbitrary constants."""
    return all({str(old), str(new)} <= _CONSTANTS for old, new in names.items())


def without_digit_separators(value: str) -> str:
    """Remove the separators between groups of three digits."""
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
    return False  # a side has no value at a point, for example a divergent sum, so nothing speaks for equality


def _equal_at(one: Any, other: Any, point: int) -> bool:
    names = sorted({symbol.name for symbol in one.free_symbols | other.free_symbols})
    values = {name: 2 + (3 * place + point * (place + 1)) % 11 for place, name in enumerate(names)}
    left, right = (side.subs({s: values[s.name] for s in side.free_symbols}) for side in (one, other))
    return abs(complex((left - right).evalf())) < 1e-9


def _readings(value: str, other: str) -> list[str]:
    if thousands := _THOUSANDS.fullmatch(value):
        return [thousands[1] + thousands[2].replace(",", "")]
    if _is_percentage(value):
        number = value.removesuffix("%")
        hundredths = f"\\frac{{{number}}}{{100}}"
        if _is_percentage(other):
            return [number]
        return [hundredths] if "%" in other else [number, hundredths]
    value = for_math_verify(_PERCENTAGE.sub(r"(\\frac{\1}{100})", value))
    if not DEGREES.search(value):
        return [value]
    radians = DEGREES.sub(r"\\cdot\\frac{\\pi}{180}", _enclose_angles(value))
    if _TRIGONOMETRIC.search(value) or DEGREES.search(other):
        return [radians]
    return [DEGREES.sub("", value), radians]


def _is_percentage(value: str) -> bool:
    """Whether ``value`` is a single percentage. ``x+5%`` is not: only a part of it is one."""
    number = without_commands(value.rpartition("=")[2].removesuffix("%"))
    is_sum = re.search("(?<=.)[+-]", re.sub(r"\{[^{}]*\}", "", number))
    return value.endswith("%") and not is_sum and not re.search("[A-Za-z%]", number)


def _enclose_angles(value: str) -> str:
    r"""Put brackets around plain angles, so that ``\sin 30^\circ`` is the sine of the whole angle."""
    return re.sub(rf"(\d+(?:\.\d+)?|\\frac\{{[^{{}}]*\}}\{{[^{{}}]*\}})({DEGREES.pattern})", r"(\1\2)", value)


@lru_cache(maxsize=4096)
def _parse(value: str) -> list[Any]:
    from math_verify import parse
    from sympy import Basic, nan, zoo

    if _GCD.search(value) and re.search("[A-Za-z]", without_commands(value)):
        return []  # it would be the divisor of polynomials: gcd(n, 6) is not always 1
    # a timeout of 0 or None avoids signal.alarm, which fails outside the main thread
    boxed = f"\\boxed{{{exact_decimals(value)}}}"
    found = parse(boxed, [_extraction()], extraction_mode="first_match", parsing_timeout=0)
    meant = [_as_meant(expression, value) for expression in found if not isinstance(expression, str)]
    return [expression for expression in meant if not (isinstance(expression, Basic) and expression.has(nan, zoo))]


def _as_meant(expression: Any, value: str) -> Any:
    r"""Give ``i``, odd roots and ``\zeta`` the meaning that they have in answers."""
    from sympy import Basic, I, Pow, Product, Sum, Symbol, UnevaluatedExpr, binomial, gamma, zeta
    from sympy.core.function import AppliedUndef

    if not isinstance(expression, Basic):
        return expression
    # SymPy wraps the value of \gcd, and recurses without end when it compares the size of a sum with such a part
    expression = expression.xreplace({part: part.args[0] for part in expression.atoms(UnevaluatedExpr)})
    known = {"\\zeta": zeta, "\\Gamma": gamma, "C": binomial}
    for call in expression.atoms(AppliedUndef):
        function = known.get(call.func.__name__)
        if function and len(call.args) == (2 if function is binomial else 1) and not call.free_symbols:
            expression = expression.xreplace({call: function(*call.args)})
    if not _INDEX_I.search(value):
        expression = expression.xreplace({s: I for s in expression.atoms(Symbol) if s.name == "i"})
    if expression.has(Product, Sum):
        expression = expression.doit()
    if _ODD_ROOT.search(value):
        expression = expression.replace(_is_odd_root_of_negative, lambda power: -Pow(-power.base, power.exp))
    return expression


def _is_odd_root_of_negative(expression: Any) -> bool:
    return (
        expression.is_Pow
        and expression.exp.is_Rational
        and expression.exp.p == 1
        and expression.exp.q % 2 == 1
        and expression.exp.q > 1
        and expression.base.is_number
        and expression.base.is_extended_negative is True
    )


@cache
def _extraction() -> Any:
    from math_verify import LatexExtractionConfig

    default = LatexExtractionConfig().normalization_config
    return LatexExtractionConfig(boxed_match_priority=0, normalization_config=replace(default, units=False))
