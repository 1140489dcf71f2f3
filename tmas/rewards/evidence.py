"""Checks the judge's quotes: whether a quote occurs in the solution, and whether it is the solution's own work."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property

from tmas.memory.similarity import lex
from tmas.rewards.plain import plain
from tmas.rewards.settings import EvidenceSettings

_ITEM_ID = re.compile(r"\b[EG]\d+\b")  # an item id is not mathematics
_SHORTEST_QUOTE = 3
_LETTERS_THAT_ARE_WORDS = frozenset("aAI")
_OPERATORS = frozenset("=<>≤≥≠≡≅≈∼∈∉⊂⊆⊃⊇∣∤+*^→⇒⇔")


class Evidence:
    """Checks quotes against one final solution. ``given``: what the policy saw (problem, bank, earlier attempts).

    Quotes are compared by tokens, so spacing, typesetting and punctuation do not matter.
    """

    def __init__(self, solution: str, given: Iterable[str], settings: EvidenceSettings) -> None:
        self._solution, self._given, self.settings = solution, tuple(given), settings

    def found(self, quote: str) -> bool:
        """Whether the quote occurs in the solution. Quotes of fewer than three tokens do not count."""
        tokens = lex(plain(quote))
        return len(tokens) >= _SHORTEST_QUOTE and _joined(tokens) in self._text

    def own_work(self, quotes: Iterable[str]) -> int:
        """Count the quotes that occur in the solution as its own work, without those contained in another."""
        shown = {_joined(lex(quote)) for quote in map(plain, quotes) if self._is_own(quote)}
        distinct = sorted((quote for quote in shown if quote in self._text), key=len, reverse=True)
        return sum(not any(quote in longer for longer in distinct[:i]) for i, quote in enumerate(distinct))

    def _is_own(self, quote: str) -> bool:
        tokens, size = lex(_ITEM_ID.sub(" ", quote)), self.settings.copied_run
        starts = [start for start, run in enumerate(_runs(tokens, size)) if run in self._given_runs]
        copied = {start + offset for start in starts for offset in range(size)}
        own = [token for position, token in enumerate(tokens) if position not in copied]
        symbols = sum(map(_is_mathematical, own))
        return len(own) >= self.settings.min_tokens and symbols >= self.settings.min_symbols

    @cached_property
    def _text(self) -> str:
        return _joined(lex(plain(self._solution)))

    @cached_property
    def _given_runs(self) -> frozenset[tuple[str, ...]]:
        return frozenset(run for text in self._given for run in _runs(lex(plain(text)), self.settings.copied_run))


def _joined(tokens: Sequence[str]) -> str:
    return f" {' '.join(tokens)} "


def _runs(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)]


def _is_mathematical(token: str) -> bool:
    """A number, a LaTeX command, a relation or operator, or a variable."""
    variable = len(token) == 1 and token.isalpha() and token not in _LETTERS_THAT_ARE_WORDS
    return variable or token[0].isdigit() or token[0] == "\\" or token in _OPERATORS
