r"""Finds notations with several readings. Two answers are undecided if such a notation may change the verdict.

Examples: ``C_{10}`` may be a Catalan number, ``1/2x`` is x/2 or 1/(2x), ``(-8)^{1/3}`` is -2 or not real.
"""

from __future__ import annotations

import re
from typing import Any

from tmas.answers.notation import for_math_verify
from tmas.answers.numbers import is_number, same_function, same_number
from tmas.answers.verdicts import Notation

_ONE_SIDED = {
    Notation.NAME: re.compile(r"(?<![A-Za-z\\])[A-Z]_\{[^{}]*\}"),
    Notation.ORDER_OF_GROWTH: re.compile(r"(?<![A-Za-z\\])[Oo]\(|\\(?:mathcal\{O\}|Theta|Omega)\("),
    Notation.DERIVATIVE: re.compile(r"\\partial"),
    Notation.ACCENT: re.compile(r"\\(?:overline|bar|hat|widehat|tilde|vec)(?![A-Za-z])"),
    Notation.MODULUS: re.compile(r"\\pmod|\\pod|\(mod"),
    Notation.LOGARITHM: re.compile(r"\\(?:log|lg)(?![A-Za-z_])(?! ?_)"),
}
"""Notations that raise a doubt if only one side has them."""
_RELATION = re.compile(r"[<>]|\\(?:leq|geq)(?![A-Za-z])")
_SIGNS = {
    "an operator as an exponent": re.compile(r"\^(?:\{(?:T|c|\*|\\(?:top|dagger|ast))\}|\*|\\(?:top|dagger|ast))"),
    "another relation": re.compile(r"\\(?:equiv|sim|simeq|cong|approx|propto|mid|nmid|neq|parallel|perp)(?![A-Za-z])"),
    "a chain of equations": re.compile(r"[A-Za-z]=[A-Za-z]="),
}
"""Signs that math-verify ignores or mistakes for other signs. The key completes "equal but for ..."."""
_SLASH = re.compile(r"/ ?(?:\d+|[a-z]) ?(?:[A-Za-z(]|\\(?:sqrt|pi|frac|ln|log|sin|cos|tan)(?![A-Za-z]))")
_BASE = re.compile(r"\\(?:log|lg|ln) ?_\{[^{}]*\}|\\ln(?![A-Za-z])")
_FUNCTION = re.compile(r"[A-Za-z](?:_\{[^{}]*\})?'*\(")
_LETTER_FONT = re.compile(r"\\math(?:bb|cal|frak|scr)\{([A-Za-z])\}")
_RADICAL = re.compile(r"\\sqrt\s*\[")


def _ambiguous_slash(one: str, other: str) -> bool:
    r"""Whether a slash is followed by a product without brackets, such as ``1/2x``, on either side."""
    return any(_SLASH.search(side) for side in (one, other))


def only_in(side: str, other: str) -> list[Notation]:
    """Return the notations that raise a doubt about the verdict "different" and that only ``side`` has.

    Both sides are normalised. Logarithms with and without a base count as the same notation.
    """
    side, other = for_math_verify(side), for_math_verify(_BASE.sub(r"\\log ", other))
    signs = {Notation.SLASH: _SLASH, Notation.FUNCTION: _FUNCTION, **_ONE_SIDED}
    return [notation for notation, sign in signs.items() if sign.search(side) and not sign.search(other)]


def doubt_about_signs(one: str, other: str) -> str | None:
    """Return what may distinguish two answers that have equal values, or None."""
    if _ambiguous_slash(one, other):
        return "what a slash divides by"
    return next((doubt for doubt, sign in _SIGNS.items() if sign.findall(one) != sign.findall(other)), None)


def doubt_about_notation(one: str, other: str, first: Any, second: Any) -> str | None:
    """Return how two answers with different values may still be equal because of their notation, or None.

    ``one`` and ``other`` are normalised; ``first`` and ``second`` are their expressions.
    """
    if _ambiguous_slash(one, other):
        return Notation.SLASH
    relations = [len(_RELATION.findall(side)) for side in (one, other)]
    if max(relations) > 1:
        return "a chain of inequalities has another form"
    if _LETTER_FONT.sub(r"\1", one) == _LETTER_FONT.sub(r"\1", other):
        return "a letter has another font"
    one, other = for_math_verify(one), for_math_verify(other)
    for notation, pattern in _ONE_SIDED.items():
        if bool(pattern.search(one)) != bool(pattern.search(other)):
            return notation
    if _is_unevaluated(first) or _is_unevaluated(second):
        return "a sum, product or integral has a closed form"
    radical = bool(_RADICAL.search(one + other))
    return "a root of a negative number is real" if _equal_with_real_roots(first, second, radical) else None


def _is_unevaluated(expression: Any) -> bool:
    """Whether an expression with letters has a sum, product, integral or limit that SymPy left as it is."""
    from sympy import Basic, Integral, Limit, Piecewise, Product, Sum

    kinds = (Integral, Limit, Piecewise, Product, Sum)
    return isinstance(expression, Basic) and bool(expression.free_symbols) and expression.has(*kinds)


def _equal_with_real_roots(one: Any, other: Any, radical: bool) -> bool:
    r"""Whether two expressions may be equal if odd roots of negative numbers are real: ``(-8)^{1/3}`` is -2.

    ``radical``: whether an answer has a root sign with an index, such as ``\sqrt[3]{x}``. Without one, only roots of
    negative numbers are considered.
    """
    from sympy import Expr

    if not (isinstance(one, Expr) and isinstance(other, Expr)) or not (
        _has_odd_root(one, radical) or _has_odd_root(other, radical)
    ):
        return False
    left, right = _with_real_roots(one), _with_real_roots(other)
    if is_number(left) and is_number(right):
        return same_number(left, right) is True
    return left.free_symbols == right.free_symbols and same_function(left, right) is not False


def _has_odd_root(expression: Any, radical: bool) -> bool:
    from sympy import Pow

    return any(_is_odd_root(power) and (radical or power.base.is_negative) for power in expression.atoms(Pow))


def _with_real_roots(expression: Any) -> Any:
    from sympy import Abs, sign

    return expression.replace(_is_odd_root, lambda p: sign(p.base) ** p.exp.p * Abs(p.base) ** p.exp)


def _is_odd_root(expression: Any) -> bool:
    return (
        expression.is_Pow and expression.exp.is_Rational and expression.exp.q % 2 == 1 and expression.exp.q > 1
    ) and expression.base.is_positive is not True
