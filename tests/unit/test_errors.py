"""errors.py: the message of a user's mistake, and its way through other processes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tmas.errors import FileDefects, UserError
from tmas.evaluation.runs import read_run
from tmas.files import read_lines
from tmas.problems.loader import ProblemFileError
from tmas.prompts.texts import PromptError
from tmas.run.directory import RunRefused
from tmas.run.replay import RecordedRun
from tmas.run.trace import TraceError
from tmas.training.rows import RowFileError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("the server is of another model"), "the server is of another model"),
        (UserError("is empty", where=Path("p.jsonl")), "p.jsonl: is empty"),
        (UserError("is empty", where="p.jsonl:3", remedy="Remove it."), "p.jsonl:3: is empty. Remove it."),
        (UserError("two defects:\n  one\n  two", remedy="Mend both."), "two defects:\n  one\n  two\nMend both."),
        (FileDefects(["a: 1", "b: 2"]), "a: 1\nb: 2"),
        (FileDefects(["a: 1"] * 1021, "Skip them."), "\n".join(["a: 1"] * 20) + "\nand 1,001 more\nSkip them."),
    ],
)
def test_the_message_says_where_what_and_what_to_do(error: UserError, message: str):
    assert str(error) == message


@pytest.mark.parametrize(
    "error",
    [
        UserError("is empty", where="p.jsonl:3", remedy="Remove it."),
        RunRefused.with_differences(Path("runs/x"), ["seed: 0 in the run, 1 now"]),
        TraceError("t.jsonl:2: damaged line"),
        PromptError("form.jinja: not UTF-8"),
        ProblemFileError(["p.jsonl:1: empty", "p.jsonl:2: empty"]),
        RowFileError([f"row {number}" for number in range(30)]),
    ],
)
def test_it_passes_unchanged_between_processes(error: UserError):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert isinstance(copy, UserError)


def test_a_bug_is_no_mistake_of_the_user():
    assert not issubclass(UserError, ValueError)  # which zip(strict=True) raises, for example


def test_a_damaged_line_of_a_run_s_file_is_named(tmp_path: Path):
    file = tmp_path / "predictions.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": \n{"a": 2}\n')
    lines = read_lines(file)
    assert next(lines) == {"a": 1}
    with pytest.raises(UserError, match=r"predictions\.jsonl:2: damaged line \("):
        next(lines)


@pytest.mark.parametrize("read", [read_run, RecordedRun])
def test_a_damaged_manifest_is_named(read: Callable[[Path], object], tmp_path: Path):
    (tmp_path / "manifest.json").write_bytes(b"{")
    with pytest.raises(UserError, match=r"manifest\.json: damaged \("):
        read(tmp_path)
