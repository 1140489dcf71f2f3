"""Compares numbers by their values, computed to 40 digits and compared to 35, and functions at sample points."""

from __future__ import annotations

import re
from contextlib import suppress
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any

_DIGITS = 40
_MAX_DIGITS = 3000
_MAX_POWER = 100_000  # digits of a power, or argument of exp
_MAX_FACTORIAL = 20_000
_PLAIN_DECIMAL = re.compile(r"(-?)(\d{0,40})(?:\.(\d{0,40}))?(?:(?:\\cdot|\\times) ?10\^\{(-?\d{1,3})\})?")
_SAMPLES = (
    *(("-17/11", "7/9", "23/13"), ("5/7", "-19/8", "3/11")),
    *(("31/12", "13/10", "-11/17"), ("-2/9", "-29/19", "8/5")),
    *(("-1009/7", "2003/11", "401/3"), ("1511/13", "-977/6", "-1301/9")),
)
_ERRORS = (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError)
"""What SymPy and mpmath raise for a number that they cannot evaluate, such as a divergent sum (ValueError) or a size
that depends on the letter of a sum (TypeError). They have no narrower type in common."""


def is_number(expression: Any) -> bool:
    """Whether a SymPy expression is a number: it has no free symbol and no unknown function."""
    from sympy import Expr
    from sympy.core.function import AppliedUndef

    return isinstance(expression, Expr) and not expression.free_symbols and not expression.atoms(AppliedUndef)


def same_number(one: Any, other: Any) -> bool | None:
    """Whether two numbers are equal: rational ones exactly, others to 35 digits (large ones to 35 decimal places).

    None: they cannot be evaluated.
    """
    from sympy import Rational

    with suppress(*_ERRORS):
        if one.is_Rational and other.is_Rational:
            return bool(one == other)
        if _is_huge(one) or _is_huge(other):
            return True if one == other else None
        left, right = one.evalf(_DIGITS), other.evalf(_DIGITS)
        if not (_is_value(left) and _is_value(right)):
            return True if one == other else None
        size = max(abs(left), abs(right))
        if abs(left - right) > size * Rational(1, 10 ** (_DIGITS - 5)):
            return False
        digits = _DIGITS + max(0, int(_log10(size))) if size else _DIGITS
        if digits > _MAX_DIGITS:
            return None
        left, right = one.evalf(digits + 20), other.evalf(digits + 20)
        return bool(abs(left - right) <= (min(size, 1) or 1) * Rational(1, 10 ** (_DIGITS - 5)))
    return None


def _is_huge(expression: Any) -> bool:
    """Whether a part of a number has more digits than can be evaluated quickly."""
    from sympy import Float, N, exp, factorial, log

    if any(map(_is_huge, expression.args)):
        return True
    if isinstance(expression, factorial | exp):
        [argument] = expression.args
        largest = _MAX_POWER if isinstance(expression, exp) else _MAX_FACTORIAL
        return bool(abs(N(argument, 15)) > largest)
    if expression.is_Pow and not expression.base.is_zero:
        size = abs(log(Float(abs(expression.base.evalf(15)), 15), 10))
        return bool(size * abs(expression.exp.evalf(15)) > _MAX_POWER)
    return False


def _log10(size: Any) -> Any:
    from sympy import Float, log

    return log(Float(size, 15), 10).evalf(15)


def _is_value(number: Any) -> bool:
    from sympy import oo, zoo

    return not number.has(oo, -oo, zoo) and number.is_number and bool(number.is_comparable or number.as_real_imag())


def same_function(one: Any, other: Any) -> bool | None:
    """Whether two expressions agree at six sample points, which have positive and negative coordinates.

    None: they have more than six letters, or can be evaluated at fewer than three of the points, or they have steps or
    corners, which sample points may miss.
    """
    from sympy import Abs, Expr, Max, Min, Mod, Piecewise, Rational, ceiling, floor, sign

    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    if not (isinstance(one, Expr) and isinstance(other, Expr)) or len(symbols) > 6:
        return None
    seen = 0
    for sample in _SAMPLES:
        point = {symbol: Rational(sample[place % 3]) + Rational(place // 3, 7) for place, symbol in enumerate(symbols)}
        with suppress(*_ERRORS):
            same = same_number(one.subs(point).doit(), other.subs(point).doit())
            if same is False:
                return False
            seen += same is True
    smooth = not any(side.has(Abs, Max, Min, Mod, Piecewise, ceiling, floor, sign) for side in (one, other))
    return True if seen >= 3 and smooth else None


def as_decimal(text: str) -> Decimal | None:
    r"""Read ``-3.14`` or ``6.7\cdot 10^{-5}``; None for a text without a decimal point or power of ten."""
    match = _PLAIN_DECIMAL.fullmatch(text)
    if match is None or not (match[2] or match[3]) or not (match[3] or match[4]):
        return None
    return Decimal(f"{match[1]}{match[2] or 0}.{match[3] or 0}" if match[3] else f"{match[1]}{match[2]}").scaleb(
        int(match[4] or 0)
    )


def significant_digits(number: Decimal) -> int:
    """Return the number of significant digits as written: ``0.0120`` has three."""
    return len(str(abs(int(number.scaleb(-int(number.as_tuple().exponent))))))


def rounds_to(value: Decimal, rounded: Decimal) -> bool:
    """Whether ``rounded`` is ``value`` rounded to the places that ``rounded`` has."""
    exponent = int(rounded.as_tuple().exponent)
    digits = value.adjusted() - exponent + 1
    if digits > _MAX_DIGITS:
        return False
    with localcontext() as context:
        context.prec = max(digits, 1) + 1  # the default precision is too small for 2^100 rounded to one place
        return value.quantize(Decimal(1).scaleb(exponent), rounding=ROUND_HALF_UP) == rounded


def to_decimal(expression: Any) -> Decimal | None:
    """Return a real number to 40 digits. None: the expression is not one, for example a condition or a matrix."""
    from sympy import Expr

    if not isinstance(expression, Expr):
        return None
    with suppress(*_ERRORS):
        value: Any = expression.evalf(_DIGITS)
        if value.is_Float or value.is_Rational:
            return Decimal(str(value)) if value.is_Float else Decimal(value.p) / Decimal(value.q)
    return None
