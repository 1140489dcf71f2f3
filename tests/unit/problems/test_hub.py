"""problems/hub.py: benchmarks from the hub, with a fake hub, and with the real package on a folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tmas.problems.hub import HubError
from tmas.problems.ids import read_ids
from tmas.problems.loader import ProblemFields, load_problems

CONF = Path(__file__).parents[3] / "conf"
ROWS = [
    {"id": f"q{i}", "problem": f"Question {i}", "answer": str(i), "category": "Math" if i % 2 else "Chemistry",
     "image": "data:..." if i == 7 else "", "picture": None}
    for i in range(40)
]  # fmt: skip
FIELDS = {"problem_id": "id", "question": "prompt", "answer_required": True}
SOURCE = {"path": "someone/hard", "split": "test", "columns": {"prompt": "problem"}}


class FakeDataset:
    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows, self.column_names = rows, list(rows[0])

    def select_columns(self, names: list[str]) -> FakeDataset:
        return FakeDataset([{name: row[name] for name in names} for row in self.rows])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        assert "picture" not in self.column_names, "images must not be decoded"
        return iter(self.rows)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """A hub that serves ROWS; what it was asked for."""
    calls: list[tuple[Any, ...]] = []

    def load_dataset(path: str, name: str | None, split: str, revision: str | None) -> FakeDataset:
        calls.append((path, name, split, revision))
        return FakeDataset(ROWS)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return calls


def load(**source: Any) -> list[str]:
    fields = ProblemFields.model_validate(FIELDS | {"hub": SOURCE | source})
    return [problem.problem_id for problem in load_problems("hub", fields).problems]


def test_rows_come_under_their_local_names_and_are_fetched_once(asked: list[Any]):
    assert load() == load() == [row["id"] for row in ROWS]
    assert asked == [("someone/hard", None, "test", None)]
    load(name="main", revision="abc")
    assert asked[1] == ("someone/hard", "main", "test", "abc")


def test_rows_are_chosen_by_their_values(asked: list[Any]):
    assert load(where={"category": "Math", "image": ""}) == [f"q{i}" for i in range(1, 40, 2) if i != 7]


def test_a_column_that_is_not_there_is_named(asked: list[Any]):
    with pytest.raises(HubError, match="no column 'question_text'"):
        load(columns={"prompt": "question_text"})


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError("Dataset 'someone/hard' is a gated dataset on the Hub."), "accept the terms on the page"),
        (ConnectionError("Couldn't reach 'someone/hard' on the Hub"), "cannot be loaded from the hub: Couldn't reach"),
        (ValueError("Unknown split 'test'"), "Unknown split"),
    ],
)
def test_what_the_hub_refuses_is_told_clearly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, message: str
):
    def load_dataset(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(HubError, match=message) as raised:
        load()
    assert ("HF_TOKEN" in str(raised.value)) == ("gated" in str(error))
    assert list(tmp_path.iterdir()) == []


def test_the_package_may_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(HubError, match="pip install datasets"):
        load()


def test_a_preset_without_a_place_on_the_hub():
    with pytest.raises(HubError, match="names no data set on the hub"):
        load_problems("hub")


@pytest.mark.slow
def test_the_real_package_reads_a_folder_like_a_data_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pytest.importorskip("datasets")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "hard"
    folder.mkdir()
    (folder / "test.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    assert load(path=str(folder), where={"category": "Math", "image": ""}) == [
        f"q{i}" for i in range(1, 40, 2) if i != 7
    ]


@pytest.mark.slow
def test_hle_math_100_is_selected_by_ids_from_a_data_set_of_the_same_form(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    pytest.importorskip("datasets")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "hle"
    folder.mkdir()
    ids = sorted(read_ids(Path("hle_math_100")))
    rows = [hle_row(name, "multipleChoice" if n < 8 else "exactMatch") for n, name in enumerate([*ids, "other"])]
    (folder / "test.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    preset = yaml.safe_load((CONF / "data" / "hle_math_100.yaml").read_text())
    hub = preset["hub"] | {"path": str(folder)}
    fields = ProblemFields.model_validate({key: preset[key] for key in ("problem_id", "ids")} | {"hub": hub})
    problems = load_problems("hub", fields).problems
    assert [problem.problem_id for problem in problems] == ids
    assert [problem.answer for problem in problems[:8]] == ["B"] * 8


def hle_row(name: str, answer_type: str) -> dict[str, str]:
    """A row with the columns of cais/hle."""
    answer = "B" if answer_type == "multipleChoice" else "7"
    return {
        **{"id": name, "question": f"Question {name}", "image": "", "answer": answer, "answer_type": answer_type},
        **{"category": "Math", "raw_subject": "Mathematics", "rationale": ""},
    }
