"""training/rl/inputs.py: prompts are counted as the policy's chat template renders them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError
from omegaconf import DictConfig, OmegaConf
from pyarrow import parquet

from tests.support.rewards import GOLD, QUESTION, extra_info
from tmas.records import Message
from tmas.training.rl.inputs import Policy, load_files, load_policy
from tmas.training.rl.model_shape import KNOWN
from tmas.training.rows import ExtraInfo, RewardModel, TrainingRow, write_rows

SHAPE = KNOWN["Qwen3-4B-Thinking-2507"]


class Words:
    """A tokenizer with a chat template of one word per role. ``system``: whether it knows a system message."""

    def __init__(self, system: bool = True) -> None:
        self._system = system

    def apply_chat_template(self, chat: list[dict[str, str]], **_: Any) -> list[str]:
        if not self._system and chat[0]["role"] == "system":
            raise TemplateError("System role not supported")
        return [word for message in chat for word in (message["role"], *message["content"].split())]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A file of rows without a system message, and one with it."""
    info = ExtraInfo.model_validate(
        {k: v for k, v in extra_info().items() if k in ExtraInfo.model_fields}
        | {"iteration": -1, "experience": "[]", "guidelines": "[]", "origin": "", "licence": ""}
    )
    row = TrainingRow(
        prompt=(Message(role="user", content=QUESTION),),
        data_source="math",
        reward_model=RewardModel(style="rule", ground_truth=GOLD),
        extra_info=info,
        source="normal",
    )
    system = Message(role="system", content="Think step by step.")
    write_rows(tmp_path / "plain.parquet", [row])
    write_rows(tmp_path / "system.parquet", [row, row.model_copy(update={"prompt": (system, *row.prompt)})])
    return [str(tmp_path / name) for name in ("plain.parquet", "system.parquet")]


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the policies that were loaded. The current folder contains ``here/policy``."""
    found: list[str] = []
    (tmp_path / "here" / "policy").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Policy, "load", lambda config: found.append(config.actor_rollout_ref.model.path))
    return found


def policy_at(path: str) -> DictConfig:
    return OmegaConf.create({"actor_rollout_ref": {"model": {"path": path}}})


MISSING = ["./policy", "../policy", "/nowhere/policy", "/nowhere", "~/policy", "runs/sft/final"]


@pytest.mark.parametrize("path", MISSING)
def test_a_missing_folder_is_not_asked_for_on_the_hub(path: str, loaded: list[str]):
    defects: list[str] = []
    assert load_policy(policy_at(path), defects) is None
    [defect] = defects
    assert defect.startswith(f"policy.path {path}: there is no such folder")
    assert loaded == []


@pytest.mark.parametrize("path", ["org/name", "name", "here/policy", "./here/policy", "here/name-on-the-hub"])
def test_a_hub_name_and_a_folder_are_loaded(path: str, loaded: list[str]):
    load_policy(policy_at(path), [])
    assert loaded == [path]


def test_a_system_message_counts(files: list[str]):
    defects: list[str] = []
    plain, system = load_files(files, Policy(100, Words(), SHAPE), defects)
    assert defects == []
    assert system.longest_prompt == plain.longest_prompt + 5


def test_a_template_without_a_system_message_is_refused_with_the_row(files: list[str]):
    defects: list[str] = []
    [plain] = load_files(files, Policy(100, Words(system=False), SHAPE), defects)
    assert str(plain.path) == files[0]
    [defect] = defects
    assert defect.startswith(f"{files[1]}: row 2: field prompt: the policy's chat template refuses it: System role")


def test_each_file_is_read_once(files: list[str], monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []

    class Opened(parquet.ParquetFile):
        def __init__(self, path: Path) -> None:
            opened.append(str(path))
            super().__init__(path)

    monkeypatch.setattr(parquet, "ParquetFile", Opened)
    assert [file.rows for file in load_files(files, Policy(100, Words(), SHAPE), [])] == [1, 2]
    assert opened == files


def test_all_invalid_rows_are_named_before_what_the_template_refuses(files: list[str]):
    table = parquet.read_table(files[1])
    rows = [*table.to_pylist(), *table.to_pylist()]
    rows[2]["_source"] = "guideline"
    parquet.write_table(table.from_pylist(rows, table.schema), files[1])
    defects: list[str] = []
    assert load_files(files[1], Policy(100, Words(system=False), SHAPE), defects) == []
    [defect] = defects
    assert "row 3: field _source" in defect
    assert "row 4: field extra_info.index: row 2 also has the index 1" in defect
    assert "chat template" not in defect
