"""Compares answers that are not expressions: yes and no, true and false, the letters of a multiple choice."""

from __future__ import annotations

import re
from collections.abc import Callable

from tmas.answers.normalize import normalise
from tmas.answers.verdicts import DIFFERENT, EQUAL, Comparison, equal_but_for, undecided

_YES = frozenset({"yes", "true", "correct", "it is true", "the statement is true", "the answer is yes", "yes it is"})
_NO = frozenset(
    {"no", "false", "incorrect", "not true", "it is false", "it is not true", "the statement is false"}
    | {"the answer is no", "no it is not", "no it isn't", "untrue"}
)
_WITH_REASON = re.compile(r"(yes|no|true|false) ?[,.;:] ?(.*)")
_TRUTH_OF_LETTER = {"t": True, "y": True, "f": False, "n": False}
_CHOICES = re.compile(r"\(?([A-J])\)?(?:(?:,|;|,? ?and|,? ?or) ?\(?([A-J])\)?)*")
_CHOICE_WITH_TEXT = re.compile(
    r"[\s$]*(?:\\(?:text|textbf|textrm|mathrm|mathbf)\s*\{)?\s*(?:\((?P<enclosed>[A-J])\)|(?P<letter>[A-J])[.:)])\s*\}?"
    r"(?:[\s~,:$]|\\[ ,:;]|\\q?quad)+(?P<text>(?![A-J]\b|.*[A-J][.:)]).+)"
)
_NUMBER = re.compile(r"-?\d[\d.,/]*|\\frac\{\d+\}\{\d+\}")


def compare_statements(one: str, other: str) -> Comparison | None:
    """Compare yes and no, or the letters of a multiple choice. None: the answers are something else."""
    plain, other_plain = normalise(one), normalise(other)
    return _compare_polarity(plain, other_plain) or _compare_choices(plain, other_plain)


def truth(answer: str) -> tuple[bool, str] | None:
    """Return whether an answer says yes (or true), and its reason: ``No, 3 fails`` is (False, "3 fails").

    None: it says neither yes nor no.
    """
    text = re.sub(r"\\(?:text|textbf|mathrm)|[{}$*!.]+$|^[{$*]+", "", normalise(answer)).strip(" ,;").lower()
    if text in _YES or text in _NO:
        return text in _YES, ""
    match = _WITH_REASON.fullmatch(text)
    return (match[1] in _YES, match[2].strip()) if match else None


def compare_choices_with_texts(one: str, other: str, compare: Callable[[str, str], Comparison]) -> Comparison | None:
    r"""Compare ``\textbf{(D)} 12`` with ``D``, ``12`` or ``(D) 12``. None: neither side is a choice with its text."""
    chosen = [_CHOICE_WITH_TEXT.fullmatch(side) for side in (one, other)]
    if all(chosen):
        (letter, text), (other_letter, other_text) = (_letter_and_text(match) for match in chosen if match)
        verdict = compare(text, other_text)
        if (letter == other_letter) == verdict.equal:
            return verdict
        return undecided("the letters or the texts of the choices differ")
    match, bare = (chosen[0], other) if chosen[0] else (chosen[1], one)
    if match is None:
        return None
    letter, text = _letter_and_text(match)
    if re.fullmatch(r"\(?[A-J]\)?", plain := normalise(bare)):
        return EQUAL if plain.strip("()") == letter else DIFFERENT
    return compare(text, bare) if match is chosen[0] else compare(bare, text)


def _letter_and_text(match: re.Match[str]) -> tuple[str, str]:
    return match["enclosed"] or match["letter"], match["text"]


def _compare_polarity(one: str, other: str) -> Comparison | None:
    first, second = truth(one), truth(other)
    if first is None and second is None:
        return None
    if first is None or second is None:
        said, text = (first or second), (other if second is None else one)
        assert said is not None
        if text.lower() in _TRUTH_OF_LETTER and not said[1]:
            return EQUAL if _TRUTH_OF_LETTER[text.lower()] == said[0] else DIFFERENT
        if _NUMBER.fullmatch(text):
            return DIFFERENT
        return undecided("one answer is not yes or no")
    if first[0] != second[0]:
        return DIFFERENT
    # A reason with a digit or an equals sign that only one side gives may be part of the answer: "Yes, n=5".
    reasons = {first[1], second[1]} - {""}
    if len(reasons) > 1 or any(re.search(r"\d|=", reason) for reason in reasons if "" in (first[1], second[1])):
        return equal_but_for("the reasons")
    return EQUAL


def _compare_choices(one: str, other: str) -> Comparison | None:
    """Compare ``A`` with ``B``, or ``BD`` with ``B, D``.

    It is not known whether the order of letters without commas matters.
    """
    if all(re.fullmatch(r"\(?[A-J]\)?", side) for side in (one, other)):
        return EQUAL if one.strip("()") == other.strip("()") else DIFFERENT
    joined, listed = (one, other) if re.fullmatch("[A-J]{2,10}", one) else (other, one)
    if not re.fullmatch("[A-J]{2,10}", joined) or not _CHOICES.fullmatch(listed):
        return None
    letters = re.findall("[A-J]", listed)
    if len(letters) < 2:
        return None
    if list(joined) == sorted(letters) and len(set(letters)) == len(letters):
        return EQUAL
    return equal_but_for("the order of letters") if sorted(joined) == sorted(letters) else DIFFERENT
