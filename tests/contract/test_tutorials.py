"""The tutorials of docs/ run as they stand: all ``bash`` blocks of a page, in an empty folder with the recipes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tmas.testing import team
from tmas.testing.chat_server import ScriptedServer, run_in_thread

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "docs/tutorials"
BASH = re.compile(r"^```bash\n(.*?)^```$", re.M | re.S)
PROMISED = {
    "first-solve": [
        "The planned run (2 problems)",
        "sum answer:",
        "runs/first/report.html",
        "experience E1 support",
        "│ 3│    2│    6│",
    ],
    "compare-methods": ["method.n_candidates=", "at equal compute", "minus tmas by iteration", "comparison.html"],
    "own-method": ["sum answer:", "tries: 2", "second_try", "runs/second_try/report.html"],
}
"""Texts that the commands of a page print."""
TRAINING = ["train.parquet", "config.json", "training.html", "GRPO"]


@pytest.mark.parametrize("name", PROMISED)
def test_a_tutorial_runs_as_it_stands_and_prints_what_it_promises(name: str, tmp_path: Path):
    with run_in_thread(ScriptedServer(team.reply)) as server:
        assert_promised(run(name, tmp_path, MODEL_URL=server.base_url, MODEL_NAME="model"), PROMISED[name])


@pytest.mark.parametrize("problems", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_the_tutorial_about_the_miniature_prints_what_it_promises(problems: int, tmp_path: Path):
    """It stands there with 10 problems: the smaller form runs the same commands."""
    promised = ["test-0", f"tmas on test: {problems} problems", "best_of_n minus tmas by iteration", "table.html"]
    assert_promised(run("miniature", tmp_path, ("--test 10", f"--test {problems}")), promised)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_tutorial_about_training_trains_a_policy(tmp_path: Path):
    pytest.importorskip("verl", reason="needs the cpu extra")
    assert_promised(run("train-on-one-machine", tmp_path), TRAINING)
    assert (tmp_path / "runs/policy/config.json").exists()


def test_every_tutorial_is_run():
    assert {page.stem for page in TUTORIALS.glob("*.md")} == {*PROMISED, "miniature", "train-on-one-machine"}


def run(
    name: str, folder: Path, changed: tuple[str, str] = ("", ""), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the commands of a page. ``changed``: a text in them, and what stands in its place here."""
    script = "\n".join(BASH.findall((TUTORIALS / f"{name}.md").read_text("utf-8")))
    assert changed[0] in script
    script = script.replace(*changed) if changed[0] else script
    (folder / "recipes").symlink_to(ROOT / "recipes")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        check=False,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def assert_promised(done: subprocess.CompletedProcess[str], texts: list[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    missing = [text for text in texts if text not in done.stdout]
    assert not missing, done.stdout
