"""files.py: what a kill leaves, which line is damaged, and digests that lie on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tmas.errors import UserError
from tmas.files import (
    append_lines,
    cut_torn_line,
    digest,
    file_digest,
    read_lines,
    scan_lines,
    text_digest,
    whole_file,
    whole_folder,
    write_json,
    write_lines,
    write_whole,
)
from tmas.records import Problem

KILLED_BEFORE_IT_REPLACES = """
import os, signal, sys
from pathlib import Path
from tmas.files import write_lines
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_lines(Path(sys.argv[1]), [{"new": 1}])
"""


def test_a_kill_between_writing_and_replacing_leaves_the_old_file(tmp_path: Path):
    file = tmp_path / "lines.jsonl"
    write_lines(file, [{"old": 1}])
    killed = subprocess.run([sys.executable, "-c", KILLED_BEFORE_IT_REPLACES, str(file)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert file.read_bytes() == b'{"old":1}\n'
    assert (tmp_path / ".lines.jsonl.new").read_bytes() == b'{"new":1}\n'
    write_lines(file, [{"newer": 1}])  # what the kill left is in nobody's way
    assert [path.name for path in tmp_path.iterdir()] == ["lines.jsonl"]
    assert file.read_bytes() == b'{"newer":1}\n'


def test_a_file_is_on_the_disk_before_it_replaces_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    steps: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda file: steps.append(f"sync {os.fstat(file).st_size} bytes"))
    monkeypatch.setattr(os, "replace", lambda *paths: (steps.append("replace"), replace(*paths)))
    write_whole(tmp_path / "new" / "file", b"four")
    assert steps == ["sync 4 bytes", "replace"]
    assert (tmp_path / "new" / "file").read_bytes() == b"four"


def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    file = tmp_path / "file"
    write_json(file, {"a": 1})

    def interrupted() -> None:
        with whole_file(file) as new:
            new.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert file.read_bytes() == b'{\n  "a": 1\n}'
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_appears_when_it_is_complete(tmp_path: Path):
    (tmp_path / ".model.new").mkdir()
    (tmp_path / ".model.new" / "of an earlier kill").touch()
    with whole_folder(tmp_path / "model") as folder:
        (folder / "weights").write_bytes(b"1")
        assert not (tmp_path / "model").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "weights"]
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "other") as folder:
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_lines_are_read_with_their_places_and_an_incomplete_last_one_is_left_out(tmp_path: Path):
    file = tmp_path / "lines.jsonl"
    assert write_lines(file, [{"a": "é\n"}, Problem(problem_id="p", question="1 + 1?")]) == 2
    append_lines(file, [{"a": 3}])
    with file.open("ab") as torn:
        torn.write(b'{"a": 4')
    lines = list(scan_lines(file))
    assert [line.value for line in lines] == list(read_lines(file))
    assert [line.value.get("a") for line in lines] == ["é\n", None, 3]
    assert lines[1].value["question"] == "1 + 1?"
    content = file.read_bytes()
    assert [content[line.start : line.end].count(b"\n") for line in lines] == [1, 1, 1]
    assert [line.number for line in lines] == [1, 2, 3]
    cut_torn_line(file, lines[-1].end)
    append_lines(file, [{"a": 5}])
    assert [line.get("a") for line in read_lines(file)] == ["é\n", None, 3, 5]


def test_a_damaged_line_is_named_with_file_and_number(tmp_path: Path):
    class Damaged(UserError):
        pass

    file = tmp_path / "lines.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(UserError, match=r"lines\.jsonl:2: damaged line \(unexpected"):
        list(read_lines(file))
    with pytest.raises(Damaged, match=r"lines\.jsonl:2: damaged line .*\)\. Move it away\.$"):
        list(scan_lines(file, Damaged, "Move it away."))


def test_no_file_has_no_lines_but_cannot_be_scanned(tmp_path: Path):
    assert list(read_lines(tmp_path / "nowhere.jsonl")) == []
    with pytest.raises(FileNotFoundError):
        list(scan_lines(tmp_path / "nowhere.jsonl"))


def test_digests_are_those_of_runs_on_disk(tmp_path: Path):
    (tmp_path / "file").write_bytes("é".encode())
    sha256 = "4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c"
    assert text_digest("é", 64) == text_digest("é".encode(), 64) == file_digest(tmp_path / "file", 64) == sha256
    assert file_digest(tmp_path / "file") == text_digest("é") == sha256[:20]
    assert digest({"b": 1, "a": [None]}) == digest({"a": [None], "b": 1}) == text_digest('{"a":[null],"b":1}')
