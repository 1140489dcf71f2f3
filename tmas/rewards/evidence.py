"""Checks the judge's quotes: whether a quote occurs in the solution, and whether it is the solution's own work."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

from tmas.memory.similarity import lex, near_duplicate
from tmas.rewards.letters import is_mathematical, names, near_duplicate_renamed, only_renamed, shapes, spelled, symbols
from tmas.rewards.plain import plain
from tmas.rewards.settings import EvidenceSettings

_ITEM_ID = re.compile(r"\b[EG]\d+\b")  # an item id is not mathematics
_MIN_QUOTE_TOKENS = 3


class Given(NamedTuple):
    """What the policy saw, in a form that quotes can be compared with.

    ``runs``: all runs of ``copied_run`` tokens. ``shapes``: maps the pattern of each run of symbols
    (:class:`~tmas.rewards.letters.Shape`) to the letters of the runs that have this pattern. ``names``: all numbers
    and letters.
    """

    runs: frozenset[tuple[str, ...]]
    shapes: Mapping[tuple[str, ...], set[tuple[str, ...]]]
    names: frozenset[str]


class Evidence:
    """Checks quotes against one text: a final solution, or in the reward of verifications a candidate or a critique.

    ``given``: what the policy saw (problem, bank, earlier attempts). ``problem``: the problem alone. Its letters have a
    fixed meaning, while a copy may change other letters. Quotes are compared by tokens, so spacing, typesetting and
    punctuation do not matter.
    """

    def __init__(self, solution: str, given: Iterable[str], settings: EvidenceSettings, problem: str = "") -> None:
        self._solution, self.settings = solution, settings
        self._given = _index(tuple(given), settings.copied_run, settings.copied_symbols)
        self._problem = names(lex(spelled(plain(problem))))

    def found(self, quote: str) -> bool:
        """Whether the quote occurs in the solution. Quotes of fewer than three tokens do not count."""
        tokens = lex(plain(quote))
        return len(tokens) >= _MIN_QUOTE_TOKENS and _joined(tokens) in self._text

    def own_work(self, quotes: Iterable[str]) -> int:
        """Count the quotes that occur in the solution as its own work. A step that is quoted several times counts once,
        also if the quotes overlap, or if the solution repeats it in other letters."""
        own = {_joined(lex(quote)): quote for quote in map(plain, quotes) if self._is_own(quote, self._given)}
        distinct: list[str] = []
        for joined in sorted(
            (joined for joined in own if joined in self._text), key=lambda joined: (-len(joined), joined)
        ):
            counted = _index(tuple(distinct), self.settings.copied_run, self.settings.copied_symbols)
            if self._is_own(own[joined], counted):
                distinct.append(joined)
        return self._count_connected(distinct) if self.settings.connected else len(distinct)

    def repeats(self, text: str, known: str, similarity: float) -> bool:
        """Whether ``text`` nearly duplicates ``known``, with the same or with other letters."""
        text, known = plain(text), plain(known)
        return near_duplicate(text, known, similarity) or near_duplicate_renamed(text, known, similarity, self._problem)

    def _is_own(self, quote: str, given: Given) -> bool:
        """Whether enough is left of the quote without the parts that are copied from ``given``."""
        tokens = lex(spelled(_ITEM_ID.sub(" ", quote)))
        copied = self._copied_runs(tokens, given) | self._copied_symbols(tokens, given)
        own = [token for position, token in enumerate(tokens) if position not in copied]
        return len(own) >= self.settings.min_tokens and sum(map(is_mathematical, own)) >= self.settings.min_symbols

    def _copied_runs(self, tokens: Sequence[str], given: Given) -> set[int]:
        """Positions of the tokens in runs that were given."""
        size = self.settings.copied_run
        starts = [start for start, run in enumerate(_runs(tokens, size)) if run in given.runs]
        return {start + offset for start in starts for offset in range(size)}

    def _copied_symbols(self, tokens: Sequence[str], given: Given) -> set[int]:
        """Positions of the tokens in runs of symbols that were given, with these or other letters."""
        copied = set[int]()
        for size in {len(pattern) for pattern in given.shapes}:
            for shape in shapes(tokens, size):
                originals = given.shapes.get(shape.pattern, ())
                if any(only_renamed(shape.letters, letters, self._problem) for letters in originals):
                    copied.update(range(shape.first, shape.last + 1))
        return copied

    def _count_connected(self, quotes: Sequence[str]) -> int:
        """Count the quotes that the answer can depend on.

        They share a number or a letter with what was given, with the solution outside the quotes, or with a quote that
        does. A quote without numbers and letters, as some in geometry, cannot be tested and counts.
        """
        rest = self._text
        for quote in quotes:
            rest = rest.replace(quote, " ")
        known = self._given.names | names(lex(spelled(rest)))
        unconnected = [names(lex(spelled(quote))) for quote in quotes]
        while joined := [found for found in unconnected if not found or found & known]:
            known = known.union(*joined)
            unconnected = [found for found in unconnected if found not in joined]
        return len(quotes) - len(unconnected)

    @cached_property
    def _text(self) -> str:
        return _joined(lex(plain(self._solution)))


@lru_cache(maxsize=16)  # the responses to one prompt are compared with the same texts
def _index(given: tuple[str, ...], copied_run: int, copied_symbols: int) -> Given:
    """Index ``given``. Runs of symbols have ``copied_symbols`` symbols, or all symbols of a text with fewer."""
    texts = [lex(spelled(plain(text))) for text in given]
    patterns = defaultdict[tuple[str, ...], set[tuple[str, ...]]](set)
    for tokens in texts:
        size = min(copied_symbols, len(symbols(tokens)))
        if size >= copied_run:  # a shorter run may be the same by chance
            for shape in shapes(tokens, size):
                patterns[shape.pattern].add(shape.letters)
    runs = frozenset(run for tokens in texts for run in _runs(tokens, copied_run))
    return Given(runs, patterns, frozenset[str]().union(*map(names, texts)))


def _joined(tokens: Sequence[str]) -> str:
    return f" {' '.join(tokens)} "


def _runs(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)]
