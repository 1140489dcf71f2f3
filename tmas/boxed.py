"""Finding the final answer in a text: the last box that holds something."""

from __future__ import annotations

import re

_BRACES = re.compile(r"(?P<box>\\{1,3}(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s+(?P<content>[-+]?\d[\d.,/]*|[A-Za-z](?=\s*(?:\$|\\[)\]])))")


_STATED = re.compile(r"answer\s*(?:is|:|=)[\s:*$]*(-?\d[\d,]*(?:\.\d+)?(?:/\d+)?)", re.IGNORECASE)


def extract_stated(text: str) -> str | None:
    """The boxed answer; without one, the number in the last "answer is 12": for models too small to write a box."""
    stated = _STATED.findall(text)
    return extract_boxed(text) or (stated[-1].rstrip(",") if stated else None)


def extract_boxed(text: str) -> str | None:
    r"""The content of the last balanced, non-empty ``\boxed{...}``, ``\fbox{...}`` or ``\boxed 5``; None without."""
    opened: list[re.Match[str]] = []
    found = [(match.start(), match["content"].rstrip(".,")) for match in _BARE_BOX.finditer(text)]
    for token in _BRACES.finditer(text):
        if token[0].endswith("{") and (token["box"] or token[0] == "{"):
            opened.append(token)
        elif token[0] == "}" and opened:
            start = opened.pop()
            if start["box"]:
                found.append((start.start(), text[start.end() : token.start()].strip()))
    return max(((start, content) for start, content in found if content), default=(0, None))[1]
