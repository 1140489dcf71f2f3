"""The built wheel in an empty environment: it solves problems on an endpoint, without this repository and torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tmas.testing import team
from tmas.testing.chat_server import ScriptedServer, run_in_thread

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
CONTENTS = """
import importlib.metadata, importlib.util, json, pathlib, tmas
folder = pathlib.Path(tmas.__file__).parent
heavy = ("torch", "vllm", "ray", "verl", "transformers", "datasets", "matplotlib", "data_prep", "conf", "tests")
print(json.dumps({
    "files": sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.suffix != ".pyc"),
    "importable": [name for name in heavy if importlib.util.find_spec(name)],
    "extras": importlib.metadata.metadata("tmas").get_all("Provides-Extra"),
    "version": tmas.__version__,
    "description": importlib.metadata.metadata("tmas").get_payload(),
}))
"""
NOT_PYTHON = {"py.typed", "conf/hydra_base.yaml", "prompts/solution.jinja", "report/viewer/js/main.js"}


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel and its dependencies, and an empty folder to work in."""

    programs: Path
    folder: Path

    def run(self, *command: str) -> str:
        """The output of a program of the environment, which sees neither this repository nor this environment."""
        variables = {"PATH": f"{self.programs}:/usr/bin:/bin", "HOME": str(self.folder), "HF_HUB_OFFLINE": "1"}
        program = str(self.programs / command[0])
        return output_of([program, *command[1:]], cwd=self.folder, env=variables)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel, built from the source distribution as for a release, and installed from the package index."""
    folder = tmp_path_factory.mktemp("wheel")
    output_of([UV, "build", "-q", "--out-dir", folder / "dist", ROOT])
    [wheel] = (folder / "dist").glob("*.whl")
    output_of([UV, "venv", "-q", "--python", sys.executable, folder / "environment"])
    output_of([UV, "pip", "install", "-q", "--python", folder / "environment/bin/python", wheel])
    (folder / "work").mkdir()
    return Installed(folder / "environment/bin", folder / "work")


def test_the_wheel_has_all_files_under_one_name_and_no_heavy_package(installed: Installed):
    found = json.loads(installed.run("python", "-c", CONTENTS))
    assert found["importable"] == []
    assert missing_from(found["files"], "tmas") == []
    assert missing_from(found["files"], "data_prep", below="data_prep/") == []
    assert missing_from(found["files"], "conf", below="conf/") == []
    assert {*found["files"]} >= NOT_PYTHON
    assert {"report", "data", "gpu", "cpu", "serve"} <= {*found["extras"]}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert found["version"] == version
    assert installed.run("tmas", "--version").strip() == f"tmas {version}"


def test_the_description_on_a_package_index_has_no_link_into_the_repository(installed: Installed):
    """A package index has none of the repository's files, so a relative link or picture would be broken there."""
    description = json.loads(installed.run("python", "-c", CONTENTS))["description"]
    assert description.startswith("# TMAS\n")
    assert [link for link in re.findall(r"\]\(([^)]*)\)", description) if not link.startswith("https://")] == []
    assert "![" not in description
    assert "pip install tmas " in description
    assert "pip install -e" not in description


def test_the_wheel_solves_evaluates_and_reports(installed: Installed):
    problem = {"problem_id": "sum", "question": "What is 7 + 5?", "answer": "12"}
    (installed.folder / "problems.jsonl").write_text(json.dumps(problem) + "\n", "utf-8")
    with run_in_thread(ScriptedServer(team.reply)) as server:
        model = [f"model.base_url={server.base_url}", "model.name=model"]
        limits = ["model.context_length=32768", "model.sampling.max_tokens=8192"]
        small = ["method.n_candidates=2", "method.n_verifications=2", "method.max_iterations=2"]
        given = ["problems=problems.jsonl", "output_dir=run", *model, *limits, *small]
        solved = installed.run("tmas", "solve", *given)
    assert "Run directory: run" in solved
    installed.run("tmas", "report", "runs=[run]")
    assert (installed.folder / "run/report.html").stat().st_size > 100_000
    assert "tmas collect: " in installed.run("tmas", "collect", "--help")  # its settings are in data_prep/


def missing_from(files: list[str], top: str, below: str = "") -> list[str]:
    """The files of the folder ``top`` that git tracks, except those that the wheel has in its folder ``below``."""
    tracked = output_of(["git", "-C", ROOT / top, "ls-files", "."]).split()
    links = {file for file in tracked if (ROOT / top / file).is_symlink()}
    return [file for file in tracked if f"{below}{file}" not in files and file not in links]


def output_of(command: list[str | Path], cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """The output of a program. It must succeed."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} if env is None else env
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
