"""The project's near-duplicate test, used by the banks, the novelty reward and decontamination.

Two texts are near-duplicates if they share most of their words *and* agree in everything that a small edit would turn
into another claim: numbers, negations, quantifiers and opposites, and each expression with its variables, order and
brackets. So "x = 2" and "x = 3", "2(n-1)" and "2n-1", "converges" and "does not converge" are never duplicates, however
long the text around them. The test prefers to keep duplicates: a kept duplicate costs a line, a wrong merge loses a
finding. It does not recognise synonyms, and it ignores the order of words ("A implies B").
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

_TOKEN = re.compile(
    r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|[^\W\d_]{2,}(?:-[^\W\d_]{2,})*|[^\W\d_]|<=>|=>|<=|>=|!=|->|[^\w\s]", re.DOTALL
)
_ONE_NAME = {
    r"\le": "≤", r"\leq": "≤", r"\leqslant": "≤", "<=": "≤", r"\lt": "<",
    r"\ge": "≥", r"\geq": "≥", r"\geqslant": "≥", ">=": "≥", r"\gt": ">",
    r"\ne": "≠", r"\neq": "≠", "!=": "≠", r"\equiv": "≡", r"\cong": "≅", r"\approx": "≈", r"\sim": "∼",
    r"\in": "∈", r"\notin": "∉", r"\subset": "⊂", r"\subseteq": "⊆", r"\supset": "⊃", r"\supseteq": "⊇",
    r"\mid": "∣", "|": "∣", r"\nmid": "∤", r"\parallel": "∥", r"\nparallel": "∦", r"\perp": "⊥",
    r"\to": "→", r"\rightarrow": "→", "->": "→", r"\implies": "⇒", r"\Rightarrow": "⇒", "=>": "⇒",
    r"\iff": "⇔", r"\Leftrightarrow": "⇔", "<=>": "⇔",
    r"\not": "not", r"\neg": "not", r"\lnot": "not", "¬": "not", r"\nexists": "∄",
    "−": "-", r"\pm": "±", r"\mp": "∓", r"\dfrac": r"\frac", r"\tfrac": r"\frac",
}  # fmt: skip
_DECISIVE = frozenset("+±∓!%∄") | frozenset(
    """
    not no never none neither nor without even odd prime composite positive negative nonnegative non-negative zero
    nonzero non-zero true false valid invalid finite infinite bounded unbounded rational irrational possible impossible
    continuous discontinuous increasing decreasing increases decreases converges diverges converge diverge convergent
    divergent convex concave maximum minimum max min maximal minimal largest smallest greatest least most upper lower
    greater less left right necessary sufficient injective surjective linear nonlinear
    some exists exist only sum product difference quotient ratio
    """.split()  # noqa: SIM905
)
_NOISE = frozenset("$(){}[],.;:_&'\"`*~?") | {
    r"\left", r"\right", r"\text", r"\textbf", r"\mathrm", r"\mathbf", r"\displaystyle", r"\quad", r"\qquad",
}  # fmt: skip
_ORDERED = frozenset("=<>≤≥≠≡≅≈∼∈∉⊂⊆⊃⊇∣∤∥∦⊥→⇒⇔-/^+")
_BRACKETS = {
    **dict.fromkeys(["(", "{", r"\{", r"\lbrace"], ("(",)), "[": ("(", "["),
    **dict.fromkeys([")", "}", r"\}", r"\rbrace"], (")",)), "]": ("]", ")"),
}  # fmt: skip
"""All brackets form groups. Square brackets are also kept in the group, because an interval may be open on one side."""
_BREAKS = frozenset(".,;:?&") | {r"\quad", r"\qquad", r"\ldots", r"\cdots", r"\dots", r"\\"}
_UNSEEN = frozenset("$_'\"`*~·×") | {r"\left", r"\right", r"\cdot", r"\times", r"\ast", r"\displaystyle"}
_WORDLIKE = frozenset({r"\text", r"\textbf", r"\mathrm", r"\mathbf"})
_WITHIN = frozenset(",;:")
_ARTICLES = frozenset("aAI")

Expression = tuple["str | Expression", ...]
"""Symbols in order. A bracketed part is an expression of its own."""


class _Profile(NamedTuple):
    tokens: tuple[str, ...]
    words: frozenset[str]
    decisive: Counter[str | Expression]


def tokens(text: str) -> frozenset[str]:
    r"""The set of LaTeX commands, lowercased words, variables, numbers and symbols in ``text``.

    Each symbol has one name (``\leq``, ``<=`` and ``≤`` are the same). Brackets, punctuation and layout are left out.
    """
    return frozenset(_profile(text).tokens)


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection over size of the union, in [0, 1]; 1 for two empty sets."""
    return len(a & b) / len(a | b) if a or b else 1.0


def near_duplicate(a: str, b: str, threshold: float) -> bool:
    """Whether two texts make the same statement; see the module's docstring.

    The Jaccard similarity of words and commands must be at least ``threshold``, and all decisive tokens must be equal,
    including repetitions. The test is symmetric, and every text is a duplicate of itself.
    """
    first, second = _profile(a), _profile(b)
    return first.decisive == second.decisive and jaccard(first.words, second.words) >= threshold


@lru_cache(maxsize=1 << 14)
def _profile(text: str) -> _Profile:
    found = lex(text)
    decisive: Counter[str | Expression] = Counter(t for t in found if t in _DECISIVE or t[0].isdigit())
    expressions = list(_expressions(text))
    decisive.update(one for one in expressions if len(one) > 1)
    decisive.update({one for one in expressions if len(one) == 1 and one[0] not in _ARTICLES})  # however often
    decisive.update(_beside_words(found))
    return _Profile(found, frozenset(t for t in found if t[0].isalpha() or t[0] == "\\"), decisive)


def lex(text: str) -> tuple[str, ...]:
    """The tokens of ``text`` in order; see :func:`tokens`."""
    return tuple(t for t in _raw(text) if t not in _NOISE and (t[0] != "\\" or t[1:].isalpha()))


def _raw(text: str) -> Iterator[str]:
    """All tokens, including layout and punctuation."""
    plain = unicodedata.normalize("NFKC", text.replace("’", "'"))
    plain = re.sub(r"n't\b|(?<=\bcan)not\b", " not", plain, flags=re.IGNORECASE)
    found = (m[0] if m[0][0] == "\\" or len(m[0]) == 1 else m[0].lower() for m in _TOKEN.finditer(plain))
    return (_ONE_NAME.get(token, token) for token in found)


def _beside_words(found: Sequence[str]) -> Iterator[Expression]:
    """Operators with a word as a neighbour, together with both neighbours, as in ``AB = CD`` or ``sin x < cos x``."""
    padded = ("", *found, "")
    for before, token, after in zip(padded, padded[1:], padded[2:], strict=False):
        if token in _ORDERED and any(len(side) > 1 and side[0].isalpha() for side in (before, after)):
            yield before, token, after


def _expressions(text: str) -> Iterator[Expression]:
    """The mathematical expressions between words and punctuation marks."""
    run: list[str] = []
    tokens = (*_raw(text), ".")
    for token, following in zip(tokens, (*tokens[1:], ""), strict=True):
        if token in _WITHIN and (
            run.count("(") > run.count(")") or ("".join(run[-1:]).isdigit() and following.isdigit())
        ):
            run.append(token)  # a tuple, a set, a ratio
        elif token == "'" and run and (run[-1][0].isalpha() or run[-1] in (")", token)):
            run.append(token)  # a derivative
        elif token in _BREAKS or token in _WORDLIKE or (len(token) > 1 and token[0].isalpha()):
            if any(t[0].isalnum() or t[0] == "\\" for t in run):
                yield _grouped(run)
            run = []
        elif token not in _UNSEEN and not (token[0] == "\\" and not token[1:].isalpha() and token not in _BRACKETS):
            run += _BRACKETS.get(token, (token,))


def _grouped(run: Sequence[str]) -> Expression:
    """Group a run by its brackets. Brackets around one symbol or the whole, and unclosed ones, change nothing."""
    open_: list[list[str | Expression]] = [[]]
    for token in run:
        if token == "(":
            open_.append([])
        elif token == ")" and len(open_) > 1:
            inner = open_.pop()
            open_[-1] += inner if len(inner) < 2 else [tuple(inner)]
        elif token != ")":
            open_[-1].append(token)
    whole = [part for level in open_ for part in level]
    return whole[0] if len(whole) == 1 and isinstance(whole[0], tuple) else tuple(whole)
