"""Exit codes agree between commands: a missing file or folder is wrong input (2), with its path and no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import commands
from tmas.cli.exits import WRONG_INPUT
from tmas.cli.main import COMMANDS

MODEL = ["model=endpoint", "model.name=m", "model.base_url=http://127.0.0.1:9/v1"]
BENCHMARKS = ("aime24", "gsm8k", "hle_math_100", "imo2025", "imo_answerbench", "imo_proofbench", "math500")
MISSING = {
    "solve": [*MODEL, "problems=nowhere.jsonl", "output_dir=out"],
    "check": [*MODEL, "problems=nowhere.jsonl"],
    "status": ["nowhere"],
    "control": ["nowhere", "pause=true"],
    "view": ["nowhere"],
    "whatif": ["nowhere", "method.n_verifications=1"],
    "evaluate": ["runs=nowhere"],
    "report": ["runs=nowhere"],
    "subset": ["runs=nowhere", "problems=nowhere.jsonl", "output=out.jsonl"],
    "gold-check": ["problems=nowhere.jsonl"],
    "collect": [
        *("benchmarks_dir=b", "source=local", "source.local.files=nowhere.jsonl"),
        *("source.local.origin=o", "source.local.licence=l", *(f"benchmarks.{name}.files=[]" for name in BENCHMARKS)),
    ],
    "filter": [*MODEL, "problems=nowhere.jsonl"],
    "distill": [*MODEL, "problems=nowhere.jsonl", "limits.tokens_per_run=null"],
    "build": ["problems=nowhere.jsonl", "tokenizer=estimate"],
    "sft": ["model.path=m", "train_files=nowhere.parquet", "output_dir=out"],
    "export": ["checkpoint=nowhere", "output_dir=out"],
    "rescore": ["rollouts=nowhere"],
}
"""Arguments of each command that name a file or folder which does not exist."""
WITHOUT_INPUT = {"demo", "serve", "train"}
"""Commands whose input ships with the package, is a server, or is read by a trainer in another process."""


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_file_is_wrong_input_in_every_command(name: str, tmp_path: Path):
    done = commands.tmas(name, *MISSING[name], cwd=tmp_path)
    assert (done.returncode, "nowhere" in done.stderr) == (WRONG_INPUT, True), done.stderr
    assert "Traceback" not in done.stderr


def test_sft_names_the_setting_whose_file_is_missing(tmp_path: Path):
    done = commands.tmas("sft", *MISSING["sft"], cwd=tmp_path)
    assert "train_files: there is no file nowhere.parquet. Give the files" in done.stderr


def test_every_command_is_covered():
    assert set(COMMANDS) == set(MISSING) | WITHOUT_INPUT
