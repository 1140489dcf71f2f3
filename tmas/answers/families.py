r"""Compares families of solutions over the whole numbers, such as ``x=\frac{\pi}{4}+k\pi, k\in\mathbb{Z}``."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from tmas.answers.forms import Comparer
from tmas.answers.numbers import same_number
from tmas.answers.structure import letters, read, rename, without_name
from tmas.answers.symbolic import parse
from tmas.answers.verdicts import DIFFERENT, EQUAL, Comparison, different_unless, undecided

_FAMILY = re.compile(
    r"(?P<values>.+?)(?:[,;]? ?\b(?:for all|for any|for|where|with)\b ?|[,;]|(?=\())"
    r"\(?(?P<index>[A-Za-z])\\in ?\\mathbb\{Z\}\)?"
)


def compare_families(one: str, other: str, comparer: Comparer) -> Comparison | None:
    """Compare two normalised answers if at least one declares a letter that stands for all whole numbers.

    None: neither declares one.
    """
    first, second = _FAMILY.fullmatch(one), _FAMILY.fullmatch(other)
    if first is None and second is None:
        return None
    if first is None or second is None:
        declared, plain = (first, other) if first else (second, one)
        assert declared is not None
        same = without_name(declared["values"], plain) == without_name(plain, declared["values"])
        return EQUAL if same else undecided("only one answer says which numbers a letter stands for")
    index, other_index = first["index"], second["index"]
    if index != other_index and (index in letters(second["values"]) or other_index in letters(first["values"])):
        return undecided("the answers use letters in different ways")
    left, right = first["values"], rename(second["values"], {other_index: index})
    left, right = without_name(left, right), without_name(right, left)
    if comparer.compare(*sorted((left, right))).equal:
        return EQUAL
    return _compare_progressions(left, right, index) or different_unless("both give the same values")


def _compare_progressions(one: str, other: str, index: str) -> Comparison | None:
    r"""Compare ``a+pk`` with ``b+qk``: they are the same numbers if p is q or -q, and a-b is a multiple of p."""
    from sympy import Integer

    with suppress(TypeError, ValueError, ArithmeticError, AttributeError):
        first, second = _progression(one, index), _progression(other, index)
        if first is None or second is None:
            return None
        (start, step), (other_start, other_step) = first, second
        same_steps = same_number(abs(step), abs(other_step))
        if same_steps is not True:
            return DIFFERENT if same_steps is False else None
        steps_apart = (start - other_start) / step
        same = same_number(steps_apart, Integer(round(steps_apart.evalf(15))))
        return None if same is None else EQUAL if same else DIFFERENT
    return None


def _progression(value: str, index: str) -> tuple[Any, Any] | None:
    """Return the start and the step of a value that is linear in the index, or None."""
    from sympy import Expr, expand

    expressions = parse(value, "") if read(value).kind == "atom" and r"\pm" not in value else []
    if len(expressions) != 1 or not isinstance(expressions[0], Expr):
        return None
    [expression] = expressions
    if [str(symbol) for symbol in expression.free_symbols] != [index]:
        return None
    [symbol] = expression.free_symbols
    start = expression.subs(symbol, 0)
    step = expression.subs(symbol, 1) - start
    is_linear = step.is_real and not step.is_zero and expand(expression - start - step * symbol) == 0
    return (start, step) if is_linear else None
