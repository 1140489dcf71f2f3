"""problems/ids.py: problems that are selected by a list of ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.support.benchmarks import DATA, needs_data
from tmas.errors import UserError
from tmas.problems.ids import read_ids
from tmas.problems.loader import ProblemFields, ProblemFileError, load_problems

ROWS = [
    {"id": "c", "question": "Third?", "answer": "3"},
    {"id": "a", "question": "First?", "answer": "B"},
    {"id": "picture", "question": "", "answer": ""},
    {"id": "b", "question": "Second?", "answer": "2"},
]


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    file = tmp_path / "exam.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def listed(folder: Path, *lines: str) -> ProblemFields:
    (folder / "ids.txt").write_text("\n".join(lines))
    return ProblemFields(problem_id="id", answer_required=True, ids=folder / "ids.txt")


def test_only_listed_problems_are_kept_and_other_rows_may_be_invalid(problems: Path):
    found = load_problems(problems, listed(problems.parent, "# two of them", "b", "", "  c  ")).problems
    assert [problem.problem_id for problem in found] == ["c", "b"]  # in the order of the file


def test_an_invalid_row_of_a_listed_problem_is_refused(problems: Path):
    with pytest.raises(ProblemFileError, match=r"exam\.jsonl:3: field 'question': empty"):
        load_problems(problems, listed(problems.parent, "picture", "a"))


@pytest.mark.parametrize("on_bad", ["refuse", "skip"])
def test_missing_ids_are_one_error_that_says_how_many(problems: Path, on_bad: str):
    fields = listed(problems.parent, "a", "z", "b", "y")
    with pytest.raises(ProblemFileError, match=r"2 of the 4 problems of .*ids.txt are missing, such as y") as raised:
        load_problems(problems, fields, on_bad=on_bad)  # type: ignore[arg-type]
    assert len(raised.value.defects) == 1


def test_a_list_that_cannot_be_read_is_named_with_the_lists_that_there_are(tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere.txt: the list of problem ids .*\(hle_math_100\)"):
        read_ids(tmp_path / "nowhere.txt")
    (tmp_path / "empty.txt").write_text("# no id\n")
    with pytest.raises(UserError, match="has no id"):
        read_ids(tmp_path / "empty.txt")


def test_numbered_problems_cannot_be_selected_by_ids():
    with pytest.raises(ValidationError, match="ids needs problem_id"):
        ProblemFields(problem_id=None, ids=Path("hle_math_100"))


def test_the_package_has_the_100_ids_of_hle_math():
    ids = read_ids(Path("hle_math_100"))
    assert len(ids) == 100
    assert all(len(name) == 24 and int(name, 16) for name in ids)


@needs_data
def test_the_ids_are_those_of_the_rse_release():
    release = (DATA / "hle-math-100" / "raw_ids.txt").read_text().split()
    assert read_ids(Path("hle_math_100")) == set(release)


def test_a_list_that_is_a_device_is_refused():
    with pytest.raises(UserError, match="/dev/zero: the list of problem ids cannot be read: is not a regular file"):
        read_ids(Path("/dev/zero"))
