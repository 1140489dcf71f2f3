"""Writes the data card (``README.md``) and a page with samples (``look.html``) from the templates in this folder.

Text from models and data sets is escaped in both. The template engine escapes it in the page, :func:`_cell` in the
card. The page is a single file. It has no scripts and loads no other file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pyarrow import parquet

from tmas.data_prep.reports import BuildReport, CollectReport, FilterReport, TokenHistogram
from tmas.files import read_lines, whole_file
from tmas.training.rows import TrainingRow, read_rows

SAMPLES = 4
"""Number of rows per source, and of removed problems per reason, that the page shows in full."""


def write_card(path: Path, report: BuildReport) -> None:
    """Write a Hugging Face data set card with counts, tokens, sources and hashes to ``path``."""
    environment = _environment(autoescape=False)
    environment.filters["cell"] = _cell
    _write(path, environment.get_template("card.md.jinja").render(report=report))


def write_page(path: Path, folder: Path, earlier: Sequence[Path], report: BuildReport) -> None:
    """Write the page to ``path``: samples by source, charts of length and difficulty, and removed problems.

    ``folder``: output of ``tmas build``. ``earlier``: folders of the earlier steps.
    """
    template = _environment(autoescape=True).get_template("look.html.jinja")
    _write(
        path,
        template.render(
            report=report,
            samples=_samples(folder / "train.parquet"),
            removed={step.name: _removed(step / "removed.jsonl") for step in earlier},
            sources=_sources(report),
            length_bars=_length_bars(report.token_histogram),
            rate_bars=_rate_bars(report),
            chats=_chats(folder / "sft_train.parquet"),
        ),
    )


def bars(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Bars of a chart: each count with its share of the largest count, in percent."""
    top = max(counts.values(), default=1)
    return [{"label": label, "count": n, "percent": round(100 * n / top, 1)} for label, n in counts.items()]


def _length_bars(histogram: TokenHistogram) -> dict[str, list[dict[str, Any]]]:
    labels = [f"up to {upper:,}" for upper in histogram.upper]
    return {group: bars(dict(zip(labels, found, strict=True))) for group, found in histogram.counts.items()}


def _rate_bars(report: BuildReport) -> dict[str, list[dict[str, Any]]]:
    """Charts of pass rates: one for all problems that a filter step sampled, and one for the problems in this set."""
    steps = {Path(path).name: step for path, step in report.earlier.items() if isinstance(step, FilterReport)}
    charts = {f"sampled in {name}": step.histogram for name, step in steps.items()} | {"in this set": report.pass_rates}
    return {title: bars(counts) for title, counts in charts.items()}


def _chats(path: Path) -> dict[str, list[dict[str, str]]]:
    """The first chat of each role."""
    found: dict[str, list[dict[str, str]]] = {}
    if path.exists():
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(64, columns=["role", "messages"]):
                for chat in batch.to_pylist():
                    found.setdefault(chat["role"], chat["messages"])
    return dict(sorted(found.items()))


def _samples(path: Path) -> dict[str, list[TrainingRow]]:
    """The first rows of each source."""
    found: defaultdict[str, list[TrainingRow]] = defaultdict(list)
    for row in read_rows(path) if path.exists() else ():
        if len(found[row.source]) < SAMPLES:
            found[row.source].append(row)
    return dict(sorted(found.items()))


def _removed(path: Path) -> dict[str, dict[str, Any]]:
    """Count and first cases by reason."""
    found: defaultdict[str, dict[str, Any]] = defaultdict(lambda: {"count": 0, "cases": []})
    for line in read_lines(path):
        entry = found[line["reason"]]
        entry["count"] += 1
        if len(entry["cases"]) < SAMPLES:
            entry["cases"].append(line)
    return dict(sorted(found.items()))


def _sources(report: BuildReport) -> dict[str, dict[str, Any]]:
    """The counts of each source, with the first of its rows that could not be read."""
    return {
        name: {**source.model_dump(), "cases": _first_skipped(Path(path), name)}
        for path, step in report.earlier.items()
        if isinstance(step, CollectReport)
        for name, source in step.sources.items()
    }


def _first_skipped(step: Path, source: str) -> list[dict[str, Any]]:
    return list(islice(read_lines(step / "sources" / f"{source}.skipped.jsonl"), SAMPLES))


def _cell(value: object) -> str:
    """Plain text for a cell of a Markdown table."""
    text = " ".join(str(value).split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#$" else c for c in text)


def _environment(autoescape: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["name"] = lambda path: Path(path).name
    environment.filters["shown"] = lambda tokenizer: Path(tokenizer).name if Path(tokenizer).exists() else tokenizer
    return environment


def _write(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode())
