"""Decides whether two answers are equivalent.

Answers are compared as text, then by their structure (sets, tuples, intervals, cases), then expression by expression
with SymPy and math-verify. Answers with words are equal if their words are the same and the mathematics between the
words is equal.

math-verify sometimes calls different answers equal: it drops what looks like a unit (``2c`` is 2) and reads words as
products of letters (``listen`` is ``silent``). This module avoids both; :mod:`tmas.answers.symbolic` deals with
the other weaknesses of math-verify.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import product

from tmas.answers.families import compare_families
from tmas.answers.forms import compare_forms, compare_regions, compare_special
from tmas.answers.normalize import normalise
from tmas.answers.notation import same_digits_in_another_base, word_to_digits
from tmas.answers.numbers import as_decimal, rounds_to, significant_digits, to_decimal
from tmas.answers.statements import compare_choices_with_texts, compare_statements
from tmas.answers.structure import definition, has_relation, in_the_same_names, in_the_same_order, read, without_name
from tmas.answers.symbolic import (
    Parsed,
    are_constants,
    doubt_about_different,
    doubt_about_equal,
    equal,
    equal_if_constants_are_swapped,
    find_renaming,
    parse,
    without_commands,
    without_digit_separators,
)
from tmas.answers.verdicts import DIFFERENT, EQUAL, Comparison, Equivalence, different_unless, equal_but_for, undecided

_WHOLE_NUMBER = re.compile(r"-?(\d{1,1000})")
_MAX_PADDED_DIGITS = 3
"""Maximum number of digits, including leading zeros, of a number whose leading zeros are ignored.

AIME answers have three digits: ``025`` is 25. A longer number with leading zeros may be a code."""


def compare_texts(gold: str, answer: str) -> Comparison | None:
    """Decide the cheap cases: equal texts (ignoring typesetting) and whole numbers. None: use :func:`decide`."""
    gold, answer = normalise(gold), normalise(answer)
    if gold and gold == answer:
        return EQUAL
    numbers = _WHOLE_NUMBER.fullmatch(gold), _WHOLE_NUMBER.fullmatch(answer)
    if not all(numbers):
        return None
    if int(gold) != int(answer):
        return DIFFERENT
    padded = any(match and len(match[1]) > _MAX_PADDED_DIGITS and match[1][0] == "0" for match in numbers)
    return equal_but_for("leading zeros") if padded else EQUAL


_UNIT = re.compile(
    r"(?:\s*\\(?:text|textrm|mathrm|mbox)\s*\{(?P<text>[^{}]*)\}|\s(?P<word>[a-z]{4,}|[cmk]m|kg|ft|mph))"
    r"(?P<power>\^\{?\d\}?)?[\s.$]*$"
)
_SEVERAL_POINTS = re.compile(r"\d\.\d+\.\d")
_TEMPERATURE = re.compile(r"(?P<value>.*\d) ?\^\{?\\circ\}? ?(?P<unit>[CFK])")
_NOT_UNITS = re.compile(
    r"\b(?:hundred|thousand|million|billion|trillion|dozen|percent|times|factorial|mod|or|and|if|for)\b|\d", re.I
)
_LETTER_CONSTANTS = ("i", "e")
_SHORT_WORDS = "all|any|are|but|cis|for|has|if|is|mod|no|non|not|odd|of|the|to|yes|sin|cos|tan|log|exp|gcd|lcm|max|min"
_WORDS = re.compile(rf"(?<![A-Za-z])(?:[A-Za-z]{{4,}}|(?i:{_SHORT_WORDS}))(?![A-Za-z])")
_COMMAND_OR_WORD = re.compile(r"\\[A-Za-z]+|(?<![\dA-Za-z])(?P<word>[A-Za-z]{2,})")
_MULTISET = re.compile(r"\((?:\s|\\!)*(?:\\!|\\left\()(?:\s|\\!)*\\[dt]?binom")  # n multichoose k
_MAX_CHARACTERS = 20_000
_MIN_ROUNDED_DIGITS = 3
"""If one of two decimals may be the other one rounded, and has at least this many significant digits, the verdict is
undecided."""
Sides = tuple[str, str]


def decide(gold: str, answer: str, approximation_digits: int | None = None) -> Comparison:
    """Compare two answers completely. The verdict does not depend on the order of the two.

    ``approximation_digits``: see :class:`tmas.answers.checker.AnswerChecker`. This may hang or exhaust memory: call it
    through :mod:`tmas.answers.checker`.
    """
    if max(len(gold), len(answer)) > _MAX_CHARACTERS:
        return undecided("an answer is too long")
    if verdict := compare_texts(gold, answer) or compare_statements(gold, answer):
        return verdict
    if any(_MULTISET.search(side) for side in (gold, answer)):
        return undecided("the brackets may be a multiset coefficient")
    if choice := compare_choices_with_texts(gold, answer, partial(decide, approximation_digits=approximation_digits)):
        return choice
    (one, name), (other, other_name) = sorted(((gold, "gold answer"), (answer, "answer")))
    (one, unit), (other, other_unit) = _split_unit(one), _split_unit(other)
    may_mix_dollars_and_cents = "$" in gold + answer and re.search("cents?", f"{unit} {other_unit}")
    if may_mix_dollars_and_cents or (unit and other_unit and unit != other_unit):
        return undecided("the units differ")
    return ValueComparer(approximation_digits, (name, other_name)).compare(one, other)


def _split_unit(answer: str) -> tuple[str, str]:
    r"""Return a normalised number and its unit (``5 \text{ cm}^2``).

    The unit is empty, and the whole answer is returned, if the text before the unit is not a plain number.
    """
    if temperature := _TEMPERATURE.fullmatch(normalise(answer)):
        return temperature["value"], temperature["unit"]
    match = _UNIT.search(answer)
    if match is None:
        return normalise(answer), ""
    value = normalise(answer[: match.start()])
    unit = (match["text"] or match["word"] or "").strip()
    if "\\times" in value.replace(r"\times 10^", ""):
        return normalise(answer), ""  # a size, such as 2 by 3 metres
    a_list = re.search(r",(?!\d{3}(?!\d))", value)
    numeric = any(map(str.isdigit, value)) and not re.search("[A-Za-z]", without_commands(value))
    if a_list or not numeric or unit in _LETTER_CONSTANTS or _NOT_UNITS.search(unit):
        return normalise(answer), ""
    return value, unit + (match["power"] or "")


class ValueComparer:
    """Compares two normalised values without units. ``names``: how a reason refers to the two sides."""

    def __init__(self, approximation_digits: int | None, names: Sides) -> None:
        self._digits = approximation_digits
        self._names = names

    def compare(self, one: str, other: str) -> Comparison:
        one, other = word_to_digits(one), word_to_digits(other)
        if any(_SEVERAL_POINTS.search(side) for side in (one, other)):
            return undecided("a number has several decimal points")
        if (ordered := in_the_same_order(one, other)) is None:
            return undecided("the names are in another order")
        one, other = ordered
        if family := compare_families(one, other, self):
            return family
        one, other = _without_membership(one, other)
        if defined := self._compare_definitions(one, other):
            return defined
        one, other = without_name(one, other), without_name(other, one)
        if one and one == other:
            return EQUAL
        if chain := self._compare_chains(one, other):
            return chain
        if one.endswith("%") != other.endswith("%"):
            return self._compare_expressions(one, other)
        if special := compare_special(read(one), read(other), self):
            return special
        has_words = [bool(_WORDS.search(without_commands(value))) for value in (one, other)]
        if any(has_words):
            return (
                EQUAL
                if self._same_words(one, other)
                else undecided(f"the {self._side_to_name(has_words)} contains words")
            )
        verdict = compare_regions(one, other) or compare_forms(read(one), read(other), self)
        verdict = verdict or self._compare_expressions(one, other)
        if verdict.equivalence is Equivalence.DIFFERENT and _equal_without_digit_separators(one, other):
            return different_unless("the digits are in groups of three")
        if verdict.equivalence is Equivalence.DIFFERENT and self._equal_without_percent_signs(one, other):
            return different_unless("a percent sign is left out")
        return verdict

    def _equal_without_percent_signs(self, one: str, other: str) -> bool:
        """Whether only a percent sign, as in ``50%<p``, makes the two differ."""
        if one.count("%") == other.count("%"):
            return False
        return self.compare(one.replace("%", ""), other.replace("%", "")) == EQUAL

    def _compare_chains(self, one: str, other: str) -> Comparison | None:
        r"""Compare ``\sqrt{2}=1.414`` with a value: every number of the chain must give the same verdict."""
        chains = [_numbers_of_chain(side) for side in (one, other)]
        parts = [chain or [without_name(side, "")] for side, chain in zip((one, other), chains, strict=True)]
        if not any(chains) or any("=" in part for side in parts for part in side):
            return None
        pairs = product(*parts)
        verdicts = [self.compare(*sorted(pair)) for pair in pairs]
        outcomes = {verdict.equivalence for verdict in verdicts}
        return verdicts[0] if len(outcomes) == 1 else undecided("an answer states unequal values")

    def _side_to_name(self, concerned: list[bool]) -> str:
        """Return the name of the side that a reason concerns; the gold answer if it concerns both."""
        # "gold answer" sorts after "answer"
        return max(name for name, concerns in zip(self._names, concerned, strict=True) if concerns)

    def unreadable(self) -> Comparison:
        """Return the verdict for answers that cannot be parsed."""
        return undecided(f"the {max(self._names)} cannot be parsed")

    def _compare_definitions(self, one: str, other: str) -> Comparison | None:
        """Compare two functions or sequences of the same name, whatever their arguments are called."""
        first, second = definition(one), definition(other)
        if first is None or second is None or (first.name, first.sequence) != (second.name, second.sequence):
            return None
        values = in_the_same_names((first.value, second.value), (first.arguments, second.arguments))
        if values is None:
            return None
        plain = all(read(value).kind == "atom" and not _WORDS.search(without_commands(value)) for value in values)
        return self._compare_expressions(*values, arbitrary_constants=True) if plain else self.compare(*values)

    def _compare_expressions(self, one: str, other: str, arbitrary_constants: bool = False) -> Comparison:
        """Compare two expressions by their values.

        ``arbitrary_constants``: c, C, k and K name arbitrary constants, so one of them may be renamed to another.
        """
        parsed = parse(one, other), parse(other, one)
        if not all(parsed):
            return undecided(f"the {self._side_to_name([not side for side in parsed])} cannot be parsed")
        if same_digits_in_another_base(one, other):
            return equal_but_for("number bases")
        if equal(*parsed):
            doubt = doubt_about_equal(one, other)
            return equal_but_for(doubt) if doubt else EQUAL
        if approximate := self._compare_approximation(one, other, parsed):
            return approximate
        if arbitrary_constants and (names := find_renaming(parsed[0][0], parsed[1][0])) and are_constants(names):
            return EQUAL
        if arbitrary_constants and equal_if_constants_are_swapped(parsed[0][0], parsed[1][0]):
            return different_unless("constants are renamed")
        doubt = doubt_about_different(one, other, parsed)
        return different_unless(doubt) if doubt else DIFFERENT

    def _compare_approximation(self, one: str, other: str, parsed: Parsed) -> Comparison | None:
        """Compare a decimal with an unequal number that may round to it, by ``approximation_digits``.

        None: this decides nothing.
        """
        decimals = as_decimal(one), as_decimal(other)
        values = [to_decimal(side[0]) for side in parsed]
        for rounded, exact in ((decimals[0], values[1]), (decimals[1], values[0])):
            if rounded is None or exact is None or not rounds_to(exact, rounded):
                continue
            if self._digits is not None and significant_digits(rounded) >= self._digits:
                return EQUAL
            if all(decimals) and significant_digits(rounded) >= _MIN_ROUNDED_DIGITS:
                return different_unless("a decimal is rounded")
        return None

    def _same_words(self, one: str, other: str) -> bool:
        """Whether both have the same words, with equal mathematics between them, piece by piece and in order."""
        (words, pieces), (other_words, other_pieces) = map(_words_and_pieces, (one, other))
        return (
            words == other_words
            and len(pieces) == len(other_pieces)
            and all(self._same_piece(*both) for both in zip(pieces, other_pieces, strict=True))
        )

    def _same_piece(self, one: str, other: str) -> bool:
        return one == other or bool(one and other and self._compare_expressions(one, other).equal)


_MEMBER = re.compile(r"([A-Za-z](?:_\{\w+\})?)\\in ?(\\\{.*\\\})")


def _without_membership(one: str, other: str) -> Sides:
    r"""Remove the letter from both sides if one is ``p\in\{2,3\}`` and the other states values of it: ``p=2,3``."""
    for side, listed in ((one, other), (other, one)):
        member = _MEMBER.fullmatch(side)
        if member and re.match(re.escape(member[1]) + "=", listed):
            named = rf"(^|[,;]|or|and){re.escape(member[1])}="
            return (member[2], re.sub(named, r"\1", other)) if side == one else (re.sub(named, r"\1", one), member[2])
    return one, other


def _numbers_of_chain(text: str) -> list[str]:
    r"""Return the parts of a chain such as ``1+2=3`` that begins with a number; an empty list for any other text."""
    parts = text.split("=")
    number = re.search(r"\d", parts[0]) and not re.search("[A-Za-z]", without_commands(parts[0]))
    is_chain = number and len(parts) > 1 and all(parts) and not has_relation(text)
    return parts if is_chain else []


def _equal_without_digit_separators(one: str, other: str) -> bool:
    """Whether the two are equal once separators between groups of three digits are removed, and one has such
    separators.
    """
    has_separators = bool(re.search(r"\d[ ,]\d{3}", f"{one}|{other}"))
    return has_separators and without_digit_separators(one) == without_digit_separators(other)


def _words_and_pieces(value: str) -> tuple[list[str], list[str]]:
    """Return the words (adjacent letters without a preceding digit) and the pieces between them.

    Commas and semicolons outside all brackets also separate pieces.
    """
    words = [match for match in _COMMAND_OR_WORD.finditer(value) if match["word"]]
    starts, ends = [0, *(word.end() for word in words)], [*(word.start() for word in words), len(value)]
    between = [value[start:end] for start, end in zip(starts, ends, strict=True)]
    return [word[0] for word in words], [piece for text in between for piece in _split_at_commas_and_semicolons(text)]


def _split_at_commas_and_semicolons(text: str) -> list[str]:
    """Split at the commas and semicolons outside all brackets."""
    pieces, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character in ",;" and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += character
    return [piece.strip(" .:") for piece in pieces]
