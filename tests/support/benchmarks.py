"""Paths of public benchmarks in the folder ``shared`` next to the repository. Without it, tests that need it skip."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the folder shared/data is not next to the repository")
WITH_ANSWERS = [
    "aime24/aime24.json",
    "math500/math500.json",
    "gsm8k/test.jsonl",
    "imo-answerbench/answerbench.csv",
    "imo-answerbench/answerbench_v2.csv",
]


def gold_answers(file: str) -> list[str]:
    """The gold answers of a file of :data:`WITH_ANSWERS`, read without the package's own loader."""
    path = DATA / file
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as lines:
            return [row["Short Answer"] for row in csv.DictReader(lines)]
    if path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["answer"].split("#### ")[-1] for line in lines]
    return [row["answer"] for row in json.loads(path.read_text(encoding="utf-8"))]
