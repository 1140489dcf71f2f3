"""Whether a problem stands in a benchmark: by the benchmark's n-grams that it repeats, or by MinHash as a whole."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from data_prep.near import NearIndex, grams
from tmas.memory.similarity import jaccard, lex
from tmas.problems.loader import ProblemFields, load_problems
from tmas.records import Record
from tmas.settings import Settings

_SHORTEST = 3
"""Tokens of a benchmark problem that can be told from how many others begin."""


class Benchmark(Settings):
    """One benchmark whose problems are removed from the pool."""

    files: tuple[Path, ...] = Field(
        default=(), description="Files of the benchmark. Empty: the pool is not checked against this benchmark."
    )
    fields: ProblemFields = Field(default=ProblemFields(), description="Names of the columns in the files.")


class DecontaminationSettings(Settings):
    """When a problem counts as a copy of a benchmark problem.

    A share of the n-grams decides, not a single n-gram: many problems share phrases such as "where m and n are
    relatively prime positive integers".
    """

    ngram: int = Field(default=8, ge=1, description="Length of an n-gram in tokens.")
    ngram_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of a benchmark problem's n-grams at which a problem counts as a copy of it. A benchmark"
        " problem shorter than one n-gram counts as copied where a problem begins or ends with it.",
    )
    shingle: int = Field(default=3, ge=1, description="Length of a MinHash shingle in tokens.")
    similarity: float = Field(
        default=0.6, gt=0, le=1, description="Jaccard similarity of shingles at which two problems count as the same."
    )


class Match(Record):
    """What a problem was found to repeat, and how much of it."""

    found_in: str
    problem_id: str
    question: str
    answer: str | None
    by: Literal["ngrams", "minhash", "text"]
    similarity: float


class _Known(NamedTuple):
    benchmark: str
    problem_id: str
    question: str
    answer: str | None
    ngrams: int
    shingles: frozenset[str]


class Benchmarks:
    """The problems of all benchmarks, to be looked up by similar text. ``skipped``: rows that cannot be read.

    Raises :class:`~tmas.problems.loader.ProblemFileError` for a file that cannot be read or holds no problem.
    """

    def __init__(self, benchmarks: Mapping[str, Benchmark], settings: DecontaminationSettings) -> None:
        self.settings = settings
        self.sizes: dict[str, int] = {}
        self.skipped: list[str] = []
        self._known: list[_Known] = []
        self._ngrams: defaultdict[str, list[int]] = defaultdict(list)
        self._short: set[int] = set()
        self._index = NearIndex(settings.similarity)
        for name, benchmark in benchmarks.items():
            before = len(self._known)
            for file in benchmark.files:
                loaded = load_problems(file, benchmark.fields, on_bad="skip")
                self.skipped += loaded.skipped
                for problem in loaded.problems:
                    self._add(name, problem.problem_id, problem.question, problem.answer)
            self.sizes[name] = len(self._known) - before

    def _add(self, benchmark: str, problem_id: str, question: str, answer: str | None) -> None:
        number = len(self._known)
        ngrams, shingles = grams(question, self.settings.ngram), grams(question, self.settings.shingle)
        self._known.append(_Known(benchmark, problem_id, question, answer, len(ngrams), shingles))
        for ngram in ngrams:
            self._ngrams[ngram].append(number)
        if _SHORTEST <= (length := len(lex(question.lower()))) < self.settings.ngram:
            self._short.add(length)
        self._index.add(number, shingles)

    def match(self, question: str) -> Match | None:
        """The benchmark problem that ``question`` repeats most, None where it repeats none."""
        return max([*self._by_ngrams(question), *self._by_minhash(question)], key=lambda m: m.similarity, default=None)

    def _by_ngrams(self, question: str) -> Iterable[Match]:
        looked_up = grams(question, self.settings.ngram) | self._edges(question)
        shared = Counter(n for ngram in looked_up for n in self._ngrams.get(ngram, ()))
        for number, count in shared.items():
            share = count / self._known[number].ngrams
            if share >= self.settings.ngram_share:
                yield self._found(number, "ngrams", share)

    def _edges(self, question: str) -> frozenset[str]:
        """How ``question`` begins and ends, in the lengths that short benchmark problems have."""
        tokens = lex(question.lower())
        return frozenset(" ".join(edge) for size in self._short for edge in (tokens[:size], tokens[-size:]))

    def _by_minhash(self, question: str) -> Iterable[Match]:
        shingles = grams(question, self.settings.shingle)
        for number in self._index.candidates(shingles):
            similarity = jaccard(shingles, self._known[number].shingles)
            if similarity >= self.settings.similarity:
                yield self._found(number, "minhash", similarity)

    def _found(self, number: int, by: Literal["ngrams", "minhash"], similarity: float) -> Match:
        known = self._known[number]
        return Match(
            found_in=known.benchmark,
            problem_id=known.problem_id,
            question=known.question,
            answer=known.answer,
            by=by,
            similarity=round(similarity, 3),
        )
