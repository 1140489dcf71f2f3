"""Reads run directories for evaluation. docs/run-directory.md is the contract."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path

import yaml

from tmas.errors import UserError
from tmas.files import digest
from tmas.records.reading import read_record, read_records
from tmas.records.run_files import Manifest, Prediction

Pair = tuple[str, str]
"""A gold answer and an answer to compare with it."""


@dataclass(frozen=True)
class RunData:
    """The data of one run: its manifest, and one line of predictions.jsonl for each finished problem."""

    path: Path
    manifest: Manifest
    lines: tuple[Prediction, ...]
    benchmark: str | None

    @property
    def group(self) -> str:
        """Digest of settings, prompts and problems. Runs that differ only by seed have the same group."""
        settings = {key: value for key, value in self.manifest.settings.items() if key != "seed"}
        return digest([settings, self.manifest.prompts, self.manifest.problems])

    @cached_property
    def pairs(self) -> frozenset[Pair]:
        """All distinct pairs of a gold answer and a candidate's answer."""
        return frozenset(pair for line in self.lines for pair in pairs_of(line))


def pairs_of(line: Prediction) -> set[Pair]:
    """Pair each distinct answer of a problem with the gold answer. Without a gold answer, there are no pairs."""
    gold = line.gold
    answers = {c.answer for r in line.iterations for c in r.candidates if c.answer is not None}
    return set() if gold is None else {(gold, answer) for answer in answers}


def questions_of(runs: Iterable[RunData]) -> dict[Pair, str]:
    """The text of the problem that each pair belongs to.

    A pair that occurs in several problems is missing, and so is one whose run did not record the problem's text.
    """
    found: dict[Pair, set[str]] = {}
    for line in (line for run in runs for line in run.lines):
        if question := line.question:
            for pair in pairs_of(line):
                found.setdefault(pair, set()).add(question)
    return {pair: next(iter(questions)) for pair, questions in found.items() if len(questions) == 1}


def matching_runs(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Replace each path that has a ``*`` by the run directories that match it, in alphabetical order.

    Raises ``ValueError`` if none matches.
    """
    found: list[Path] = []
    for path in paths:
        if "*" not in str(path) or path.exists():
            found.append(path)
        elif matches := [Path(match) for match in sorted(glob(str(path))) if Path(match, "manifest.json").exists()]:
            found += matches
        else:
            raise ValueError(f"no run directory matches {path}")
    return tuple(found)


def read_run(path: Path) -> RunData:
    """Read a run directory. Its lines are sorted by problem id.

    Raises ``UserError`` if ``path`` is no run directory, its files have another schema version or are damaged, or no
    problem is finished.
    """
    try:
        manifest = read_record(path / "manifest.json", Manifest)
    except (FileNotFoundError, NotADirectoryError):
        remedy = "Give the output_dir of tmas solve."
        raise UserError("not a run directory: manifest.json is missing", where=path, remedy=remedy) from None
    lines = tuple(sorted(read_records(path / "predictions.jsonl", Prediction), key=lambda line: line.problem_id))
    if not lines:
        raise no_finished_problem(path)
    return RunData(path, manifest, lines, _benchmark(path / "config.yaml"))


def no_finished_problem(run: Path) -> UserError:
    """The error for a run whose ``predictions.jsonl`` is empty or does not exist yet."""
    remedy = "Resume the run with its own command."
    return UserError("holds no finished problem yet (predictions.jsonl)", where=run, remedy=remedy)


def _benchmark(config: Path) -> str | None:
    """Return ``data.name``, or else the name of the problem file or hub data set.

    None for a run that was started from Python or for a served request. Runs of older versions have no ``data.name``.
    """
    settings = yaml.safe_load(config.read_text(encoding="utf-8")) if config.exists() else {}
    if not isinstance(settings, dict):
        raise UserError("it is empty, or not a YAML mapping", where=config)
    if "problems" not in settings:
        return None
    data = settings.get("data") or {}  # the configuration of tmas demo has no such group
    if name := data.get("name"):
        return name
    return data["hub"]["path"] if settings["problems"] == "hub" else Path(settings["problems"]).stem
