"""Tests whether two texts say the same thing.

- :func:`same_statement` decides about memory: two texts are one statement if they are equal up to typesetting and
  function words. Any other word, and any change of order, makes another statement: "reducible" and "irreducible",
  "n divides a_n" and "a_n divides n", "for all x there is a y" and "there is a y for all x". Whether two wordings mean
  the same is left to the agent that maintains the bank.
- :func:`near_duplicate` is a fuzzy test, for uses where a missed copy is worse than a wrong match: copies of training
  problems, texts that a reward must not pay for, and the bank of RSE, whose published rule is fuzzy, too.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

_TOKEN = re.compile(
    r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|[^\W\d_]{2,}(?:-[^\W\d_]{2,})*|[^\W\d_]|<=>|=>|<=|>=|!=|->|(?<=[\w)}'])'|[^\w\s]",
    re.DOTALL,
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
_LAYOUT = frozenset("$_&\"`*~·×.,;?") | {
    r"\left", r"\right", r"\text", r"\textbf", r"\mathrm", r"\mathbf", r"\displaystyle", r"\quad", r"\qquad",
    r"\cdot", r"\times", r"\ast",
}  # fmt: skip
"""Tokens that do not change a statement. The comma is one of them, because order is compared anyway."""
_BRACKETS = {"{": "(", r"\{": "(", r"\lbrace": "(", "}": ")", r"\}": ")", r"\rbrace": ")"}
_FUNCTION_WORDS = frozenset("the an is are was were be been being this that these those of then so thus hence".split())  # noqa: SIM905
"""Words that carry no claim. "a" is not one of them: it can be a variable."""
_DECISIVE = frozenset(
    """
    not no never none neither nor without even odd prime composite positive negative nonnegative non-negative zero
    nonzero non-zero true false valid invalid finite infinite bounded unbounded rational irrational possible impossible
    continuous discontinuous increasing decreasing increases decreases converges diverges converge diverge convergent
    divergent convex concave maximum minimum max min maximal minimal largest smallest greatest least most upper lower
    greater less left right necessary sufficient injective surjective linear nonlinear
    some exists exist only sum product difference quotient ratio
    """.split()  # noqa: SIM905
)
"""Words that can turn a claim around. Near-duplicates must have the same ones."""
_NOISE = _LAYOUT | frozenset("(){}[]:'")


def tokens(text: str) -> frozenset[str]:
    r"""The set of LaTeX commands, lowercased words, variables, numbers and symbols in ``text``.

    Each symbol has one name (``\leq``, ``<=`` and ``≤`` are the same). Brackets, punctuation and layout are left out.
    """
    return frozenset(lex(text))


def lex(text: str) -> tuple[str, ...]:
    """The tokens of ``text`` in order; see :func:`tokens`."""
    return tuple(t for t in _raw(text) if t not in _NOISE and (t[0] != "\\" or t[1:].isalpha()))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection over size of the union, in [0, 1]; 1 for two empty sets."""
    return len(a & b) / len(a | b) if a or b else 1.0


def same_statement(a: str, b: str) -> bool:
    """Whether two texts are equal up to typesetting and function words. This is an equivalence relation."""
    return statement(a) == statement(b)


@lru_cache(maxsize=1 << 14)
def statement(text: str) -> tuple[str, ...]:
    """The tokens of ``text`` in order, without layout and function words, but with the brackets that group.

    Square brackets do not become round ones, because an interval may be open on one side. A round or curly bracket
    around one token groups nothing, so ``x^{2}`` is ``x^2``.
    """
    found: list[str] = []
    for token in _raw(text):
        token = _BRACKETS.get(token, token)
        if token in _LAYOUT or token in _FUNCTION_WORDS or (token[0] == "\\" and not token[1:].isalpha()):
            continue
        if token == ")" and len(found) > 1 and found[-2] == "(" and found[-1] != "(":
            found.pop(-2)  # "(" before a single token; its ")" is not added either
        else:
            found.append(token)
    return tuple(found)


def near_duplicate(a: str, b: str, threshold: float) -> bool:
    """Whether two texts share most of their words and have the same numbers, symbols and decisive words, in any order.

    The Jaccard similarity of words and commands must be at least ``threshold``. Numbers, variables, symbols, and words
    that turn a claim around ("not", "odd", "upper") must occur equally often. The test recognises neither synonyms nor
    other opposites, and it ignores order. It is symmetric, and every text is a duplicate of itself.
    """
    words, decisive = _bag(a)
    words_b, decisive_b = _bag(b)
    return decisive == decisive_b and jaccard(words, words_b) >= threshold


@lru_cache(maxsize=1 << 14)
def _bag(text: str) -> tuple[frozenset[str], Counter[str]]:
    """The set of words and commands, and the number of occurrences of all other tokens and of decisive words."""
    found = statement(text)
    words = {token for token in found if len(token) > 1 and (token[0].isalpha() or token[0] == "\\")}
    decisive = (token for token in found if token not in words or token in _DECISIVE)
    # "a", "A" and "I" are mostly words, not variables.
    return frozenset(words), Counter(token for token in decisive if token not in "aAI")


def _raw(text: str) -> Iterator[str]:
    """All tokens, including layout and punctuation."""
    plain = unicodedata.normalize("NFKC", text.replace("’", "'"))
    plain = re.sub(r"(\\[dt]?frac)(\d)(\d)", r"\1 \2 \3", plain)
    plain = re.sub(r"n't\b|(?<=\bcan)not\b", " not", plain, flags=re.IGNORECASE)
    found = (m[0] if m[0][0] == "\\" or len(m[0]) == 1 else m[0].lower() for m in _TOKEN.finditer(plain))
    return (_ONE_NAME.get(token, token) for token in found)
