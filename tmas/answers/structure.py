"""Reads the outer structure of a normalised answer: sets, tuples, lists, ratios, cases, congruences, definitions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

Kind = Literal["atom", "list", "tuple", "brackets", "set", "ratio", "cases", "builder", "congruence"]
_NAME = r"[A-Za-z](?:_\{\w+\}|')?"
_LIST_WORDS = re.compile(r"[,;]?(?<![A-Za-z])(?:and|or)(?![A-Za-z])")
_THOUSANDS = re.compile(r"(?:[A-Za-z](?:_\{\w+\})?=)?-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_ORDERED_NAMES = re.compile(rf"\({_NAME}(?:,{_NAME})+\)(?:=|\\in)(?=[(\\{{])")
_CASES = re.compile(r"(?P<head>[^\\{}]*=)?\\begin\{(?P<name>d?cases)\}(?P<rows>.*)\\end\{(?P=name)\}", re.DOTALL)
_CONGRUENCE = re.compile(
    r"(?:(?P<name>[A-Za-z])\\equiv ?)?(?P<rest>-?\d{1,50}(?:,-?\d{1,50})*)"
    r"(?:\\pmod ?\{?|\(\\?(?:bmod|mod) ?|\\pod ?\{?|\(mod ?|\\[bp]?mod ?\{?)(?P<modulus>\d{1,50})[})]{0,2}"
)
_BUILDER = re.compile(
    r"(?P<head>[^|:]{1,200}?)(?:\\in ?\\mathbb\{(?P<field>[A-Z])\})?(?:\\mid ?|\||:)(?P<condition>.+)"
)
_DEFINITION = re.compile(
    r"(?P<name>[A-Za-z])(?:\((?P<arguments>[A-Za-z](?:,[A-Za-z])*)\)|_\{(?P<index>[A-Za-z])\})=(?P<value>.+)"
)
_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z]) ?")
_MINUS_PLUS = re.compile(r"\\mp(?![A-Za-z]) ?")
_CONDITION_WORDS = re.compile(r"^(?:,|\\text|if|for|when|where| )+|(?:,|;|\.| )+$")
_RELATION = re.compile(r"[<>]|\\(?:leq|geq|neq|in|notin|subset|subseteq)(?![A-Za-z])")


class Form(NamedTuple):
    """The structure of an answer. ``items``: its parts, normalised. ``head``: what the parts belong to, such as a
    bound variable or a modulus.
    """

    kind: Kind
    items: tuple[str, ...]
    head: str = ""


def split(text: str, separators: str = ",;") -> list[str]:
    """Split at the separators outside all brackets. Half-open intervals count as brackets."""
    items, depth, start, skip = [], 0, 0, False
    for place, character in enumerate(text):
        if skip:
            skip = False
            if character in "{}":
                depth += 1 if character == "{" else -1
        elif character == "\\":
            skip = True
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character in separators and depth == 0:
            items.append(text[start:place])
            start = place + 1
    return [item.strip() for item in (*items, text[start:])]


def has_relation(text: str) -> bool:
    """Whether ``text`` has an inequality, a membership or an inclusion."""
    return bool(_RELATION.search(text))


def read(text: str) -> Form:
    """Return the structure of a normalised answer."""
    text = _ORDERED_NAMES.sub("", text)
    if match := _CONGRUENCE.fullmatch(text):
        modulus = int(match["modulus"])
        if modulus:
            residues = sorted({int(item) % modulus for item in match["rest"].split(",")})
            return Form("congruence", tuple(map(str, residues)), f"{match['name'] or ''} {modulus}")
    if match := _CASES.fullmatch(text):
        rows = [row.strip(" ,.;") for row in re.split(r"\\\\(?:\[[^\]]*\])?", match["rows"])]
        return Form("cases", tuple(row for row in rows if row), match["head"] or "")
    inner = _enclosed(text)
    if inner is not None and text.startswith((r"\{", "{")):
        if match := _BUILDER.fullmatch(inner):
            field = "" if match["field"] in (None, "R") else rf",{match['head']}\in\mathbb{{{match['field']}}}"
            return Form("builder", (match["condition"] + field,), match["head"])
        return Form("set", tuple(_items(inner))) if inner else Form("set", ())
    if inner is not None and len(items := split(inner)) > 1 and all(items):
        if len(both := _both_signs(text)) > 1:
            return Form("list", tuple(both))
        return Form("tuple" if text[0] == "(" else "brackets", tuple(items))
    if len(items := _items(text)) > 1:
        return Form("list", tuple(items))
    if re.fullmatch(r"[^:=()\\]{1,50}(?::[^:=()\\]{1,50})+", text):
        return Form("ratio", tuple(text.split(":")))
    return Form("atom", (text,))


def _enclosed(text: str) -> str | None:
    r"""Return the content of the brackets that enclose all of ``text``, or None. ``(0,1]`` has none."""
    for opening, closing in ((r"\{", r"\}"), ("{", "}"), ("(", ")"), ("[", "]")):
        if text.startswith(opening) and text.endswith(closing) and len(text) >= len(opening) + len(closing):
            inner = text[len(opening) : -len(closing)]
            return inner if _is_balanced(inner) else None
    return None


def _is_balanced(text: str) -> bool:
    depth = 0
    for bracket in re.findall(r"[(\[{)\]}]", text):
        depth += 1 if bracket in "([{" else -1
        if depth < 0:
            return False
    return depth == 0


def _items(text: str) -> list[str]:
    r"""Return the items of a list with commas, "and" or "or". ``\pm 2`` has two items, ``2,125`` has one."""
    if _THOUSANDS.fullmatch(text):
        return [text]
    items = split(_LIST_WORDS.sub(",", text))
    if has_relation(text) and not any("=" in item and not has_relation(item) for item in items):
        items = split(text)  # "x>1 and x<3" is no list
    return _solutions([sign for item in items for sign in _both_signs(item)]) if all(items) else [text]


def names_of(items: Sequence[str]) -> list[str]:
    """Return the names of items that all have a single-letter name: ``a=1, b=2`` has a and b. Otherwise nothing."""
    named = [re.fullmatch(rf"({_NAME})=[^=]+", item) for item in items]
    return [match[1] for match in named if match] if all(named) else []


def _solutions(items: list[str]) -> list[str]:
    """Write several solutions with names as tuples: ``a=1, b=2 or a=2, b=1`` is (1,2), (2,1)."""
    names = names_of(items)
    size = len(set(names))
    if size < 2 or len(names) == size or names != sorted(set(names)) * (len(names) // size):
        return items
    values = [item.partition("=")[2] for item in items]
    return ["(" + ",".join(values[start : start + size]) + ")" for start in range(0, len(values), size)]


def _both_signs(item: str) -> list[str]:
    if len(_PLUS_MINUS.findall(item)) != 1 and not (_PLUS_MINUS.search(item) and _MINUS_PLUS.search(item)):
        return [item]
    plus = re.sub(r"(?<=[=(,{\[])\+|^\+", "", _PLUS_MINUS.sub("+", _MINUS_PLUS.sub("-", item)))
    return [plus, _MINUS_PLUS.sub("+", _PLUS_MINUS.sub("-", item))]


def in_the_same_order(one: str, other: str) -> tuple[str, str] | None:
    """Return both sides, with the named values of ``other`` in the order of ``one``.

    If ``one`` begins with ``(n,k)=``, ``(k,n)=(2,3)`` becomes ``(n,k)=(3,2)``. None: the values of ``other`` are not a
    tuple of this size.
    """
    first, second = _ORDERED_NAMES.match(one), _ORDERED_NAMES.match(other)
    if first is None or second is None or first[0] == second[0]:
        return one, other
    names, other_names = (re.findall(_NAME, match[0].rpartition(")")[0]) for match in (first, second))
    values = read(other[second.end() :])
    if sorted(names) != sorted(other_names):
        return one, other
    if values.kind != "tuple" or len(values.items) != len(names):
        return None
    return one, f"{first[0]}({','.join(values.items[other_names.index(name)] for name in names)})"


def case_parts(row: str) -> tuple[str, str]:
    """Return the value and the condition of a row of cases."""
    value, _, condition = row.partition("&")
    return value.strip(" ,;"), _CONDITION_WORDS.sub("", condition).strip()


class Definition(NamedTuple):
    """A function or a sequence that an answer defines: ``f(x)=x^2`` or ``a_n=n^2``."""

    name: str
    arguments: tuple[str, ...]
    value: str
    sequence: bool


def definition(text: str) -> Definition | None:
    """Read ``text`` as a definition, or return None."""
    match = _DEFINITION.fullmatch(text)
    if match is None:
        return None
    arguments = tuple((match["arguments"] or match["index"]).split(","))
    single = len(set(arguments)) == len(arguments) and "=" not in match["value"] and len(split(match["value"])) == 1
    return Definition(match["name"], arguments, match["value"], match["index"] is not None) if single else None


_LETTER = re.compile(r"\\[A-Za-z]+|[A-Za-z]")


def letters(text: str) -> set[str]:
    """Return the single letters in ``text`` that belong to no LaTeX command."""
    return {match[0] for match in _LETTER.finditer(text) if not match[0].startswith("\\")}


def rename(text: str, names: dict[str, str]) -> str:
    """Rename single letters, all at once. LaTeX commands do not change."""
    return _LETTER.sub(lambda match: names.get(match[0], match[0]), text)


def in_the_same_names(
    values: tuple[str, str], bound: tuple[tuple[str, ...], tuple[str, ...]]
) -> tuple[str, str] | None:
    """Give the bound letters of two values the same new names.

    None: the values have different numbers of bound letters, or too few letters are unused.
    """
    if len(bound[0]) != len(bound[1]):
        return None
    if bound[0] == bound[1]:
        return values
    used = set.union(*map(letters, values), *map(set, bound))
    free = [letter for letter in "xyzuvwtsrqpnmkjba" if letter not in used]
    if len(free) < len(bound[0]):
        return None
    one, other = (
        rename(value, dict(zip(names, free, strict=False))) for value, names in zip(values, bound, strict=True)
    )
    return one, other


_NAMED = re.compile(
    r"(?:[A-Za-z](?:_\{\w+\})?'?|\\[a-z]+|[A-Z]{2,3}|(?:\\angle|\\triangle) ?[A-Z]{1,3}|\[[A-Z]{3,6}\]|\|[A-Z]{2}\||"
    r"[A-Za-z]\([A-Za-z](?:,[A-Za-z])*\))"
    r"(?:=|\\in ?(?=[\[(\\]))(?P<value>[^=]+)"
)


def without_name(text: str, other: str) -> str:
    """Remove the name of a value: ``x=5`` is 5 if the other side has no name or the same name."""
    match = _NAMED.fullmatch(text)
    if match is None or has_relation(match["value"]):
        return text
    name = text[: match.start("value")]
    unnamed = "=" not in other and not has_relation(other)
    return match["value"] if unnamed or other.startswith(name) else text
