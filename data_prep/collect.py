"""``tmas collect``: reads the problems of all sources into one schema and cleans them (:mod:`tmas.data_prep.clean`).

Each source is read as a stream. Exact copies are dropped, and rows that cannot be used are recorded with the reason.
The folder ``sources/`` keeps the problems, the skipped rows and the report of each source. A later run with the same
settings and files uses these instead of reading the source again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import uvloop
from pydantic import Field

from tmas.data_prep.clean import CleanSettings, clean
from tmas.data_prep.decontaminate import Benchmark, Benchmarks
from tmas.data_prep.pool import Log, WorkspaceFolder, read_problems
from tmas.data_prep.reports import CollectReport, SourceReport
from tmas.data_prep.source_files import read_source
from tmas.data_prep.sources import Source, SourceDefect, answers_of, question_of
from tmas.files import digest, file_digest, json_line, read_lines, whole_file, write_json
from tmas.problems.loader import ProblemFileError
from tmas.records.reading import read_record
from tmas.settings import Settings
from tmas.training.contexts import TrainingProblem


class CollectSettings(Settings):
    """All settings of ``tmas collect``."""

    workspace: WorkspaceFolder = None
    benchmarks_dir: Path | None = Field(
        default=None,
        description="Folder with the benchmark files. conf/collect.yaml gives their paths relative to this folder.",
    )
    output_dir: Path = Field(description="Folder for problems.jsonl, removed.jsonl, report.json and sources/.")
    source: dict[str, Source] = Field(
        description="The data sets by name. Of duplicates, the problem of the earlier data set is kept."
    )
    benchmarks: dict[str, Benchmark] = Field(description="The benchmarks that are removed from the pool, by name.")
    clean: CleanSettings = Field(default=CleanSettings(), description="How the pool is cleaned.")


def collect(settings: CollectSettings, log: Log) -> None:
    """Collect and clean all sources. Writes ``problems.jsonl``, ``removed.jsonl`` and ``report.json``."""
    benchmarks = Benchmarks(settings.benchmarks, settings.clean.decontamination)
    for defect in benchmarks.skipped:
        log(f"skipped a benchmark row: {defect}")
    folder = settings.output_dir / "sources"
    reports = {name: collect_source(name, source, folder, log) for name, source in settings.source.items()}
    pool = (problem for name in reports for problem in read_problems(folder / f"{name}.jsonl", "tmas collect"))
    cleaned = uvloop.run(clean(pool, benchmarks, settings.clean, settings.output_dir))
    write_json(settings.output_dir / "report.json", CollectReport(sources=reports, **dict(cleaned)))
    log(f"{cleaned.kept:,} problems kept, {sum(cleaned.removed.values()):,} removed: {cleaned.removed}")


def collect_source(name: str, source: Source, folder: Path, log: Log) -> SourceReport:
    """Write the problems of one source to ``folder`` and return its report.

    If ``folder`` has a report with the same settings and file hashes, the source is not read again. Raises
    :class:`ProblemFileError` if no row of the source can be used.
    """
    settings = source.model_dump(mode="json")
    hashes = {str(path): _sha256(path) for path in source.files}
    report_file = folder / f"{name}.json"
    if report_file.exists() and (folder / f"{name}.jsonl").exists():
        report = read_record(report_file, SourceReport)
        if (report.settings, report.sha256) == (settings, hashes):
            log(f"{name}: {report.kept:,} problems, from an earlier run")
            return report
    report_file.unlink(missing_ok=True)
    counts: Counter[str] = Counter()
    skipped_file = folder / f"{name}.skipped.jsonl"
    with whole_file(folder / f"{name}.jsonl") as problems, whole_file(skipped_file) as skipped:
        for item in _problems(name, source, counts):
            (problems if isinstance(item, TrainingProblem) else skipped).write(json_line(item))
    if not counts["kept"]:
        first = (f"{line['place']}: {line['defect']}" for line in islice(read_lines(skipped_file), 3))
        raise ProblemFileError(
            [f"source {name}: none of {counts['rows']:,} rows could be used. The first ones:", *first]
        )
    found = {key: counts[key] for key in ("rows", "kept", "copies", "skipped")}
    report = SourceReport(settings=settings, sha256=hashes, **found)
    write_json(report_file, report)
    log(f"{name}: " + ", ".join(f"{count:,} {key}" for key, count in found.items()))
    return report


def _problems(name: str, source: Source, counts: Counter[str]) -> Iterator[TrainingProblem | dict[str, str]]:
    """Yield the problems of a source, and for each unusable row its place and defect. Exact copies are only counted."""
    seen: set[int] = set()
    for row in read_source(source):
        counts["rows"] += 1
        try:
            question, answers = question_of(row, source), answers_of(row, source)
        except SourceDefect as defect:
            counts["skipped"] += 1
            yield {"place": row.place, "defect": str(defect)}
            continue
        key = _short_hash(f"{question}\0{answers}")
        if key in seen:
            counts["copies"] += 1
            continue
        seen.add(key)
        counts["kept"] += 1
        yield TrainingProblem(
            problem_id=f"{name}-{digest(question)[:12]}",
            question=question,
            answer=answers[0],
            metadata={"accepted": answers} if len(answers) > 1 else {},
            origin=source.origin,
            licence=source.licence,
        )


def _short_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _sha256(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise ProblemFileError([f"{path}: is no regular file"])
        return file_digest(path, 64)
    except OSError as error:
        raise ProblemFileError([f"{path}: {error.strerror}"]) from error
