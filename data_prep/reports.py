"""The content of ``report.json`` of ``tmas collect``, ``filter`` and ``build``. Reads the reports of earlier steps.

Unknown fields are ignored, so that a later version's report can be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel

from tmas.errors import UserError
from tmas.records.reading import read_record


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True)


class SourceReport(_Report):
    """How many rows of a source were read, and what became of them. ``sha256``: hashes of the source's files."""

    settings: dict[str, Any]
    sha256: dict[str, str]
    rows: int
    kept: int
    copies: int
    skipped: int


class StepReport(_Report):
    """What every step before ``tmas build`` counts: problems kept, and problems removed by reason."""

    kept: int
    removed: dict[str, int]


class CleanReport(StepReport):
    """How a pool was cleaned. ``benchmarks``: number of problems by benchmark. ``judged``: problems for a judge."""

    benchmarks: dict[str, int]
    benchmark_rows_skipped: list[str] = []
    judged: int = 0


class CollectReport(CleanReport):
    """The report of ``tmas collect``."""

    sources: dict[str, SourceReport]


class FilterReport(StepReport):
    """The report of ``tmas filter``. ``window``: lowest and highest pass rate of a problem that is kept.

    ``samples``: number of samples per problem. ``histogram``: number of problems by pass rate.
    """

    problems: int
    window: tuple[float, float]
    samples: int
    policy: str
    histogram: dict[str, int]


class TokenSummary(_Report):
    """Summary of the token counts of at least one prompt or chat."""

    count: int
    min: int
    median: float
    p95: int
    max: int
    sum: int


class TokenHistogram(_Report):
    """Prompts by length. ``upper``: the bins' upper edges in tokens. ``counts``: prompts in each bin, by source."""

    upper: list[int]
    counts: dict[str, list[int]]


class Origin(_Report):
    """Number of problems of one origin and licence."""

    origin: str
    licence: str
    problems: int


class WrittenFile(_Report):
    """A file that ``tmas build`` wrote."""

    rows: int
    bytes: int
    sha256: str


class TeacherReport(_Report):
    """The recorded run that rows and chats come from."""

    models: list[str]
    problems: int
    seed: int
    n_candidates: int
    n_verifications: int
    max_iterations: int
    epsilon: float


class VerificationBin(_Report):
    """The verification rows of the problems whose pass rate is in one range. ``right``, ``wrong``: rows by class."""

    low: float
    high: float
    problems: int
    right: int
    wrong: int


class BuildReport(_Report):
    """The report of ``tmas build``. ``made``: rows or chats in each file, by source or role.

    ``skipped``: rows and chats that were left out, by reason. ``inputs``: SHA-256 of the files that were read.
    ``earlier``: the reports of the earlier steps, by their folders. ``verification``: the verification rows of each
    file, by the problems' pass rate.
    """

    settings: dict[str, Any]
    problems: dict[str, int]
    made: dict[str, dict[str, int]]
    skipped: dict[str, int]
    tokens: dict[str, dict[str, TokenSummary]]
    token_histogram: TokenHistogram
    pass_rates: dict[str, int]
    origins: list[Origin]
    files: dict[str, WrittenFile]
    teacher: TeacherReport
    inputs: dict[str, str]
    earlier: dict[str, CollectReport | FilterReport]
    verification: dict[str, list[VerificationBin]] = {}


class _EarlierReport(RootModel[CollectReport | FilterReport]):
    """The report of a step before ``tmas build``."""


def earlier_reports(steps: Iterable[Path]) -> dict[str, CollectReport | FilterReport]:
    """The reports of ``tmas collect`` and ``tmas filter``, by the folders of these steps.

    Raises ``UserError`` for a folder without a report.
    """
    found: dict[str, CollectReport | FilterReport] = {}
    for step in steps:
        file = step / "report.json"
        if not file.exists():
            remedy = "Run tmas collect and tmas filter in this workspace, or name their folders in earlier."
            raise UserError("there is no such file", where=file, remedy=remedy)
        found[str(step)] = read_record(file, _EarlierReport).root
    return found
