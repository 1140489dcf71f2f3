"""Finds the final answer in a text: the content of the last non-empty box."""

from __future__ import annotations

import re

_BRACES = re.compile(r"\\(?:(?P<box>\\{0,2}(?:boxed|fbox)\s*\{)|.)|\{|\}", re.DOTALL)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s+(?P<content>[-+]?\d(?:[\d.,/]*[\d/])?|[A-Za-z](?=\s*(?:\$|\\[)\]])))")
_NOT_BLANK = re.compile(r"\S")
_STATED = re.compile(r"answer\s*(?:is|:|=)[\s:*$]*(-?\d[\d,]*(?:\.\d+)?(?:/\d+)?)", re.IGNORECASE)


def extract_stated(text: str) -> str | None:
    """Return the boxed answer or else the number in the last "answer is 12". For models too small to write a box."""
    stated = _STATED.findall(text)
    return extract_boxed(text) or (stated[-1].rstrip(",") if stated else None)


def extract_boxed(text: str) -> str | None:
    r"""Return the content of the last balanced, non-empty ``\boxed{...}``, ``\fbox{...}`` or ``\boxed 5``, or None."""
    return next(reversed(all_boxed(text)), None)


def all_boxed(text: str) -> list[str]:
    """Return the contents of all such boxes, in order of appearance. Of nested boxes only the innermost counts."""
    opened: list[re.Match[str]] = []
    found = [(match.start(), match.start("content"), match.end()) for match in _BARE_BOX.finditer(text)]
    for token in _BRACES.finditer(text):
        if token[0].endswith("{") and (token["box"] or token[0] == "{"):
            opened.append(token)
        elif token[0] == "}" and opened:
            start = opened.pop()
            if start["box"] and _NOT_BLANK.search(text, start.end(), token.start()):
                found.append((start.start(), start.end(), token.start()))
    found.sort()
    next_starts = [start for start, _, _ in found[1:]] + [len(text)] * bool(found)
    inner = ((begin, end) for (_, begin, end), start in zip(found, next_starts, strict=True) if end <= start)
    return [text[begin:end].strip() for begin, end in inner]
