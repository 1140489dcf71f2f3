"""Normalises answers: removes differences of typesetting that do not change the meaning."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

_SIGNS = str.maketrans({
    "−": "-", "×": r"\times ", "·": r"\cdot ", "∙": r"\cdot ", "÷": r"\div ", "±": r"\pm ", "∓": r"\mp ",
    "≤": r"\leq ", "⩽": r"\leq ", "≥": r"\geq ", "⩾": r"\geq ", "≠": r"\neq ", "≡": r"\equiv ", "≈": r"\approx ",
    "∈": r"\in ", "∉": r"\notin ", "⊂": r"\subset ", "⊆": r"\subseteq ", "∪": r"\cup ", "∩": r"\cap ",
    "∅": r"\emptyset ", "∞": r"\infty ", "…": r"\dots ", "⋯": r"\dots ", "→": r"\to ", "∣": r"\mid ",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "°": r"^\circ ", "′": "'",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "ε": r"\varepsilon ", "θ": r"\theta ",
    "λ": r"\lambda ", "μ": r"\mu ", "π": r"\pi ", "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ", "φ": r"\varphi ",
    "ϕ": r"\phi ", "ω": r"\omega ", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "¼": r"\frac{1}{4}",
})  # fmt: skip
_RAISED, _LOWERED, _PLAIN = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "₀₁₂₃₄₅₆₇₈₉₋₊ₙ", "0123456789-+n"
_TO_PLAIN = str.maketrans(_RAISED + _LOWERED, _PLAIN * 2)

_FONTS = "text|textrm|textbf|textit|textsf|textnormal|mathrm|mathbf|mathit|mathsf|mbox|boldsymbol"
_WORDS = "All|Any|Both|Each|Even|Every|False|For|If|Infinite|No|None|Not|Odd|Only|Prime|Real|Such|The|There|True|Yes"
_Replacement = str | Callable[[re.Match[str]], str]
_REWRITES: list[tuple[re.Pattern[str], _Replacement]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # other notations for the same sign
        (rf"[{_RAISED}]+", lambda match: f"^{{{match[0].translate(_TO_PLAIN)}}}"),
        (rf"[{_LOWERED}]+", lambda match: f"_{{{match[0].translate(_TO_PLAIN)}}}"),
        (r"√\s*(?:\(([^()]*)\)|(\d+|[A-Za-z]))", r"\\sqrt{\1\2}"),
        (r"\\(?:le|leqslant|leqq)(?![A-Za-z])", r"\\leq"),
        (r"\\(?:ge|geqslant|geqq)(?![A-Za-z])", r"\\geq"),
        (r"\\ne(?![A-Za-z])", r"\\neq"),
        (r"\\(?:[lc]dots|dots[cbmio])(?![A-Za-z])", r"\\dots"),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset"),
        (r"\\rightarrow(?![A-Za-z])", r"\\to"),
        (r"\\([lr])brace(?![A-Za-z])", lambda match: r"\{" if match[1] == "l" else r"\}"),
        (r"\\[dt](frac|binom)(?![A-Za-z])", r"\\\1"),
        (r"\\?%|(?<=[\d\s])percent\b", "%"),
        # a whole number in groups of three: 1{,}000, 1\,000 (the last rule handles "1 000"; "1, 000" is a list)
        (
            r"(?<![\d.,])\d{1,3}(?:(?:\\[,;:! ]|~|\{,\}|,\\!)\d{3})+(?!\d)",
            lambda match: re.sub(r"\D", "", match[0]),
        ),
        # commands that only change position and size
        (r"\\?\$|(?<!\\)\\[()\[\]]|~|(?<!\\)\\(?:[,;:!> ]|q?quad(?![A-Za-z]))", " "),
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z.])", ""),
        (r"\\(?:display|text|script)style(?![A-Za-z])", " "),
        (rf"\\(?:{_FONTS})\s*\{{([^{{}}]*)\}}", r" \1 "),
        (r"(?<!\s)\s+(?=[_^])", ""),
        # braces that TeX does not need
        (r"\\mathbb\s*([A-Z])(?![A-Za-z])", r"\\mathbb{\1}"),
        (r"([_^])\s*(-?\d+|[A-Za-z])", r"\1{\2}"),
        (r"\\frac\s*([\dA-Za-z])\s*([\dA-Za-z])(?!\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)(?=\s*\{)", r"\\frac{\1}"),
        (r"(\\frac\s*\{[^{}]*\})\s*(\d)(?!\d)", r"\1{\2}"),
        (r"\\binom\s*(\d)\s*(\d)(?!\d)", r"\\binom{\1}{\2}"),
        (r"\\sqrt\s*([\dA-Za-z])(?![\dA-Za-z])", r"\\sqrt{\1}"),
        # lower case for the first letter of a word that cannot be a product of letters
        (
            rf"(?<![A-Za-z\\])[A-Z](?=[a-z]{{5,}})|(?<![A-Za-z\\])(?:{_WORDS})(?![A-Za-z])",
            lambda match: match[0].lower(),
        ),
        # spaces, except between digits or letters ("1 2" is not "12") and in "1, 234"
        (r"\s+", " "),
        (r" (?![\w.])|(?<![\w,.]) |(?<=,) (?!\d{3}(?!\d))|(?<=[^\d],) ", ""),
        (r"\s*\.$", ""),
        # TeX shows no space between digits in mathematics: alone in a box, "1 000" is 1000
        (r"^-?\d{1,3}(?: \d{3})+$", lambda match: match[0].replace(" ", "")),
    )
]


@lru_cache(maxsize=4096)  # after each iteration, all answers of a problem are compared again
def normalise(answer: str) -> str:
    """Return ``answer`` without typesetting that cannot change its meaning: dollars, spacing, fonts, a final full stop.

    Of several commands or characters for one sign, only one is used. Every superscript and subscript gets braces.
    """
    answer = answer.translate(_SIGNS)
    for pattern, replacement in _REWRITES:
        answer = pattern.sub(replacement, answer)
    return answer.strip()
