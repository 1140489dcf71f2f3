"""Compares answers that have a structure: sets, tuples, lists, ratios, cases, congruences, real intervals.

Sets and lists have no order, tuples have one. A list without brackets may be a set or a tuple: against a tuple in
another order it is undecided.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import lcm
from typing import Any, Protocol

from tmas.answers.structure import Form, case_parts, has_relation, in_the_same_names, names_of, read, split
from tmas.answers.symbolic import parse
from tmas.answers.verdicts import DIFFERENT, EQUAL, Comparison, Equivalence, Notation, different_unless, undecided

_MAX_ITEMS = 40
"""Maximum number of items that are compared pair by pair. Items with an equal text on the other side do not count."""
_MAX_RESIDUES = 100_000
_REGION = re.compile(r"[<>]|\\(?:leq|geq|neq|infty|cup|cap|setminus|mathbb|emptyset)(?![A-Za-z])")
_HALF_OPEN = re.compile(r"\([^()\[\]]*\]|\[[^()\[\]]*\)")
_SEVERAL_VALUES = re.compile(r"\\pm|\\mp|\\vec|\\math|\\over|\(-1\)\^|[A-Z]|(?<![A-Za-z\\])[ij](?![A-Za-z])")
"""Signs that a single expression may stand for several values, a vector or a set."""
_SIGNS = re.compile(r"\\(?:pm|mp)(?![A-Za-z])")
_WHOLE_NUMBER_NAMES = frozenset("nmklNMK")
_SYMPY_ERRORS = (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError, RecursionError)
"""What SymPy raises for sets that it cannot solve for or compare. These are caught around calls of SymPy alone: a bug
in this module must not look like an answer without a verdict."""


class Comparer(Protocol):
    """Compares two parts of answers. ``unreadable``: the verdict if the answers cannot be parsed."""

    def compare(self, one: str, other: str) -> Comparison: ...

    def unreadable(self) -> Comparison: ...


def all_equal(verdicts: Sequence[Comparison]) -> Comparison:
    """Combine the verdicts on the parts of two answers, which are equal if all their parts are equal."""
    if any(verdict.equivalence is Equivalence.DIFFERENT for verdict in verdicts):
        return DIFFERENT
    return next((verdict for verdict in verdicts if not verdict.equal), EQUAL)


def compare_special(one: Form, other: Form, comparer: Comparer) -> Comparison | None:
    """Compare congruences, cases, and sets that a condition defines. None: another comparison must decide."""
    kinds = {one.kind, other.kind}
    if kinds == {"congruence"}:
        return _compare_congruences(one, other)
    if kinds == {"congruence", "atom"}:
        residue, atom = (one, other) if one.kind == "congruence" else (other, one)
        name, number = residue.head.split(" ")[0], re.fullmatch(r"\d+", atom.items[0])
        same = number is not None and not name and residue.items == (str(int(number[0])),)
        return EQUAL if same else different_unless(Notation.MODULUS)
    if kinds == {"cases"}:
        return _compare_cases(one, other, comparer)
    if kinds == {"builder"} and (names := tuple(re.findall(r"[A-Za-z]", one.head))):
        conditions = in_the_same_names(
            (one.items[0], other.items[0]), (names, tuple(re.findall(r"[A-Za-z]", other.head)))
        )
        # Heads with the same letters in another order, or with commands or digits, are not compared here.
        swapped = one.head != other.head and set(names) == set(re.findall(r"[A-Za-z]", other.head))
        if conditions and not swapped and not re.search(r"\\|\d", one.head + other.head):
            verdict = _unordered(split(conditions[0]), split(conditions[1]), comparer)
            return verdict if verdict.equal else None  # other conditions may still define the same set
    return None


def _compare_congruences(one: Form, other: Form) -> Comparison:
    (name, modulus), (other_name, other_modulus) = (form.head.split(" ") for form in (one, other))
    if name and other_name and name != other_name:
        return different_unless("letters are renamed")
    common = lcm(int(modulus), int(other_modulus))
    residues = [
        {int(item) + int(step) * k for item in form.items for k in range(common // int(step))}
        for form, step in ((one, modulus), (other, other_modulus))
        if common // int(step) * len(form.items) <= _MAX_RESIDUES
    ]
    if len(residues) < 2:
        return undecided("the moduli are too large")
    return EQUAL if residues[0] == residues[1] else DIFFERENT


def _compare_cases(one: Form, other: Form, comparer: Comparer) -> Comparison:
    """Compare row by row, in any order. Different rows may still define the same function."""
    rows, other_rows = ([case_parts(row) for row in form.items] for form in (one, other))
    if len(rows) == len(other_rows):
        equal = [
            [
                all_equal([comparer.compare(*both) for both in zip(row, other_row, strict=True)]).equal
                for other_row in other_rows
            ]
            for row in rows
        ]
        if _has_matching(equal):
            return EQUAL
        pairs = list(zip(rows, other_rows, strict=True))
        if all(condition == other_condition for (_, condition), (_, other_condition) in pairs):
            return all_equal([comparer.compare(value, other_value) for (value, _), (other_value, _) in pairs])
    return undecided("the cases differ")


def compare_forms(one: Form, other: Form, comparer: Comparer) -> Comparison | None:
    """Compare sets, tuples, lists and ratios. None: neither side has such a structure, or math-verify must decide."""
    verdict = _compare_structures(one, other, comparer)
    if verdict is not DIFFERENT:
        return verdict
    parts = [part for form in (one, other) for part in (form.items if form.kind == "list" else (",".join(form.items),))]
    if any(len(_SIGNS.findall(part)) > 1 for part in parts):
        return different_unless("two signs are chosen independently")
    repeated = [names_of(form.items) for form in (one, other)]
    if any(1 < len(set(names)) < len(names) for names in repeated):
        return different_unless("the values of several solutions are listed")
    return DIFFERENT


def _compare_structures(one: Form, other: Form, comparer: Comparer) -> Comparison | None:
    if one.kind == other.kind == "atom":
        return None
    if any(r"\dots" in item for form in (one, other) for item in form.items):
        return undecided("an answer holds dots")
    kinds = {one.kind, other.kind}
    if "congruence" in kinds:
        return undecided("one answer is a congruence")
    if "ratio" in kinds:
        return _compare_ratios(one, other, comparer)
    if kinds & {"cases", "builder"}:
        return comparer.unreadable()
    if "atom" in kinds:
        return _compare_with_atom(*((one, other) if other.kind == "atom" else (other, one)), comparer)
    ordered = kinds & {"tuple", "brackets"}
    if not ordered:
        return _compare_sets(one, other, comparer)
    if "set" in kinds:
        listing, ordered_one = (one, other) if one.kind == "set" else (other, one)
        return compare_forms(read(listing.items[0]), ordered_one, comparer) if len(listing.items) == 1 else DIFFERENT
    if kinds == {"tuple", "brackets"} and len(one.items) == 2:
        return DIFFERENT
    items, other_items = _without_names(one, other), _without_names(other, one)
    in_order = len(items) == len(other_items) and all_equal(
        [comparer.compare(*both) for both in zip(items, other_items, strict=True)]
    )
    if "list" not in kinds or not in_order or in_order.equal:
        return in_order or DIFFERENT
    verdict = _unordered(items, other_items, comparer)
    return different_unless("the order is irrelevant") if verdict.equal else verdict


def _without_names(form: Form, other: Form) -> list[str]:
    """Return the items; of ``x=1, y=2`` only the values if the other side has no names."""
    named = [re.fullmatch(r"[A-Za-z](?:_\{\w+\})?=([^=]+)", item) for item in form.items]
    if all(named) and not any("=" in item for item in other.items):
        return [match[1] for match in named if match]
    return [*form.items]


def _compare_sets(one: Form, other: Form, comparer: Comparer) -> Comparison:
    verdict = _unordered(one.items, other.items, comparer)
    if verdict.equivalence is not Equivalence.DIFFERENT or len(one.items) == len(other.items):
        return verdict
    if max(len(one.items), len(other.items)) > _MAX_ITEMS:
        return undecided("an answer has too many items")
    distinct = _unordered(_distinct(one.items, comparer), _distinct(other.items, comparer), comparer)
    if one.kind == other.kind == "list" and distinct.equivalence is not Equivalence.DIFFERENT:
        return different_unless("repeated items count once")
    return distinct


def _distinct(items: Sequence[str], comparer: Comparer) -> list[str]:
    kept: list[str] = []
    for item in items:
        if not any(comparer.compare(*sorted((item, other))).equal for other in kept):
            kept.append(item)
    return kept


def _compare_with_atom(listing: Form, atom: Form, comparer: Comparer) -> Comparison | None:
    from sympy import Expr

    [text] = atom.items
    if listing.kind == "list" and any(map(has_relation, listing.items)):
        return undecided("only one answer states a condition")
    if listing.kind == "set" and len(listing.items) == 1:
        return comparer.compare(*sorted((listing.items[0], text)))
    expressions = parse(text, "")
    if expressions and all(isinstance(expression, Expr) for expression in expressions):
        return undecided("one answer has several parts") if _SEVERAL_VALUES.search(text) else DIFFERENT
    if any(getattr(expression, "is_Matrix", False) for expression in expressions):
        return different_unless("a tuple is a vector")
    return undecided("one answer has several parts")


def _compare_ratios(one: Form, other: Form, comparer: Comparer) -> Comparison | None:
    if one.kind == other.kind == "ratio" and len(one.items) == len(other.items):
        first, other_first = one.items[0], other.items[0]
        pairs = zip(one.items[1:], other.items[1:], strict=True)
        products = [sorted((f"({a})\\cdot ({other_first})", f"({b})\\cdot ({first})")) for a, b in pairs]
        return all_equal([comparer.compare(*both) for both in products])
    if "atom" in (one.kind, other.kind):
        ratio, atom = (one, other) if one.kind == "ratio" else (other, one)
        if len(ratio.items) == 2:
            return comparer.compare(*sorted((f"\\frac{{{ratio.items[0]}}}{{{ratio.items[1]}}}", atom.items[0])))
        return undecided("one answer is a ratio")
    return DIFFERENT if one.kind == other.kind else undecided("one answer is a ratio")


def _unordered(items: Sequence[str], other_items: Sequence[str], comparer: Comparer) -> Comparison:
    """Compare two collections whose order is irrelevant: they are equal if their items can be paired off."""
    if len(items) != len(other_items):
        return DIFFERENT
    rest, others = [*items], [*other_items]
    for item in items:
        if item in others:
            rest.remove(item)
            others.remove(item)
    if len(rest) > _MAX_ITEMS:
        return undecided("an answer has too many items")
    verdicts = [[comparer.compare(item, other) for other in others] for item in rest]
    if _has_matching([[verdict.equal for verdict in row] for row in verdicts]):
        return EQUAL
    different = Equivalence.DIFFERENT
    if not _has_matching([[verdict.equivalence is not different for verdict in row] for row in verdicts]):
        return DIFFERENT
    return next(verdict for row in verdicts for verdict in row if verdict.equivalence is Equivalence.UNDECIDED)


def _has_matching(fits: Sequence[Sequence[bool]]) -> bool:
    """Whether each row can be paired with a column of its own that fits (augmenting paths)."""
    row_of: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, fit in enumerate(fits[row]):
            if fit and column not in tried:
                tried.add(column)
                if column not in row_of or place(row_of[column], tried):
                    row_of[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(fits)))


def compare_regions(one: str, other: str) -> Comparison | None:
    """Compare two sets of real numbers: intervals, their unions, inequalities in one letter.

    None: another comparison must decide.
    """
    if not any(_REGION.search(side) or _HALF_OPEN.fullmatch(side) for side in (one, other)):
        return None
    try:
        (first, name), (second, other_name) = _region(one), _region(other)
    except RecursionError:  # a text such as x\in x\in x..., nested thousands of times
        return None
    if first is None or second is None:
        return None
    if name and other_name and name != other_name:
        return different_unless("letters are renamed")
    with suppress(*_SYMPY_ERRORS):
        if first == second or first.symmetric_difference(second).simplify().is_empty:
            return EQUAL
        if {name, other_name} & _WHOLE_NUMBER_NAMES:
            return different_unless("the letters stand for whole numbers")
        return DIFFERENT if first.symmetric_difference(second).is_empty is False else None
    return None


def _region(text: str) -> tuple[Any, str]:
    """Return the set of real numbers that ``text`` states (None: no set), and the name of its letter (or "")."""
    from sympy import Intersection, Set, Union
    from sympy.logic.boolalg import Boolean

    form = read(text)
    if form.kind == "builder":
        return _region(form.items[0])[0] if re.fullmatch("[A-Za-z]", form.head) else None, ""
    if match := re.fullmatch(r"([A-Za-z])\\in ?(.+)", text):
        return _region(match[2])[0], match[1]
    for word, combine in (("or", Union), ("and", Intersection)):
        parts = re.split(rf"[,;]? ?(?<![A-Za-z]){word}(?![A-Za-z]) ?", text)
        if len(parts) > 1:
            found = [_region(part) for part in parts]
            names = {name for _, name in found}
            regions = [region for region, _ in found]
            return (None if None in regions or len(names) > 1 else _call_sympy(combine, *regions)), names.pop()
    expressions = _call_sympy(parse, text, "") or []
    if len(expressions) != 1 or (form.kind not in ("atom", "tuple", "brackets", "set")):
        return None, ""
    [expression] = expressions
    if isinstance(expression, Set):
        return (expression if not expression.free_symbols else None), ""
    if isinstance(expression, Boolean) and has_relation(text) and len(symbols := expression.free_symbols) == 1:
        return _call_sympy(expression.as_set), str(next(iter(symbols)))
    return None, ""


def _call_sympy(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a call of SymPy, or None if SymPy fails."""
    with suppress(*_SYMPY_ERRORS):
        return function(*arguments)
    return None
