"""recipes/adaptive: its script, with stand-ins for the programs that it calls, and its noise for the verifier.

Also the scripted team of benchmarks/adaptive_scheduling.py.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.adaptive_scheduling import RIGHT, scripted
from recipes.adaptive.noise import application, served, with_flipped_grade
from tmas import asolve
from tmas.methods.tmas import TMASSettings
from tmas.testing import team
from tmas.testing.chat_server import ScriptedServer

ROOT = Path(__file__).parents[2]


def run_recipe(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """recipes/adaptive/run.sh with stand-ins for python and tmas, which print ``MODEL_URL`` and their arguments."""
    for name in ("python", "tmas"):
        (folder / name).write_text('#!/bin/sh\necho "${MODEL_URL-unset}: $*"\n')
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "OUT": str(folder / "out"), **variables}
    command = [ROOT / "recipes/adaptive/run.sh", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["COUNT", "SPLIT", "N", "M", "MODEL", "PRICE"])
def test_a_folder_is_resumed_only_with_the_same_settings(name: str, tmp_path: Path):
    assert run_recipe(tmp_path).returncode == run_recipe(tmp_path).returncode == 0
    refused = run_recipe(tmp_path, **{name: "9"})
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"{tmp_path / 'out'} was started with COUNT=100" in refused.stderr
    assert f"{name}=9" in refused.stderr


def test_a_folder_is_resumed_with_more_seeds_and_not_with_other_arguments(tmp_path: Path):
    assert run_recipe(tmp_path, "method.epsilon=0.5", SEEDS="0").returncode == 0
    assert run_recipe(tmp_path, "method.epsilon=0.5", SEEDS="0 1").returncode == 0
    assert run_recipe(tmp_path, SEEDS="0").returncode == 2


def test_the_teacher_is_used_even_if_the_user_s_shell_has_the_address_of_a_model(tmp_path: Path):
    done = run_recipe(tmp_path, MODEL="teacher", MODEL_URL="http://host/v1")
    [solving] = [line for line in done.stdout.splitlines() if "recipes.adaptive.noise" in line]
    assert solving.startswith("unset: ")


def test_the_verifier_behind_the_noise_has_the_price_of_the_model(tmp_path: Path):
    (tmp_path / "tmas").write_text('#!/bin/sh\necho "$*"\n')
    (tmp_path / "tmas").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "OUT": str(tmp_path / "out"), "PROBLEMS": "p.jsonl"}
    price = {"PRICE": "model.price.input=1 model.price.output=4"}
    command = ["bash", "recipes/adaptive/solve.sh"]
    done = subprocess.run(command, env=environment | price, cwd=ROOT, capture_output=True, text=True, check=True)
    for setting in price["PRICE"].split():
        assert f" {setting} " in done.stdout
        assert setting.replace("model.price", "model.roles.verification.price") in done.stdout.split()
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "price" not in done.stdout


def test_a_share_of_the_last_grades_is_flipped_and_always_the_same_ones():
    text = "It says \\boxed{0.5}.\nThe final grade is: \\boxed{1}"
    assert with_flipped_grade(text, 1, 0, rate=1) == "It says \\boxed{0.5}.\nThe final grade is: \\boxed{0}"
    assert (
        with_flipped_grade("\\boxed{0.5}", 1, 0, rate=1)
        == with_flipped_grade("\\boxed{0}", 1, 0, rate=1)
        == "\\boxed{1}"
    )
    assert with_flipped_grade("no grade", 1, 0, rate=1) == "no grade"
    noisy = [with_flipped_grade(text, seed, 0, rate=0.2) for seed in range(500)]
    assert 0.15 < sum(one != text for one in noisy) / 500 < 0.25
    assert noisy == [with_flipped_grade(text, seed, 0, rate=0.2) for seed in range(500)]


async def test_the_proxy_changes_grades_and_nothing_else():
    async with ScriptedServer(team.reply) as server, served(application(server.base_url)) as noise:
        model = team.model(server.base_url)
        method = TMASSettings(n_candidates=2, n_verifications=3, max_iterations=1)
        plain = await asolve("What is 1 + 1?", model, method)
        roles = {"verification": {"base_url": f"{noise}/1/v1"}}
        noisy = await asolve("What is 1 + 1?", team.model(server.base_url, roles=roles), method)
    [ours], [theirs] = plain.trajectory.iterations, noisy.trajectory.iterations
    assert [r.solution for r in ours.rollouts] == [r.solution for r in theirs.rollouts]
    turned = {1.0: 0.0, 0.5: 1.0, 0.0: 1.0}
    assert [[turned[g] for g in r.grades] for r in ours.rollouts] == [r.grades for r in theirs.rollouts]


def test_the_scripted_verifier_of_the_simulation_errs_as_often_as_it_should():
    prompt = f"Number 3 of 9?\n{RIGHT}\nYou are a strict verifier."
    body = {"messages": [{"role": "user", "content": prompt}], "n": 400, "seed": 1}
    wrong = sum("{0}" in text for text in scripted(0.1, "verification", body))
    assert 20 < wrong < 60
