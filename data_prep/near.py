"""Finds near-duplicates among many texts. MinHash gives candidates, which the caller has to compare exactly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tmas.memory.similarity import lex

_PERMUTATIONS = 128
_ERROR_WEIGHTS = (0.2, 0.8)
"""Weights of false candidates and of missed ones. A false candidate only costs one exact comparison."""


class NearIndex:
    """An index of numbered sets of features. It finds sets whose Jaccard similarity may reach ``threshold``."""

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHashLSH

        self._lsh = MinHashLSH(threshold, _PERMUTATIONS, weights=_ERROR_WEIGHTS)

    def add(self, number: int, features: Iterable[str]) -> None:
        self._lsh.insert(number, _signature(features), check_duplication=False)

    def candidates(self, features: Iterable[str]) -> list[int]:
        """The numbers of the sets that may be similar to ``features``, in ascending order."""
        return sorted(self._lsh.query(_signature(features)))  # type: ignore[arg-type]  # the keys are our numbers


def _signature(features: Iterable[str]) -> Any:
    from datasketch import MinHash

    signature = MinHash(_PERMUTATIONS)
    signature.update_batch([feature.encode() for feature in features] or [b""])
    return signature


def token_ngrams(text: str, size: int) -> frozenset[str]:
    """The n-grams of ``size`` tokens in ``text``, in lower case. A shorter text gives one n-gram, the whole text."""
    tokens = lex(text.lower())
    return frozenset(" ".join(tokens[i : i + size]) for i in range(max(1, len(tokens) - size + 1)))
