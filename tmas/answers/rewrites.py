"""Rewrites the typesetting of an answer without changing its meaning, as another writer might set it.

``tmas gold-check`` applies each of them to every gold answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Rewrite = Callable[[str], str]


def _replacing(*pairs: tuple[str, str]) -> Rewrite:
    patterns = [(re.compile(pattern), replacement) for pattern, replacement in pairs]

    def rewrite(answer: str) -> str:
        for pattern, replacement in patterns:
            answer = pattern.sub(replacement, answer)
        return answer

    return rewrite


_NUMBER = re.compile(r"\$?(-?)(\d{1,3})((?:,\d{3})+|\d*)\$?")
_NO_DOLLARS = _replacing((r"(?<!\\)\$", ""))
_UNICODE = {
    r"\\pi": "π", r"\\infty": "∞", r"\\leq?": "≤", r"\\geq?": "≥", r"\\neq?": "≠", r"\\cdot": "·", r"\\times": "×",
    r"\\in": "∈", r"\\mathbb\{R\}": "ℝ", r"\\mathbb\{Z\}": "ℤ", r"\\mathbb\{N\}": "ℕ", r"\\varphi": "φ", r"\\pm": "±",
    r"\\l?dots": "…", r"\\alpha": "α", r"\\lfloor": "⌊", r"\\rfloor": "⌋", r"\\lceil": "⌈", r"\\rceil": "⌉",
    r"\\cup": "∪", r"\\emptyset": "∅",
}  # fmt: skip


def _thousands(separator: str) -> Rewrite:
    """Put ``separator`` between the thousands of a whole number of four digits or more."""

    def rewrite(answer: str) -> str:
        number = _NUMBER.fullmatch(answer.strip())
        digits = answer.strip(" $").replace(",", "")
        if number is None or len(digits.lstrip("-")) < 4:
            return answer
        return f"{int(digits):,}".replace(",", separator)

    return rewrite


def _as_equation(answer: str) -> str:
    return f"N = {answer.strip(' $')}" if _NUMBER.fullmatch(answer.strip()) else answer


def _listing(join: Callable[[list[str]], str]) -> Rewrite:
    """Join a plain list of numbers or expressions in another way."""

    def rewrite(answer: str) -> str:
        items = [item.strip() for item in _NO_DOLLARS(answer).rstrip(" .\n").split(", ")]
        plain = len(items) > 1 and not re.search(r"dots|underbrace|(?<![\\A-Za-z])[A-Za-z]{3}|[(\[]", answer)
        return join(items) if plain else answer

    return rewrite


def _words_in_text(answer: str) -> str:
    r"""Remove the dollars and put words into ``\text{}``, as needed in a box."""
    if answer.count("$") % 2 or "$" not in answer:
        return answer
    parts = re.split(r"(?<!\\)\$", answer)
    return "".join(part if i % 2 else re.sub(r"\S(?:.*\S)?", r"\\text{ \g<0> }", part) for i, part in enumerate(parts))


REWRITES: dict[str, Rewrite] = {
    "without dollars": _NO_DOLLARS,
    "in dollars": lambda answer: f"${_NO_DOLLARS(answer)}$" if re.search(r"[\\^_=]|\d", answer) else answer,
    "in \\( \\)": lambda answer: f"\\({_NO_DOLLARS(answer)}\\)",
    "in \\[ \\]": lambda answer: f"\\[\n{_NO_DOLLARS(answer)}\n\\]",
    "displaystyle": lambda answer: f"\\displaystyle {_NO_DOLLARS(answer)}",
    "a full stop": lambda answer: f"{answer.rstrip(' .')}.",
    "\\dfrac": _replacing((r"\\[td]?frac(?![a-z])", r"\\dfrac")),
    "\\tfrac": _replacing((r"\\[td]?frac(?![a-z])", r"\\tfrac")),
    "\\frac12": _replacing((r"\\frac\{(\d)\}\{(\d)\}", r"\\frac\1\2")),
    "a/b": _replacing((r"\\[td]?frac\{(\d+)\}\{(\d+)\}", r"(\1/\2)")),
    "\\left( \\right)": _replacing((r"(?<!\\left)\(", r"\\left("), (r"(?<!\\right)\)", r"\\right)")),
    "without \\left": _replacing((r"\\left\s*(?=[(\[|\\])", ""), (r"\\right\s*(?=[)\]|\\])", "")),
    "\\left\\{": _replacing((r"(?<!\\left)\\\{", r"\\left\\{"), (r"(?<!\\right)\\\}", r"\\right\\}")),
    "spaces": _replacing((r"(?<=[\w})\]])\s*([-+=<>])\s*(?=[\w\\({])", r" \1 ")),
    "no spaces": _replacing((r"(?<=[\w})\]])\s*([-+=<>])\s*(?=[\w\\({])", r"\1")),
    "spaces after commas": _replacing((r",\s*(?=[^\d\\!])", r",\\ "), (r"(?<=\D),\s*(?=\d)", r",\\ ")),
    "\\, and \\;": _replacing((r"(?<=\S) +(?=[-+=\\])", r"\\;")),
    "braces of one": _replacing((r"([_^])\{(\w)\}", r"\1\2")),
    "braces for one": _replacing((r"([_^])(\d|[a-z])", r"\1{\2}")),
    "\\sqrt2": _replacing((r"\\sqrt\{(\d)\}", r"\\sqrt\1")),
    "\\le, \\ge, \\ne": _replacing((r"\\(le|ge|ne)q(?![a-z])", r"\\\1")),
    "\\leq, \\geq": _replacing((r"\\(le|ge)(?![a-z])", r"\\\1q")),
    "\\leqslant": _replacing((r"\\(le|ge)q?(?![a-z])", r"\\\1qslant")),
    "\\cdot": _replacing((r"\\times(?![a-z])", r"\\cdot")),
    "\\times": _replacing((r"\\cdot(?![a-z])", r"\\times")),
    "\\cdots": _replacing((r"\\[lc]?dots(?![a-z])", r"\\cdots")),
    "\\dbinom": _replacing((r"\\binom(?![a-z])", r"\\dbinom")),
    "\\mathrm": _replacing((r"\\text\{([A-Za-z]+)\}", r"\\mathrm{\1}")),
    "\\textbf": lambda answer: f"\\textbf{{{answer}}}" if re.fullmatch(r"[A-Za-z ]+", answer) else answer,
    "words in \\text": _words_in_text,
    "a list turned round": _listing(lambda items: ", ".join(reversed(items))),
    "a list as a set": _listing(lambda items: f"\\{{{', '.join(items)}\\}}"),
    "a list with and": _listing(lambda items: r"\text{ and }".join([", ".join(items[:-1]), items[-1]])),
    "a list with or": _listing(r" \text{ or } ".join),
    "a small letter first": lambda answer: re.sub("^[A-Z](?=[a-z]{2})", lambda match: match[0].lower(), answer),
    "a capital first": lambda answer: answer.capitalize() if re.fullmatch(r"[a-z]{2}[a-z ]*", answer) else answer,
    "Unicode": _replacing(*((f"{name}(?![a-z])", sign) for name, sign in _UNICODE.items())),
    "Unicode minus": _replacing((r"(?<![a-z])-", "−")),
    "1,000": _thousands(","),
    "1{,}000": _thousands("{,}"),
    "1\\,000": _thousands(r"\,"),
    "1 000": _thousands(" "),
    "5.0": lambda answer: f"{answer.strip(' $')}.0" if re.fullmatch(r"\$?-?\d+\$?", answer.strip()) else answer,
    "N = 5": _as_equation,
}  # fmt: skip
"""By name. A rewrite that does not apply to an answer returns it unchanged."""


def rewrites(answer: str) -> dict[str, str]:
    """Return the rewrites that change ``answer``, by name."""
    written = {name: rewrite(answer) for name, rewrite in REWRITES.items()}
    return {name: other for name, other in written.items() if other != answer}
