"""Finds the mathematical symbols of a text, and recognises texts that differ only in the names of their letters.

A copy with other letters ("a^2 + b^2" for "x^2 + y^2") is still a copy, and so is one with words in between.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tmas.memory.similarity import near_duplicate

_GREEK = frozenset(
    """
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi rho sigma tau
    upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega
    """.split()  # noqa: SIM905
)
_SHORT_WORDS = frozenset(
    """
    ad ah am an as at be by do go he if in is it me my no of on or so to up us we all and any are but can far few for
    get had has her him his how its let may mod not now odd off one our out put say see set sin sum tan the ten too two
    use via was way who why yes yet you gcd lcm max min log exp cos det dim ker inf sup lim
    """.split()  # noqa: SIM905
)
"""Words that could be read as products of letters."""
_ARTICLE = re.compile(r"(?<![A-Za-z\\])[aAI](?=\s+(?!(?:and|or|is|then|divides)\b)[A-Za-z]{2})")
_LETTER = re.compile(rf"\\(?:{'|'.join(sorted(_GREEK))})(?![A-Za-z])|(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
_PRODUCT = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{2,3}(?![A-Za-z])")
_OPERATORS = frozenset("=<>≤≥≠≡≅≈∼∈∉⊂⊆⊃⊇∣∤+*^→⇒⇔")


class Shape(NamedTuple):
    """A run of consecutive symbols in a text.

    ``pattern``: the symbols, with a number in place of each letter. ``letters``: the letters by their numbers.
    ``first`` and ``last``: positions of the first and the last symbol among the tokens.
    """

    pattern: tuple[str, ...]
    letters: tuple[str, ...]
    first: int
    last: int


def spelled(text: str) -> str:
    """Return ``text`` without articles and with products of letters as single letters: "2xy" becomes "2x y".

    A product is only split if each of its letters also occurs alone. In the result, every single letter is a variable.
    """
    text = _ARTICLE.sub("", text)
    alone = {*_LETTER.findall(text)}
    return _PRODUCT.sub(
        lambda m: " ".join(m[0]) if alone.issuperset(m[0]) and m[0].lower() not in _SHORT_WORDS else m[0], text
    )


def is_mathematical(token: str) -> bool:
    """Whether a token of a :func:`spelled` text is a number, a LaTeX command, a relation, an operator or a variable."""
    return _is_letter(token) or token[0].isdigit() or token[0] == "\\" or token in _OPERATORS


def names(tokens: Sequence[str]) -> frozenset[str]:
    """The numbers and letters among the tokens, without numeric exponents, which many unrelated texts share."""
    pairs = zip(("", *tokens), tokens, strict=False)
    return frozenset(t for before, t in pairs if _is_letter(t) or (t[0].isdigit() and before != "^"))


def symbols(tokens: Sequence[str]) -> list[int]:
    """Positions of the mathematical tokens and of the signs ``-``, ``/`` and ``!``.

    Equality signs are left out, because words may take their place.
    """
    return [n for n, token in enumerate(tokens) if token != "=" and (is_mathematical(token) or token in "-/!")]


def shapes(tokens: Sequence[str], size: int) -> Iterator[Shape]:
    """Yield every run of ``size`` symbols. Other tokens between them are ignored."""
    places = symbols(tokens)
    for start in range(len(places) - size + 1):
        run, letters = places[start : start + size], dict[str, str]()
        pattern = tuple(
            letters.setdefault(token, f"letter {len(letters)}") if _is_letter(token) else token
            for token in (tokens[place] for place in run)
        )
        yield Shape(pattern, tuple(letters), run[0], run[-1])


def only_renamed(copy: Sequence[str], original: Sequence[str], problem: frozenset[str]) -> bool:
    """Whether the letters ``copy`` are only other names for the letters ``original``.

    They are not if a letter of the ``problem`` takes the place of a letter that is not in the problem: then a general
    statement was applied to the problem.
    """
    return all(c == o or c not in problem or o in problem for c, o in zip(copy, original, strict=True))


def near_duplicate_renamed(text: str, known: str, threshold: float, problem: frozenset[str]) -> bool:
    """:func:`near_duplicate`, where the letters of ``text`` that are not in the ``problem`` may have other names."""
    text, known = spelled(text), spelled(known)
    kept = problem.intersection(_LETTER.findall(text))
    return near_duplicate(_anonymous(text, kept), _anonymous(known, kept), threshold)


def _anonymous(text: str, kept: frozenset[str]) -> str:
    """Replace each letter, except those in ``kept``, by the number of its occurrences."""
    count = Counter(_LETTER.findall(text))
    return _LETTER.sub(lambda match: match[0] if match[0] in kept else f"#{count[match[0]]} ", text)


def _is_letter(token: str) -> bool:
    return token.isalpha() if len(token) == 1 else token[0] == "\\" and token[1:] in _GREEK
