"""The recipes for the paper's experiments: which runs they compare, and complete runs with a scripted server."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.example_run import PROBLEM, reply
from tmas.testing.chat_server import ScriptedServer, run_in_thread

pytest.importorskip("verl", reason="needs the cpu or gpu extra")

from tests.contract.test_recipes import ROOT, calls, commands, run

RECIPES = {
    "ablation": ["full", "no_experience", "no_guidelines"],
    "sensitivity": ["published", "epsilon_0", "epsilon_0.1", "epsilon_0.4", "n_4", "n_16", "m_2", "m_16"],
    "hybrid_vs_vanilla": ["vanilla", "hybrid"],
    "boundary": ["tmas"],
}
"""The variants of each recipe. The others are compared with the first."""


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_variant_runs_with_each_seed_and_all_are_compared_with_the_first(recipe: str, tmp_path: Path):
    made = commands(calls(f"recipes/{recipe}/run.sh", tmp_path))
    *solving, (evaluate, evaluated), (report, reported) = made
    runs = [f"runs/{recipe}/{variant}-{seed}" for variant in RECIPES[recipe] for seed in (0, 1, 2)]
    found = [dict(override.split("=", 1) for override in overrides) for _, overrides in solving]
    assert [one["output_dir"] for one in found] == runs
    assert [one["seed"] for one in found] == ["0", "1", "2"] * len(RECIPES[recipe])
    assert (evaluate, report) == ("evaluate", "report")
    assert evaluated[0] == reported[0] == f"runs=[{','.join(runs)}]"


def test_variants_change_one_setting_each(tmp_path: Path):
    *solving, _, _ = commands(calls("recipes/sensitivity/run.sh", tmp_path, SEEDS="0"))
    changed = [[o for o in overrides if o.startswith("method.")] for _, overrides in solving]
    assert changed == [
        [],
        *([f"method.epsilon={value}"] for value in ("0", "0.1", "0.4")),
        *([f"method.n_candidates={value}"] for value in (4, 16)),
        *([f"method.n_verifications={value}"] for value in (2, 16)),
    ]


def test_the_setting_that_a_variant_changes_wins_over_further_arguments(tmp_path: Path):
    smaller = ["method.n_candidates=2", "method.n_verifications=2"]
    made = calls("recipes/sensitivity/run.sh", tmp_path, *smaller, SEEDS="0", EPSILONS="", VERIFICATIONS="16")
    *solving, _, _ = commands(made)
    sizes = [dict(override.split("=", 1) for override in overrides) for _, overrides in solving]
    assert [one["method.n_candidates"] for one in sizes] == ["2", "4", "16", "2"]
    assert [one["method.n_verifications"] for one in sizes] == ["2", "2", "2", "16"]


def test_the_two_policies_have_their_own_servers_and_names(tmp_path: Path):
    urls = {"HYBRID_URL": "http://h/v1", "VANILLA_URL": "http://v/v1", "SEEDS": "0"}
    vanilla, hybrid, _, _ = commands(calls("recipes/hybrid_vs_vanilla/run.sh", tmp_path, **urls))
    assert {"model.name=vanilla", "model.base_url=http://v/v1"} <= set(vanilla[1])
    assert {"model.name=hybrid", "model.base_url=http://h/v1"} <= set(hybrid[1])


COMPARISONS = ["ablation", "boundary", "hybrid_vs_vanilla", "sensitivity", "sweep", "variants"]


@pytest.mark.parametrize("recipe", COMPARISONS)
def test_every_setting_is_checked_before_the_first_model_is_called_or_started(recipe: str, tmp_path: Path):
    (tmp_path / "policy").mkdir()
    policies = {"HYBRID": str(tmp_path / "policy"), "VANILLA": str(tmp_path / "policy")}
    judge = {"JUDGE": "endpoint judge.name=m judge.base_url=http://judge/v1"}
    made = calls(f"recipes/{recipe}/run.sh", tmp_path, OUT=str(tmp_path / "out"), **policies, **judge)
    names = [call[1] for call in made if call[0] == "tmas"]
    checks, real = commands(made, dry_run="true"), commands(made)
    assert names == [name for name, _ in (*checks, *real)]
    assert [without_dry_run(one) for one in checks] == [without_dry_run(one) for one in real if one[0] != "report"]
    assert {"judge=endpoint", "judge.name=m"} <= set(checks[-1][1])
    (tmp_path / "calls").unlink()
    only = calls(f"recipes/{recipe}/run.sh", tmp_path, OUT=str(tmp_path / "out"), DRY_RUN="true", **policies, **judge)
    assert commands(only, dry_run="true") == checks
    assert commands(only) == []


def without_dry_run(command: tuple[str, list[str]]) -> tuple[str, list[str]]:
    return command[0], [override for override in command[1] if not override.startswith("dry_run=")]


@pytest.mark.parametrize("recipe", COMPARISONS)
def test_a_setting_that_is_refused_ends_the_recipe_before_a_server_starts(recipe: str, tmp_path: Path):
    knobs = {"BASE_URL": "", "HYBRID": str(tmp_path), "VANILLA": str(tmp_path), "OUT": str(tmp_path / "out")}
    done = run(f"recipes/{recipe}/run.sh", tmp_path, "dry_run=refused", **knobs)
    assert done.returncode == 2
    assert "vllm" not in (tmp_path / "calls").read_text()
    assert not (tmp_path / "out").exists()


def test_a_policy_that_is_not_there_is_refused_before_anything_is_started(tmp_path: Path):
    done = run("recipes/hybrid_vs_vanilla/run.sh", tmp_path, BASE_URL="", HYBRID="nowhere", VANILLA=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("nowhere: no such folder")
    assert not (tmp_path / "calls").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "runs"),
    [("ablation", 6), ("sensitivity", 4), ("hybrid_vs_vanilla", 4), ("boundary", 2)],
)
def test_a_recipe_solves_evaluates_reports_and_resumes(recipe: str, runs: int, tmp_path: Path):
    problems = [{**PROBLEM, "problem_id": f"p{i}", "question": f"{i}: {PROBLEM['question']}"} for i in range(2)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    out = tmp_path / "out"
    sizes = [f"method.{name}=2" for name in ("n_candidates", "n_verifications", "max_iterations")]
    with run_in_thread(ScriptedServer(reply)) as server:
        knobs = {
            **{"BASE_URL": server.base_url, "PROBLEMS": str(tmp_path / "problems.jsonl"), "OUT": str(out)},
            **{"SEEDS": "0 1", "EPSILONS": "0.4", "CANDIDATES": "", "VERIFICATIONS": ""},
        }
        for attempt in range(2):
            before = len(server.requests)
            command = [ROOT / "recipes" / recipe / "run.sh", *sizes]
            subprocess.run(command, env={**os.environ, **knobs}, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            assert (len(server.requests) == before) == (attempt == 1)
    found: list[Any] = [json.loads(file.read_text()) for file in sorted(out.glob("*/evaluation.json"))]
    assert len(found) == runs
    assert (out / "report.html").exists()
    assert sum(one["differences"] is None for one in found) == 2  # the two seeds of the first variant
    assert all(one["boundary"]["rule"]["difficulty_from"] == "other_seeds" for one in found)
