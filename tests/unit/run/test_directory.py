"""run/directory.py: one writer at a time, and only the run that was begun goes on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from tmas.prompts import BUILT_IN, Prompts
from tmas.records import SCHEMA_VERSION, Problem, Record
from tmas.records.reading import read_records
from tmas.run import directory as run_directory
from tmas.run.directory import RunDirectory, RunRefused, counts_chat_template
from tmas.run.metrics import metrics
from tmas.run.trace import Trace, trace_path


class Named(Record):
    problem_id: str


class Counted(Record):
    a: int | str


SETTINGS = {"seed": 0, "method.max_iterations": 20, "model.name": "m", "model.extra": {}, "model.stop": ["é", "\n"]}
PROBLEMS = [
    Problem(problem_id="p1", question="1 + 1?", answer="2"),
    Problem(problem_id="p/2", question="Prove it.", answer=None),
]


def begin(path: Path, problems: list[Problem] = PROBLEMS, **changes: Any) -> RunDirectory:
    return RunDirectory(path, {**SETTINGS, **changes}, problems, may_increase=("method.max_iterations",))


def refusal(path: Path, problems: list[Problem] = PROBLEMS, **changes: Any) -> str:
    with pytest.raises(RunRefused) as refused:
        begin(path, problems, **changes)
    return str(refused.value)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A directory in which a run was begun, has recorded something and has ended."""
    begin(tmp_path / "run").close()
    (tmp_path / "run" / "predictions.jsonl").write_text('{"problem_id": "p1"}\n')
    return tmp_path / "run"


# --- one writer


def test_a_second_writer_is_refused_and_told_who_holds_it(run: Path):
    (run / ".lock").write_text("process 1 on a machine with a long name, long gone\n" * 9)
    with closing(begin(run)):
        assert f"in use by another run (process {os.getpid()} on {socket.gethostname()})" in refusal(run)
    begin(run).close()


def test_a_writer_in_another_process_is_named_and_gone_with_it(run: Path):
    code = (
        "import pathlib, sys, time; from tmas.run.directory import RunDirectory;"
        f"held = RunDirectory(pathlib.Path(sys.argv[1]), {SETTINGS!r}, []); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            assert f"process {holder.pid} on" in refusal(run)
        finally:
            holder.kill()
    begin(run).close()


def test_a_refused_run_holds_nothing(run: Path):
    refusal(run, seed=1)
    begin(run).close()


# --- the same run


def test_the_same_run_goes_on(tmp_path: Path):
    with closing(begin(tmp_path / "a" / "run")) as first:
        first.record_reported({"model.solution.context_length": 4096})
        first.append("predictions.jsonl", [Named(problem_id="p1")])
    manifest = (tmp_path / "a" / "run" / "manifest.json").read_bytes()
    begin(tmp_path / "a" / "run").close()
    assert (tmp_path / "a" / "run" / "manifest.json").read_bytes() == manifest


def test_a_run_that_an_older_version_began_never_counts_chat_templates(run: Path, tmp_path: Path):
    assert counts_chat_template(tmp_path / "nothing")
    assert counts_chat_template(run)
    manifest = orjson.loads((run / "manifest.json").read_bytes())
    del manifest["chat_template"]
    (run / "manifest.json").write_bytes(orjson.dumps(manifest))
    begin(run).close()
    assert not counts_chat_template(run)


def test_what_has_recorded_nothing_takes_other_settings(tmp_path: Path):
    with closing(begin(tmp_path)) as directory:
        directory.record_reported({"model.solution.context_length": 4096})
        Trace(trace_path(tmp_path, "p1")).close()
        directory.replace("predictions.jsonl", [])
    with closing(begin(tmp_path, seed=1)) as directory:
        manifest = orjson.loads((tmp_path / "manifest.json").read_bytes())
        assert manifest["settings"]["seed"] == 1
        directory.record_reported({"model.solution.context_length": 8192})  # nor does what another server told bind it
        directory.append("predictions.jsonl", [Named(problem_id="p1")])
    assert "seed: 1 in the run, 0 now" in refusal(tmp_path)


def test_all_differing_settings_are_named_with_both_values(run: Path):
    manifest = (run / "manifest.json").read_bytes()
    message = refusal(run, seed=1, **{"model.name": "other", "model.new": True})
    assert "seed: 0 in the run, 1 now" in message
    assert "model.name: 'm' in the run, 'other' now" in message
    assert "model.new: None in the run, True now" in message
    assert "max_iterations" not in message
    assert (run / "manifest.json").read_bytes() == manifest


def test_iterations_may_grow_but_not_shrink(run: Path):
    begin(run, **{"method.max_iterations": 30}).close()
    assert "method.max_iterations: 30 in the run, 20 now" in refusal(run)


def test_problems_may_be_added_and_left_out(run: Path):
    more = Problem(problem_id="p3", question="3?")
    begin(run, [*PROBLEMS, more]).close()
    begin(run, [more]).close()
    begin(run, []).close()
    assert set(orjson.loads((run / "manifest.json").read_bytes())["problems"]) == {"p1", "p/2", "p3"}


@pytest.mark.parametrize("changes", [{"question": "1 + 2?"}, {"answer": "3"}, {"answer": None}])
def test_a_changed_problem_is_refused_by_name(run: Path, changes: Mapping[str, Any]):
    begin(run, PROBLEMS[1:]).close()
    message = refusal(run, [PROBLEMS[0].model_copy(update=changes), PROBLEMS[1]])
    assert "problem 'p1': its question or answer changed" in message
    assert "p/2" not in message


def with_prompts(path: Path, **replaced: str) -> RunDirectory:
    return RunDirectory(path, SETTINGS, PROBLEMS, prompts=Prompts(replaced))


def test_a_prompt_file_that_came_with_a_new_method_refuses_no_run(run: Path, monkeypatch: pytest.MonkeyPatch):
    hashes = BUILT_IN.hashes()
    monkeypatch.setattr(Prompts, "hashes", lambda _: {**hashes, "new_method": "0"})
    begin(run).close()


def test_a_changed_prompt_file_is_refused_by_name(run: Path):
    with pytest.raises(RunRefused) as refused:
        with_prompts(run, summary="Other.")
    changed = Prompts({"summary": "Other."}).hash("summary")
    assert f"prompt summary.jinja: '{BUILT_IN.hash('summary')}' in the run, '{changed}' now" in str(refused.value)
    assert "prompt solution" not in str(refused.value)


def test_replaced_prompts_of_agents_are_kept_and_named_when_they_are_left_out(tmp_path: Path):
    with_prompts(tmp_path, summary="Old.", form="Old.").close()
    with_prompts(tmp_path, summary="Ünlike.", judge_novelty="Other.").close()  # nothing was recorded yet
    assert {f.name: f.read_text("utf-8") for f in (tmp_path / "prompts").iterdir()} == {"summary.jinja": "Ünlike."}
    (tmp_path / "predictions.jsonl").write_text('{"problem_id": "p1"}\n')
    message = refusal(tmp_path)
    assert "prompt summary.jinja: " in message
    assert f"(set prompts={tmp_path / 'prompts'} to use this run's own prompts)" in message
    with_prompts(tmp_path, summary="Ünlike.").close()


def test_another_schema_version_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_directory, "SCHEMA_VERSION", 999)
    assert f"schema version {SCHEMA_VERSION}, not 999" in refusal(run)


def test_a_file_in_place_of_a_folder_is_refused_and_left_alone(tmp_path: Path):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    assert "notes.txt is a file, not a run directory: use another output_dir" in refusal(file)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("mine", ["notes.txt", "trace/something.jsonl", ".git/config"])
def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path: Path, mine: str):
    file = tmp_path / mine
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    before = set(tmp_path.rglob("*"))
    message = refusal(tmp_path)
    assert "is neither a run directory nor empty" in message
    assert message.count(str(tmp_path)) == 2
    assert set(tmp_path.rglob("*")) == before


def test_a_run_is_begun_in_an_empty_folder_and_where_a_start_was_killed(tmp_path: Path):
    begin(tmp_path).close()
    (tmp_path / "manifest.json").rename(tmp_path / ".manifest.json.new")
    begin(tmp_path).close()


@pytest.mark.parametrize("manifest", ['{"name": "an extension", "version": 3}', "[]", '{"schema_ver', ""])
def test_a_manifest_of_something_else_is_refused_by_name(tmp_path: Path, manifest: str):
    (tmp_path / "manifest.json").write_text(manifest)
    message = refusal(tmp_path)
    assert str(tmp_path / "manifest.json") in message
    assert "was not written by tmas" in message
    assert (tmp_path / "manifest.json").read_text() == manifest


# --- its files


def test_traces_lie_in_the_directory_whatever_the_problem_is_called(run: Path):
    with closing(begin(run)) as directory:
        for problem_id in ("p1", "../../p", "/etc/passwd"):
            with closing(Trace(trace_path(directory.path, problem_id))) as trace:
                assert trace.path.resolve().parent == (run / "trace").resolve()
    assert len(list((run / "trace").iterdir())) == 3


def test_every_file_is_on_disk_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(f"synced {os.fstat(file).st_size}"), fsync(file)))

    def renamed(old: Path, new: Path) -> None:
        done.append(f"{new.name} {old.stat().st_size}")
        replace(old, new)

    monkeypatch.setattr(os, "replace", renamed)
    with closing(RunDirectory(tmp_path, SETTINGS, PROBLEMS, config={"a": 1})) as directory:
        directory.write_metrics(metrics([]))
        directory.replace("lines.jsonl", [Counted(a=3)])
    written = ("manifest.json", "config.yaml", "metrics.json", "lines.jsonl")
    assert {file.name for file in tmp_path.iterdir()} == {".lock", "trace", *written}
    sizes = {name: (tmp_path / name).stat().st_size for name in written}
    assert done == [step for name in written for step in (f"synced {sizes[name]}", f"{name} {sizes[name]}")]


def test_the_config_is_written_as_it_was_composed(tmp_path: Path):
    config = {"problems": "é.jsonl", "model": {"name": "m", "roles": {}}, "limits": None}
    RunDirectory(tmp_path, SETTINGS, PROBLEMS, config=config).close()
    assert yaml.safe_load((tmp_path / "config.yaml").read_text("utf-8")) == config


def test_lines_are_appended_and_a_torn_one_is_not_read(tmp_path: Path):
    run = tmp_path
    with closing(begin(run)) as directory:
        assert list(directory.lines("predictions.jsonl", Counted)) == []
        directory.append("predictions.jsonl", [Counted(a="é\n"), Counted(a=2)])
        directory.append("predictions.jsonl", [Counted(a=3)])
    with (run / "predictions.jsonl").open("ab") as file:
        file.write(b'{"a": 4')
    assert [line.a for line in read_records(run / "predictions.jsonl", Counted)] == ["é\n", 2, 3]


def test_a_replacement_is_there_as_a_whole_or_not_at_all(run: Path, monkeypatch: pytest.MonkeyPatch):
    def breaking() -> Iterator[Counted]:
        yield Counted(a="new")
        raise KeyboardInterrupt

    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    with closing(begin(run)) as directory:
        directory.append("lines.jsonl", [Counted(a=1), Counted(a=2)])
        with pytest.raises(KeyboardInterrupt):
            directory.replace("lines.jsonl", breaking())
        with monkeypatch.context() as killed:
            killed.setattr(os, "fsync", kill)
            with pytest.raises(KeyboardInterrupt):
                directory.replace("lines.jsonl", [Counted(a="new")])
        assert list(directory.lines("lines.jsonl", Counted)) == [Counted(a=1), Counted(a=2)]
        directory.replace("lines.jsonl", (line for line in directory.lines("lines.jsonl", Counted) if line.a == 2))
        assert list(directory.lines("lines.jsonl", Counted)) == [Counted(a=2)]
