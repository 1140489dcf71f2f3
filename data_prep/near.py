"""Finding texts that are nearly the same among many: candidates by MinHash, to be confirmed exactly by the caller."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tmas.memory.similarity import lex

_PERMUTATIONS = 128
_MISSES_COST_MORE = (0.2, 0.8)  # a false candidate costs one exact comparison, a missed one is never seen again


class NearIndex:
    """Sets of features by number; a query gives those that may reach ``threshold`` in Jaccard similarity."""

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHashLSH

        self._lsh = MinHashLSH(threshold, _PERMUTATIONS, weights=_MISSES_COST_MORE)

    def add(self, number: int, features: Iterable[str]) -> None:
        self._lsh.insert(number, _signature(features), check_duplication=False)

    def candidates(self, features: Iterable[str]) -> list[int]:
        """In ascending order."""
        return sorted(self._lsh.query(_signature(features)))  # type: ignore[arg-type]  # the keys are our numbers


def _signature(features: Iterable[str]) -> Any:
    from datasketch import MinHash

    signature = MinHash(_PERMUTATIONS)
    signature.update_batch([feature.encode() for feature in features] or [b""])
    return signature


def grams(text: str, size: int) -> frozenset[str]:
    """The runs of ``size`` tokens of ``text``, in lower case; of a shorter text, the whole of it."""
    tokens = lex(text.lower())
    return frozenset(" ".join(tokens[i : i + size]) for i in range(max(1, len(tokens) - size + 1)))
