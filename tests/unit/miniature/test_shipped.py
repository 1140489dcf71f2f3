"""The files that ship with the package: they match their manifest, and `ship` writes only what fits."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import pytest

from recipes.miniature.language import answer, blocks_in
from recipes.miniature.ship import FILES, MAX_BYTES, PROBLEM_COUNT, ship
from recipes.miniature.task import solutions, split_of
from tmas.miniature import FOLDER, MANIFEST, POLICY, PROBLEMS, PROMPTS, DamagedPolicy, read_manifest
from tmas.problems.loader import load_problems
from tmas.prompts import Prompts
from tmas.prompts.texts import built_in_texts


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """A copy of the shipped files that a test may damage."""
    copy = tmp_path / "shipped"
    for folder in (POLICY, PROMPTS):
        shutil.copytree(folder, copy / folder.name)
    for file in (PROBLEMS, MANIFEST):
        shutil.copy(file, copy)
    return copy


def test_the_shipped_files_match_the_manifest_and_are_small():
    manifest = read_manifest()
    prompts = {name for name in manifest["files"] if name.startswith("prompts/")}
    assert {"prompts/solution.jinja", "prompts/experience.jinja"} < prompts
    assert manifest["files"].keys() - prompts == {*(f"policy/{name}" for name in FILES), "problems.jsonl"}
    size = sum((FOLDER / name).stat().st_size for name in manifest["files"])
    assert manifest["bytes"] == size <= MAX_BYTES
    assert manifest["parameters"] < 1_000_000


def test_the_shipped_prompts_are_whole_and_can_be_used():
    shipped = Prompts.load(PROMPTS)
    texts = {file.stem: file.read_text("utf-8") for file in PROMPTS.iterdir()}
    assert {"solution", "verification", "summary", "experience", "guideline"} < texts.keys()
    assert shipped.replaced == {name: text for name, text in texts.items() if text != built_in_texts()[name]}
    assert "attempts" in shipped.files_of("solution")


def test_the_shipped_problems_are_test_problems_with_their_only_answer():
    problems = load_problems(PROBLEMS).problems
    assert len(problems) == PROBLEM_COUNT
    for problem in problems:
        blocks = blocks_in(problem.question)
        assert {split_of(block) for block in blocks} == {"test"}
        assert [answer(candidate) for candidate in solutions(blocks)] == [problem.answer]


def test_a_changed_a_missing_and_an_unlisted_file_are_named(shipped: Path):
    assert read_manifest(shipped) == read_manifest()
    weights = bytearray((shipped / "policy/model.safetensors").read_bytes())
    weights[-1] ^= 1
    (shipped / "policy/model.safetensors").write_bytes(weights)
    (shipped / "policy/tokenizer.json").unlink()
    (shipped / "policy/adapter.safetensors").touch()
    with pytest.raises(DamagedPolicy) as raised:
        read_manifest(shipped)
    assert "policy/model.safetensors is changed" in str(raised.value)
    assert "policy/tokenizer.json is missing" in str(raised.value)
    assert "policy/adapter.safetensors is not listed" in str(raised.value)


def test_without_a_manifest_it_is_named(shipped: Path):
    (shipped / "manifest.json").unlink()
    with pytest.raises(DamagedPolicy, match=r"manifest\.json is missing"):
        read_manifest(shipped)


def test_ship_writes_what_the_package_has_and_how_it_was_trained(shipped: Path, tmp_path: Path):
    for stage, (before, rate) in {"first": ("untrained", 0.02), "second": ("first/final", 0.01)}.items():
        (tmp_path / stage).mkdir()
        settings = {"model.path": str(tmp_path / before), "learning_rate": rate}
        (tmp_path / stage / "manifest.json").write_bytes(orjson.dumps(settings))
    final = tmp_path / "second" / "final"
    shutil.copytree(shipped / "policy", final)
    (final / "optimizer.pt").touch()
    target = tmp_path / "target"
    manifest = ship(final, PROBLEMS, target)
    assert manifest["stages"] == [{"learning_rate": 0.02}, {"learning_rate": 0.01}]  # in order, without paths
    shipped_now = read_manifest()["files"]
    assert {n: h for n, h in manifest["files"].items() if n in shipped_now and not n.startswith("prompts/")} == {
        n: h for n, h in shipped_now.items() if not n.startswith("prompts/")
    }
    agents = {name for name in built_in_texts() if not name.startswith("judge_")}
    assert {file.stem: file.read_text() for file in (target / "prompts").iterdir()} == {
        name: built_in_texts()[name] for name in agents
    }
    assert read_manifest(target)["stages"] == manifest["stages"]


def test_ship_refuses_a_policy_that_is_too_large_and_leaves_the_target_alone(shipped: Path, tmp_path: Path):
    with (shipped / "policy/model.safetensors").open("r+b") as weights:
        weights.truncate(MAX_BYTES)
    target = tmp_path / "target"
    with pytest.raises(ValueError, match="at most 4,000,000 are shipped"):
        ship(shipped / "policy", PROBLEMS, target)
    assert not target.exists()


def test_ship_refuses_too_few_problems(tmp_path: Path):
    few = tmp_path / "few.jsonl"
    few.write_bytes(b"{}\n" * (PROBLEM_COUNT - 1))
    with pytest.raises(ValueError, match=r"few\.jsonl has 29 problems: 30 are shipped"):
        ship(POLICY, few, tmp_path / "target")


def test_ship_refuses_the_folder_that_it_would_replace(shipped: Path):
    with pytest.raises(ValueError, match="is the shipped policy itself"):
        ship(shipped / "policy", PROBLEMS, shipped)
    assert read_manifest(shipped) == read_manifest()
