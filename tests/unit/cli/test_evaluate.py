"""cli/evaluate.py and its configs: what a user types, and what comes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import BaseModel

from tests.support.commands import tmas, tmas_process
from tests.support.runs import candidate, iteration, prediction, problem, write_run
from tmas.cli.config_files import config_name
from tmas.evaluation.evaluate import EvaluateSettings
from tmas.evaluation.gold_check import GoldCheckSettings
from tmas.evaluation.subset import SubsetSettings
from tmas.judge import JudgeSettings

CONF = Path(__file__).parents[3] / "conf"


def composed(command: str, *overrides: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(
            compose(config_name(command), overrides=[*overrides]), resolve=True, throw_on_missing=True
        )


@pytest.mark.parametrize(
    ("command", "given", "expected"),
    [
        ("evaluate", ["runs=[r]"], EvaluateSettings(runs=(Path("r"),))),
        (
            "subset",
            ["runs=[r]", "problems=p", "output=o"],
            SubsetSettings(runs=(Path("r"),), problems=Path("p"), output=Path("o")),
        ),
        ("gold-check", ["problems=p"], GoldCheckSettings(problems=Path("p"))),
    ],
)
def test_the_configs_have_the_defaults_of_the_code(command: str, given: list[str], expected: BaseModel):
    assert type(expected).model_validate(composed(command, *given)) == expected


@pytest.mark.parametrize("judge", [["endpoint", "judge.name=m", "judge.base_url=http://h/v1"], ["deepseek"]])
def test_the_judges_ask_four_times_as_in_the_paper(judge: list[str]):
    settings = JudgeSettings.model_validate(composed("evaluate", "runs=[r]", f"judge={judge[0]}", *judge[1:])["judge"])
    assert settings.passes == 4
    assert settings.sampling.temperature > 0  # the passes must be independent


def problem_file(folder: Path, golds: dict[str, str]) -> Path:
    file = folder / "problems.jsonl"
    file.write_bytes(b"\n".join(orjson.dumps(problem(name, gold).model_dump()) for name, gold in golds.items()))
    return file


def test_gold_check_lists_what_does_not_come_out_right_and_ends_with_1(tmp_path: Path):
    file = problem_file(tmp_path, {"good": "1/2", "bad": r"\frac{1}{2"})
    done = tmas_process("gold-check", f"problems={file}", f"output={tmp_path / 'found.json'}", env={"COLUMNS": "160"})
    assert done.returncode == 1, done.stderr
    assert "bad, as written: undecided (nothing was extracted)" in done.stdout
    assert orjson.loads((tmp_path / "found.json").read_bytes())["checks"]["as written"]["equal"] == 1
    assert tmas("gold-check", f"problems={problem_file(tmp_path, {'good': '1/2'})}").returncode == 0


def test_subset_writes_the_problems_seldom_solved(tmp_path: Path):
    golds = {"easy": "5", "hard": "5"}
    answers = {"easy": ["5", "5"], "hard": ["5", "6"]}
    lines = [prediction(n, golds[n], [iteration([candidate(a) for a in answers[n]])]) for n in golds]
    run = write_run(tmp_path / "run", lines)
    given = (f"runs=[{run}]", f"problems={problem_file(tmp_path, golds)}", f"output={tmp_path / 'subset.jsonl'}")
    done = tmas_process("subset", *given, "samples=2")
    assert done.returncode == 0, done.stderr
    assert "1 of 2 problems" in done.stdout
    assert [json.loads(line)["problem_id"] for line in (tmp_path / "subset.jsonl").open()] == ["hard"]
    refused = tmas("subset", *given)
    assert refused.returncode == 2
    assert "has 2 samples in the runs, not 8" in refused.stderr


def test_the_hub_is_named_when_it_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    done = tmas("gold-check", "problems=hub", "data=hle_math_100", env={"XDG_CACHE_HOME": str(tmp_path)})
    assert done.returncode == 2
    assert "problems=hub needs the package datasets" in done.stderr
