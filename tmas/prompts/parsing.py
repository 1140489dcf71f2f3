"""Parses model text into records, or raises :class:`Unparsable`. A missing value never gets a default."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from tmas.prompts.repair import repaired_json
from tmas.prompts.schemas import VerificationOutput, grade_of

M = TypeVar("M", bound=BaseModel)


class Unparsable(ValueError):
    """The reply does not contain the required output. The message says what is missing."""


class Parsed(NamedTuple, Generic[M]):
    """A parsed record, whether its JSON had to be repaired, and how many invalid list entries were dropped."""

    record: M
    repaired: bool
    dropped: int


_SENTENCE_END = re.compile(
    r"""
    (?<!\be\.g) (?<!\bi\.e) (?<!\bcf) (?<!\bEq) (?<!\bvs) (?<!\bresp)
    [.!?] [\])}"'”’*_$`]* (?=\s)
    | (?<=\S) (?=\n\s*(?:[-*•]|\d{1,2}[.)])\s)
    """,
    re.VERBOSE,
)
"""The end of a sentence, or of the line before a list item, if more text follows: the last word of a text may be cut,
such as "0." of "0.5"."""
_LIST_NUMBER = re.compile(r"\s*\d{1,2}\.")


def whole_sentences(text: str) -> str:
    """Return ``text``, which may be cut anywhere, up to its last whole sentence or list item; "" if there is none."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return next((text[:end].strip() for end in reversed(ends) if not _ends_with_list_number(text, end)), "")


def _ends_with_list_number(text: str, end: int) -> bool:
    return _LIST_NUMBER.fullmatch(text, text.rfind("\n", 0, end) + 1, end) is not None


class ParsedVerification(NamedTuple):
    """A parsed verification. ``grade`` is 0.0, 0.5 or 1.0."""

    critique: str
    grade: float
    repaired: bool = False


def parse_json(text: str, model: type[M], required: Mapping[str, str] | None = None) -> Parsed[M]:
    """Return the last JSON object in ``text`` that is a valid ``model``, ignoring the text around it.

    ``required``: fields that the object must have in addition, with these values; other objects are ignored. Invalid
    list entries are dropped and counted, unless all are invalid. If no object can be parsed, json-repair is tried on
    the last closed one. Raises :class:`Unparsable`, also for a degenerate text, such as a bracket that is repeated
    without end, so that the time is linear in the length of the text.
    """
    protected = protect_latex(text)
    try:
        return _last_valid(protected, model, required or {}) or _repaired(protected, model, required or {})
    except RecursionError:
        raise Unparsable("JSON nested too deeply") from None


_OBJECT = re.compile(r'\{\s*"')
"""The beginning of an object that is not empty."""
MAX_PASSES = 16
"""Number of times that :func:`parse_json` may read a text. A text whose objects do not fit the model is read again for
each object in it, and a degenerate text would be read thousands of times."""


def _last_valid(text: str, model: type[M], required: Mapping[str, str]) -> Parsed[M] | None:
    decoder = json.JSONDecoder(strict=False)
    found, end, read = None, 0, 0
    while candidate := _OBJECT.search(text, end):
        start = candidate.start()
        end = start + 1
        try:
            value, after = decoder.raw_decode(text, start)
            read += after - start
            found, end = _validated(value, model, required, repaired=False), after
        except json.JSONDecodeError as error:
            read += error.pos - start + len(text) // 32  # the exception counts the lines before the error
        except ValueError:  # an object of another shape (Unparsable), or an integer with too many digits
            pass
        if read > MAX_PASSES * len(text):
            raise Unparsable("too many JSON objects that are nested, damaged or of another shape")
    return found


def _repaired(text: str, model: type[M], required: Mapping[str, str]) -> Parsed[M]:
    opening = re.compile(rf"\{{\s*[\"']?(?:{'|'.join([*model.model_fields, *required])})[\"']?\s*:")
    starts = [match.start() for match in opening.finditer(text)]
    if not starts:
        raise Unparsable(f"no JSON object with {' or '.join(model.model_fields)}")
    try:
        # Only up to a closing brace: a truncated "0.5" must not be read as "0".
        value = repaired_json(text[starts[-1] : text.rfind("}") + 1])
        return _validated(value, model, required, repaired=True)
    except ValueError:
        raise Unparsable(f"the JSON object is not a valid {model.__name__}") from None


def _validated(value: Any, model: type[M], required: Mapping[str, str], repaired: bool) -> Parsed[M]:
    if not (isinstance(value, dict) and value.keys() & model.model_fields.keys()):
        raise Unparsable(f"not an object of {model.__name__}'s shape")
    parsed = _without_invalid_entries(value, model, repaired)
    if wrong := [name for name, text in required.items() if str(value.get(name)).strip() != text]:
        raise Unparsable(f"a wrong value or none in {' and '.join(wrong)}")
    return parsed


def _without_invalid_entries(value: Any, model: type[M], repaired: bool) -> Parsed[M]:
    try:
        return Parsed(model.model_validate(value), repaired, 0)
    except ValidationError as error:
        bad = {problem["loc"][:2] for problem in error.errors() if len(problem["loc"]) > 1}
    names = {name for name, _ in bad}
    kept = {name: [entry for i, entry in enumerate(value[name]) if (name, i) not in bad] for name in names}
    if not any((value | kept).get(name) for name in model.model_fields):
        raise Unparsable("no list entry is valid")
    return Parsed(model.model_validate(value | kept), repaired, len(bad))


# What follows \n or \t in LaTeX commands that begin with them. (After \b, \f and \r any letter means LaTeX.)
_N_COMMANDS = (
    "abla|eqq?|ot|otin|otag|onumber|olimits|ewline|orm|atural|leq|geq|subseteq|supseteq|cong|sim|vdash|[ew]arrow|"
    "rightarrow|Rightarrow|leftarrow|Leftarrow"
)
_N_AMBIGUOUS = "e|u|i|eg|mid|exists|parallel"  # a new line may also begin with these
_T_COMMANDS = (
    "imes|heta|o|op|anh?|au|ag|frac|ilde|binom|herefore|hinspace|riangle(?:q|left|right|down|lefteq|righteq)?|"
    "ext(?:bf|it|rm|tt|sf|sc|up|style|normal)?|woheadrightarrow"
)


def protect_latex(json_text: str) -> str:
    r"""Double the backslashes in raw JSON text that belong to LaTeX and not to JSON escapes.

    ``\frac`` would decode as a form feed and "rac", and ``\alpha`` not at all. Doubled backslashes stay as they are.
    ``\ne``, ``\nu`` and similar ones can also be a line break before a word. They count as LaTeX, unless the text has
    doubled backslashes elsewhere, which shows that it escapes correctly.
    """
    doubled = re.search(r"\\\\[A-Za-z]", json_text)
    pattern = _ESCAPES["certain" if doubled else "likely"]
    return pattern.sub(lambda match: match[0] if match[1] else r"\\", json_text)


def _escapes(n_commands: str) -> re.Pattern[str]:
    """Match a backslash, together with what follows it if the two are a JSON escape."""
    return re.compile(
        rf"""\\(
            ["\\/] | u[0-9a-fA-F]{{4}} | [bfr](?![A-Za-z])
            | n(?!(?:{n_commands})(?![A-Za-z])) | t(?!(?:{_T_COMMANDS})(?![A-Za-z]))
        )?""",
        re.VERBOSE,
    )


_ESCAPES = {"certain": _escapes(_N_COMMANDS), "likely": _escapes(f"{_N_COMMANDS}|{_N_AMBIGUOUS}")}

_NUMBER = r"(?>[-+]?(?:\d+(?:\.\d+)?|\.\d+)\w*%?)"
_NUMBERS = rf"(?>{_NUMBER}(?:[ \t(]*(?:/|(?:out\s)?of|or|to|[-–,|])[ \t]*{_NUMBER})*)"
_BOX = r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
_MARKS = r"*_\"'`$(\[<\\"
_IS = rf"(?:[\s{_MARKS}]{{0,9}}(?:\bis\b|\bshould\ be\b|[:=]))"
_STATED = re.compile(
    rf"""
    (?:(?:based\ on\ my\ evaluation,|the|my|final|overall)\s+){{0,5}} (?<![A-Za-z])(?:grade|score)\b
    (?:[\s{_MARKS}]{{0,9}}\([^()\n]*\))?
    (?:
        {_IS}+ [\s{_MARKS}]* {_BOX}
        | {_IS}+ [ \t{_MARKS}]* ({_NUMBERS})
        | {_IS}* [\s{_MARKS}]* ({_NUMBERS}) (?=[{_MARKS}\])>.\ \t]*$)  # it ends its line: "1. First" is a list
    )
    | {_BOX}
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_GRADE_WORD = re.compile(r"[gG][rR][aA][dD][eE]|[sS][cC][oO][rR][eE]|\\[bB][oO][xX][eE][dD]")
LEAD = 100
"""Number of characters before the first grade word in which its sentence may begin ("Based on my evaluation, ...")."""


def parse_verification(text: str) -> ParsedVerification:
    r"""Parse a critique and its grade, from JSON or from free text.

    In free text the last labelled grade counts (``Grade: 0.5``, ``**Score:** 1/2``, DeepSeekMath-V2's ``… score should
    be: \boxed{0.5}``). A boxed grade takes precedence. Statements after it, and boxed ones directly before it, must
    not contradict it. Without a label, the box in the last line counts. Raises :class:`Unparsable` for any grade except
    0, 0.5 and 1, for two grades, for none, and for a grade without a critique.
    """
    if re.search(r"""["'](?:critique|grade)["']\s*:""", text):
        record, repaired, _ = parse_json(text, VerificationOutput)
        return ParsedVerification(record.critique, float(record.grade), repaired)
    stated = _deciding(text.rstrip(" \n\t\\])$*-`"))
    if not stated:
        raise Unparsable("no grade")
    grades = {grade_of(next(value for value in match.groups() if value is not None)) for match in stated}
    grade = grades.pop() if len(grades) == 1 else None
    if grade is None:
        raise Unparsable(f"not one of the grades 0, 0.5 and 1: {stated[-1][0][-60:]!r}")
    if not re.search(r"[^\W\d_]{2}", text[: stated[0].start()] + text[stated[-1].end() :]):
        raise Unparsable("a grade without a critique")
    return ParsedVerification(text.strip(), float(grade))


def _deciding(text: str) -> list[re.Match[str]]:
    """The statements of a grade that count, in order. They must all state the same grade."""
    first = _GRADE_WORD.search(text)  # the full pattern is slow, and most of a critique contains no grade
    stated = list(_STATED.finditer(text, max(0, first.start() - LEAD))) if first else []
    labelled = [match for match in stated if match[4] is None]
    if not labelled:
        return [match for match in stated if match.start() > text.rfind("\n")]
    boxed = [match for match in labelled if match[1] is not None and grade_of(match[1])]
    last = (boxed or labelled)[-1].start()
    line = text.rfind("\n", 0, last)
    for match in reversed(boxed[:-1]):
        if text[match.end() : last].strip(" \n\t.*$"):
            break
        last = match.start()  # adjacent boxes count together: a reply may copy the three lines of the prompt
    return [match for match in stated if match.start() >= last or (match in labelled and match.start() > line)]
