"""Computes the statistics of ``tmas build``: counts, tokens, difficulty, sources and hashes.

The data card (``README.md``) and the page with samples (``look.html``) show them.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

from pyarrow import parquet

from tmas.data_prep.build_settings import BuildSettings
from tmas.data_prep.reports import (
    BuildReport,
    CollectReport,
    FilterReport,
    Origin,
    TeacherReport,
    TokenHistogram,
    TokenSummary,
    VerificationBin,
    WrittenFile,
)
from tmas.files import file_digest
from tmas.llm.tokens import Count
from tmas.run.replay import RecordedRun
from tmas.training.contexts import TrainingProblem
from tmas.training.rows import UNKNOWN_PASS_RATE, read_rows

_BINS = 12


def describe(
    settings: BuildSettings,
    teacher: RecordedRun,
    problems: Sequence[TrainingProblem],
    made: Mapping[str, Mapping[str, int]],
    skipped: Mapping[str, int],
    count: Count,
    earlier: dict[str, CollectReport | FilterReport],
    verification: Mapping[str, list[VerificationBin]],
) -> BuildReport:
    """The content of ``report.json``. ``earlier``: the reports of the earlier steps, by their folders.

    ``made``: number of rows or chats in each file, by source or role. ``verification``: the verification rows of each
    file, by the problems' pass rate.
    """
    paths = [settings.output_dir / name for name in made]
    tokens = {path.name: _tokens(path, count) for path in paths if path.exists()}
    return BuildReport(
        settings=settings.model_dump(mode="json"),
        problems=dict(Counter(problem.split for problem in problems)),
        made={name: dict(counts) for name, counts in made.items()},
        skipped={reason: n for reason, n in skipped.items() if n},
        tokens={name: {group: summary(sizes) for group, sizes in groups.items()} for name, groups in tokens.items()},
        token_histogram=_token_histogram(tokens),
        pass_rates=dict(sorted(Counter(_rate_label(problem) for problem in problems).items())),
        origins=_origins(problems),
        files={path.name: _file(path) for path in paths if path.exists()},
        teacher=_teacher(teacher),
        inputs={str(path): file_digest(path, 64) for path in _inputs(settings)},
        earlier=earlier,
        verification=dict(verification),
    )


def _inputs(settings: BuildSettings) -> list[Path]:
    runs = dict.fromkeys((settings.run, *settings.chat_runs, *(settings.verification.runs or ())))
    return [settings.problems, *(run / "manifest.json" for run in runs)]


def _teacher(run: RecordedRun) -> TeacherReport:
    """The models and the sizes of the run that rows and chats come from."""
    manifest = run.manifest
    sizes = ("n_candidates", "n_verifications", "max_iterations", "epsilon")
    return TeacherReport.model_validate(
        {
            "models": sorted(set(manifest.models.values())),
            "problems": len(run.problem_ids),
            "seed": manifest.seed,
            **{name: manifest.settings[f"method.{name}"] for name in sizes},
        }
    )


def summary(sizes: Sequence[int]) -> TokenSummary:
    """Summarise ``sizes``, which must not be empty."""
    ordered = sorted(sizes)
    return TokenSummary(
        count=len(ordered),
        min=ordered[0],
        median=median(ordered),
        p95=ordered[math.ceil(0.95 * len(ordered)) - 1],
        max=ordered[-1],
        sum=sum(ordered),
    )


def _tokens(path: Path, count: Count) -> dict[str, list[int]]:
    """Tokens of each prompt by source in a row file, or of each chat by role in a chat file."""
    sizes: defaultdict[str, list[int]] = defaultdict(list)
    if path.name.startswith("sft_"):
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(256, columns=["role", "messages"]):
                for chat in batch.to_pylist():
                    sizes[chat["role"]].append(sum(count(message["content"]) for message in chat["messages"]))
    else:
        for row in read_rows(path):
            sizes[row.source].append(sum(count(message.content) for message in row.prompt))
    return dict(sorted(sizes.items()))


def _token_histogram(tokens: Mapping[str, Mapping[str, Sequence[int]]]) -> TokenHistogram:
    """Histogram of the RL rows' prompts, with bins of equal width."""
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for name, groups in tokens.items():
        for group, sizes in groups.items() if not name.startswith("sft_") else ():
            rows[group] += sizes
    top = max((size for sizes in rows.values() for size in sizes), default=0)
    width = max(1, -(-top // _BINS))  # rounded up
    counts = {group: Counter(max(0, size - 1) // width for size in sizes) for group, sizes in rows.items()}
    return TokenHistogram(
        upper=[width * (i + 1) for i in range(_BINS)],
        counts={group: [found[i] for i in range(_BINS)] for group, found in sorted(counts.items())},
    )


def _rate_label(problem: TrainingProblem) -> str:
    rate = problem.baseline_pass_rate
    return "unknown" if rate == UNKNOWN_PASS_RATE else f"{rate:.3f}"


def _origins(problems: Iterable[TrainingProblem]) -> list[Origin]:
    counts = Counter((problem.origin, problem.licence) for problem in problems)
    return [Origin(origin=o, licence=licence, problems=n) for (o, licence), n in sorted(counts.items())]


def _file(path: Path) -> WrittenFile:
    rows, size = parquet.read_metadata(path).num_rows, path.stat().st_size
    return WrittenFile(rows=rows, bytes=size, sha256=file_digest(path, 64))
