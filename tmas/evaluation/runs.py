"""Run directories as evaluation reads them; docs/run-directory.md is the contract."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
import yaml

from tmas.errors import UserError
from tmas.files import digest, read_lines
from tmas.records import SCHEMA_VERSION
from tmas.run.results import Line, rounds, samples

__all__ = ["Line", "Pair", "RunData", "pairs_of", "read_run", "rounds", "samples"]

Pair = tuple[str, str]
"""A gold answer and an answer to compare with it."""


@dataclass(frozen=True)
class RunData:
    """What one run left: its manifest, and a line of predictions.jsonl for each finished problem."""

    path: Path
    manifest: dict[str, Any]
    lines: tuple[Line, ...]
    benchmark: str | None

    @property
    def seed(self) -> int:
        return self.manifest["settings"]["seed"]

    @property
    def method(self) -> str:
        return self.manifest["settings"]["method.name"]

    @property
    def models(self) -> dict[str, str]:
        """The model of each role."""
        settings = self.manifest["settings"].items()
        return {key.split(".")[1]: value for key, value in settings if re.fullmatch(r"model\.[^.]+\.name", key)}

    @property
    def group(self) -> str:
        """The same for runs of one method on one benchmark that differ in nothing but their seed."""
        settings = {key: value for key, value in self.manifest["settings"].items() if key != "seed"}
        return digest([settings, self.manifest["prompts"], self.manifest["problems"]])

    @cached_property
    def pairs(self) -> frozenset[Pair]:
        """Every distinct answer of a problem with a gold answer, beside it."""
        return frozenset(pair for line in self.lines for pair in pairs_of(line))


def pairs_of(line: Line) -> set[Pair]:
    """The distinct answers of a problem's candidates, each beside the gold answer; none without one."""
    gold = line["gold"]
    answers = {c["answer"] for r in line["iterations"] for c in r["candidates"]} - {None}
    return set() if gold is None else {(gold, answer) for answer in answers}


def read_run(path: Path) -> RunData:
    """Raises ``UserError`` for a directory that is no run, has another schema version, or has finished no problem."""
    try:
        manifest = orjson.loads((path / "manifest.json").read_bytes())
    except FileNotFoundError:
        raise UserError("no run directory: it holds no manifest.json", where=path) from None
    except orjson.JSONDecodeError as error:
        raise UserError(f"damaged ({error})", where=path / "manifest.json") from None
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise UserError(f"written in schema version {manifest['schema_version']}, not {SCHEMA_VERSION}", where=path)
    lines = tuple(sorted(read_lines(path / "predictions.jsonl"), key=lambda line: line["problem_id"]))
    if not lines:
        raise UserError(
            "holds no finished problem yet (predictions.jsonl)",
            where=path,
            remedy="Resume the run with its own command.",
        )
    return RunData(path, manifest, lines, _benchmark(path / "config.yaml"))


def _benchmark(config: Path) -> str | None:
    """The problem file's name, or the data set's on the hub; None for a run from Python or of a served request."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8")) if config.exists() else {}
    if "problems" not in settings:
        return None
    return settings["data"]["hub"]["path"] if settings["problems"] == "hub" else Path(settings["problems"]).stem
