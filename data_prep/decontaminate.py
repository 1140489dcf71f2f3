"""Decides whether a problem is a copy of a benchmark problem, by shared n-grams and by MinHash similarity."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from pydantic import Field

from tmas.data_prep.near import NearIndex, token_ngrams
from tmas.memory.similarity import jaccard, lex
from tmas.problems.loader import ProblemFields, ProblemFileError, load_problems
from tmas.records import Record
from tmas.settings import Paths, Settings

_MIN_TOKENS = 3
"""Minimum length in tokens of a benchmark problem that is looked for at the beginning and the end of problems. Too many
problems begin with the same one or two tokens."""


class Benchmark(Settings):
    """One benchmark whose problems are removed from the pool."""

    files: Paths = Field(
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
    """The problem that another problem repeats, and how similar they are.

    ``found_in``: name of the benchmark, or ``pool``. ``by``: the test that found it. ``similarity``: from 0 to 1.
    """

    found_in: str
    problem_id: str
    question: str
    answer: str | None
    by: Literal["ngrams", "minhash", "text"]
    similarity: float


class _BenchmarkProblem(NamedTuple):
    """A problem of a benchmark. ``ngrams``: number of its n-grams."""

    benchmark: str
    problem_id: str
    question: str
    answer: str | None
    ngrams: int
    shingles: frozenset[str]


class Benchmarks:
    """An index of the problems of all benchmarks that finds copies of them.

    ``sizes``: number of problems by benchmark. ``skipped``: messages about rows that cannot be read. Raises
    :class:`~tmas.problems.loader.ProblemFileError` for a file that cannot be read or has no problem.
    """

    def __init__(self, benchmarks: Mapping[str, Benchmark], settings: DecontaminationSettings) -> None:
        self.settings = settings
        self.sizes: dict[str, int] = {}
        self.skipped: list[str] = []
        self._problems: list[_BenchmarkProblem] = []
        self._ngrams: defaultdict[str, list[int]] = defaultdict(list)
        self._short_lengths: set[int] = set()
        self._index = NearIndex(settings.similarity)
        for name, benchmark in benchmarks.items():
            before = len(self._problems)
            for file in benchmark.files:
                if not file.exists():
                    remedy = (
                        f"conf/data/{name}.yaml says where it comes from; benchmarks_dir is the folder of all"
                        f" benchmarks. benchmarks.{name}.files=[] leaves this one out: the pool may then contain it."
                    )
                    raise ProblemFileError([f"{file}: the file of the benchmark {name} is missing"], remedy)
                loaded = load_problems(file, benchmark.fields, on_bad="skip")
                self.skipped += loaded.skipped
                for problem in loaded.problems:
                    self._add(name, problem.problem_id, problem.question, problem.answer)
            self.sizes[name] = len(self._problems) - before

    def _add(self, benchmark: str, problem_id: str, question: str, answer: str | None) -> None:
        number = len(self._problems)
        ngrams, shingles = token_ngrams(question, self.settings.ngram), token_ngrams(question, self.settings.shingle)
        self._problems.append(_BenchmarkProblem(benchmark, problem_id, question, answer, len(ngrams), shingles))
        for ngram in ngrams:
            self._ngrams[ngram].append(number)
        if _MIN_TOKENS <= (length := len(lex(question.lower()))) < self.settings.ngram:
            self._short_lengths.add(length)
        self._index.add(number, shingles)

    def match(self, question: str) -> Match | None:
        """The benchmark problem that is most similar to ``question``. None if ``question`` is no copy."""
        return max([*self._by_ngrams(question), *self._by_minhash(question)], key=lambda m: m.similarity, default=None)

    def _by_ngrams(self, question: str) -> Iterable[Match]:
        looked_up = token_ngrams(question, self.settings.ngram) | self._ends(question)
        shared = Counter(n for ngram in looked_up for n in self._ngrams.get(ngram, ()))
        for number, count in shared.items():
            share = count / self._problems[number].ngrams
            if share >= self.settings.ngram_share:
                yield self._match(number, "ngrams", share)

    def _ends(self, question: str) -> frozenset[str]:
        """The first and the last tokens of ``question``, in each length that a short benchmark problem has."""
        tokens = lex(question.lower())
        return frozenset(" ".join(end) for size in self._short_lengths for end in (tokens[:size], tokens[-size:]))

    def _by_minhash(self, question: str) -> Iterable[Match]:
        shingles = token_ngrams(question, self.settings.shingle)
        for number in self._index.candidates(shingles):
            similarity = jaccard(shingles, self._problems[number].shingles)
            if similarity >= self.settings.similarity:
                yield self._match(number, "minhash", similarity)

    def _match(self, number: int, by: Literal["ngrams", "minhash"], similarity: float) -> Match:
        problem = self._problems[number]
        return Match(
            found_in=problem.benchmark,
            problem_id=problem.problem_id,
            question=problem.question,
            answer=problem.answer,
            by=by,
            similarity=round(similarity, 3),
        )
