r"""The one near-duplicate test of the project: for the banks, the novelty reward and decontamination.

Two texts say the same if they share most of their words *and* everything that a small edit would turn into another
claim is the same in both: numbers, negations and opposites, and each relation, minus, slash or power with what stands
on either side of it. So "x = 2" and "x = 3", "a < b" and "b < a", "converges" and "does not converge" are never
duplicates, however long the text around them. The test errs on that side: a duplicate kept costs a line, a wrong merge
loses a finding. It does not see synonyms, nor which way round words stand ("A implies B").
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
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
_ORDERED = frozenset("=<>≤≥≠≡≅≈∼∈∉⊂⊆⊃⊇∣∤∥∦⊥→⇒⇔-/^")
_DECISIVE = frozenset("+±∓!%∄") | frozenset(
    """
    not no never none neither nor without even odd prime composite positive negative nonnegative non-negative zero
    nonzero non-zero true false valid invalid finite infinite bounded unbounded rational irrational possible impossible
    continuous discontinuous increasing decreasing increases decreases converges diverges converge diverge convergent
    divergent convex concave maximum minimum max min maximal minimal largest smallest greatest least most upper lower
    greater less left right necessary sufficient injective surjective linear nonlinear
    """.split()  # noqa: SIM905
)
_NOISE = frozenset("$(){}[],.;:_&'\"`*~?") | {
    r"\left", r"\right", r"\text", r"\textbf", r"\mathrm", r"\mathbf", r"\displaystyle", r"\quad", r"\qquad",
}  # fmt: skip


class _Profile(NamedTuple):
    tokens: tuple[str, ...]
    words: frozenset[str]
    decisive: Counter[str | tuple[str, ...]]


def tokens(text: str) -> frozenset[str]:
    r"""The set of LaTeX commands, lowercased words, variables, numbers and symbols in ``text``; one name a symbol
    (``\leq``, ``<=`` and ``≤`` are the same), without brackets, punctuation and layout."""
    return frozenset(_profile(text).tokens)


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection over size of the union, in [0, 1]; 1 for two empty sets."""
    return len(a & b) / len(a | b) if a or b else 1.0


def near_duplicate(a: str, b: str, threshold: float) -> bool:
    """Whether two texts make the same statement (see the module): Jaccard over words and commands of at least
    ``threshold``, and everything decisive equal, repetitions counted. Symmetric; every text duplicates itself."""
    first, second = _profile(a), _profile(b)
    return first.decisive == second.decisive and jaccard(first.words, second.words) >= threshold


@lru_cache(maxsize=1 << 14)
def _profile(text: str) -> _Profile:
    found = lex(text)
    padded = ("", *found, "")
    decisive: Counter[str | tuple[str, ...]] = Counter(t for t in found if t in _DECISIVE or t[0].isdigit())
    decisive.update(padded[i - 1 : i + 2] for i in range(1, len(padded) - 1) if padded[i] in _ORDERED)
    return _Profile(found, frozenset(t for t in found if t[0].isalpha() or t[0] == "\\"), decisive)


def lex(text: str) -> tuple[str, ...]:
    """The tokens of ``text`` in their order; see :func:`tokens`."""
    plain = unicodedata.normalize("NFKC", text.replace("’", "'"))
    plain = re.sub(r"n't\b|(?<=\bcan)not\b", " not", plain, flags=re.IGNORECASE)
    found = (m[0] if m[0][0] == "\\" or len(m[0]) == 1 else m[0].lower() for m in _TOKEN.finditer(plain))
    found = (_ONE_NAME.get(token, token) for token in found)
    return tuple(t for t in found if t not in _NOISE and (t[0] != "\\" or t[1:].isalpha()))
