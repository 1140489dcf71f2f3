"""Finds the final answer in a text: the content of the last non-empty box, or of all boxes of one final list."""

from __future__ import annotations

import re

from tmas.answers.normalize import normalise

_BRACES = re.compile(r"\\(?:(?P<box>\\{0,2}(?:boxed|fbox)\s*\{)|.)|\{|\}", re.DOTALL)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s+(?P<content>[-+]?\d(?:[\d.,/]*[\d/])?|[A-Za-z](?=\s*(?:\$|\\[)\]])))")
_BETWEEN = re.compile(
    r"(?:[\s$,;]|\\[()\[\],;:! ]|\\q?quad|(?:\\text\s*\{\s*)?\b(?:and|or)\b(?:\s*\})?|[A-Za-z](?:_\{?\w\}?)?\s*=)*"
)
_MAX_BETWEEN = 60
"""Maximum number of characters between two boxes of one list."""
_NOT_BLANK = re.compile(r"\S")
_STATED = re.compile(r"answer\s*(?:is|:|=)[\s:*$]*(-?\d[\d,]*(?:\.\d+)?(?:/\d+)?)", re.IGNORECASE)


def extract_stated(text: str) -> str | None:
    """Return the boxed answer or, if there is none, the number in the last phrase such as "answer is 12".

    For models that are too small to write a box.
    """
    stated = _STATED.findall(text)
    return extract_boxed(text) or (stated[-1].rstrip(",") if stated else None)


def extract_boxed(text: str) -> str | None:
    r"""Return the content of the last balanced, non-empty ``\boxed{...}``, ``\fbox{...}`` or ``\boxed 5``, or None.

    Boxes with only commas, "and", "or" or a name such as ``x =`` between them are one list: ``\boxed{2} and \boxed{3}``
    is "2, 3". A repeated item counts once.
    """
    return last_boxes(text)[0] or None


def last_boxes(text: str) -> tuple[str, list[str]]:
    """Return the final answer (see :func:`extract_boxed`; empty if there is none) and the contents of its boxes."""
    boxes = _innermost_boxes(text)
    first = len(boxes) - 1
    while first > 0:
        between = text[boxes[first - 1][2] + 1 : boxes[first][0]]
        if len(between) > _MAX_BETWEEN or not between or not _BETWEEN.fullmatch(between):
            break
        first -= 1
    found = [text[begin:end].strip() for _, begin, end in boxes[max(first, 0) :]]
    items = list({normalise(item): item for item in reversed(found)}.values())[::-1]
    return ", ".join(items), items


def _innermost_boxes(text: str) -> list[tuple[int, int, int]]:
    """Return where each innermost box starts, and where its content starts and ends, in the order of the text."""
    opened: list[re.Match[str]] = []
    found = [(match.start(), match.start("content"), match.end()) for match in _BARE_BOX.finditer(text)]
    for token in _BRACES.finditer(text):
        if token[0].endswith("{") and (token["box"] or token[0] == "{"):
            opened.append(token)
        elif token[0] == "}" and opened:
            opening = opened.pop()
            if opening["box"] and _NOT_BLANK.search(text, opening.end(), token.start()):
                found.append((opening.start(), opening.end(), token.start()))
    found.sort()
    next_starts = [start for start, _, _ in found[1:]] + [len(text)] * bool(found)
    return [box for box, start in zip(found, next_starts, strict=True) if box[2] <= start]
