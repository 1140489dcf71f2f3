"""run/trace.py: what was added is found again, whatever a kill or a full disk left of the file."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tmas.records import (
    SCHEMA_VERSION,
    CallKey,
    Completion,
    Failure,
    FailureReason,
    Message,
    PackingNote,
    Reply,
    Request,
    Sampling,
    Usage,
)
from tmas.records.reading import read_records
from tmas.records.run_files import DamagedLine
from tmas.run.trace import Trace, TraceError, read_calls, read_trace, trace_name

TEXT = st.text() | st.sampled_from(
    ["\n", "\r\n", "\x00", "\u2028\u2029", "\\n", '"', "𝔽₂ é ∑", "</think>\n", "x" * 100_000]
)


def key(index: int, **changes: Any) -> CallKey:
    return CallKey(**{"problem_id": "p", "iteration": 0, "role": "solution", "index": index} | changes)


def ask(text: str, **changes: Any) -> Request:
    messages = (Message(role="user", content=text),)
    return Request(**{"model": "m", "messages": messages, "sampling": Sampling()} | changes)


def reply(*texts: str) -> Reply:
    return Reply(completions=tuple(Completion(text=t, reasoning=t) for t in texts), usage=Usage(calls=1, seconds=0.1))


@contextmanager
def opened(path: Path) -> Iterator[Trace]:
    with closing(Trace(path)) as trace:
        yield trace


def add(trace: Trace, index: int, prompt: str = "Q", answer: str | Failure = "A", **more: Any) -> None:
    outcome = answer if isinstance(answer, Failure) else reply(answer)
    asyncio.run(trace.add(key(index), ask(prompt), outcome, **more))


def found(trace: Trace, count: int, prompt: str = "Q") -> list[Reply | Failure | None]:
    return [trace.find(key(i), ask(prompt)) for i in range(count)]


# --- what goes in comes out


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(TEXT, TEXT | st.builds(Failure, reason=st.sampled_from(FailureReason), message=TEXT))),
    st.dictionaries(TEXT, TEXT, max_size=3),
)
def test_calls_and_decisions_come_back_after_reopening(
    calls: Sequence[tuple[str, str | Failure]], decisions: dict[str, str]
):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        with opened(path) as trace:
            for i, (prompt, answer) in enumerate(calls):
                add(trace, i, prompt, answer)
            for name, value in decisions.items():
                trace.record_decision(name, {"value": value})
        with opened(path) as trace:
            assert len(trace) == len(calls)
            for i, (prompt, answer) in enumerate(calls):
                expected = answer if isinstance(answer, Failure) else reply(answer)
                assert trace.find(key(i), ask(prompt)) == expected
            assert {name: trace.decision(name) for name in decisions} == {n: {"value": v} for n, v in decisions.items()}
        assert [call.messages[0].content for call in read_calls(path)] == [p for p, _ in calls]


def test_what_was_never_added_is_not_found(tmp_path: Path):
    with opened(tmp_path / "t.jsonl") as trace:
        add(trace, 0)
        others = [key(1), key(0, attempt=1), key(0, iteration=1), key(0, role="summary"), key(0, problem_id="q")]
        assert [trace.find(other, ask("Q")) for other in others] == [None] * 5
        assert trace.decision("budget") is None


def test_the_later_decision_stands(tmp_path: Path):
    with opened(tmp_path / "t.jsonl") as trace:
        trace.record_decision("budget", 1)
        trace.record_decision("budget", 2)
        assert trace.decision("budget") == 2
    with opened(tmp_path / "t.jsonl") as trace:
        assert trace.decision("budget") == 2


@pytest.mark.parametrize(
    "changed",
    [ask("Q?"), ask("Q", model="n"), ask("Q", n=2), ask("Q", seed=1), ask("Q", sampling=Sampling(top_p=0.5))],
    ids=["prompt", "model", "n", "seed", "sampling"],
)
def test_another_request_under_the_same_key_is_refused(tmp_path: Path, changed: Request):
    with opened(tmp_path / "t.jsonl") as trace:
        add(trace, 0)
        with pytest.raises(TraceError, match=r"t\.jsonl: p/it0/solution\[0\]#0 was recorded for another request"):
            trace.find(key(0), changed)


def test_a_prompt_is_stored_once(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    for first in (0, 2):
        with opened(path) as trace:
            add(trace, first, "a long prompt")
            add(trace, first + 1, "a long prompt")
    assert path.read_bytes().count(b"a long prompt") == 1
    assert [call.messages[0].content for call in read_calls(path)] == ["a long prompt"] * 4


def test_packing_notes_and_the_time_stand_with_the_call(tmp_path: Path):
    note = PackingNote(piece="attempt 0", tokens_before=9, tokens_after=2)
    with opened(tmp_path / "t.jsonl") as trace:
        add(trace, 0, packing=[note], started=12.5)
    [call] = read_calls(tmp_path / "t.jsonl")
    assert (call.packing, call.started) == ((note,), 12.5)


def test_a_call_is_on_disk_before_it_counts_as_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda file: synced.append(os.fstat(file).st_size))
    with opened(tmp_path / "t.jsonl") as trace:
        add(trace, 0)
        assert synced == [(tmp_path / "t.jsonl").stat().st_size]


def test_a_call_that_ends_among_others_waits_for_a_sync_that_began_after_its_line_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, synced, all_written = tmp_path / "t.jsonl", list[int](), threading.Event()

    def sync(file: int) -> None:
        assert threading.current_thread() is not threading.main_thread()  # the event loop does not wait for the disk
        size = os.fstat(file).st_size
        assert all_written.wait(60)
        synced.append(size)

    monkeypatch.setattr(os, "fdatasync", sync)

    async def call(trace: Trace, index: int) -> None:
        await trace.add(key(index), ask("Q"), reply(str(index)))
        line = next(line for line in path.read_bytes().splitlines(True) if b'"index":%d,' % index in line)
        assert path.read_bytes().index(line) + len(line) <= max(synced)

    async def main(trace: Trace) -> None:
        async with asyncio.TaskGroup() as group:
            for index in range(8):
                group.create_task(call(trace, index))
                await asyncio.sleep(0)  # it is written
            all_written.set()

    with opened(path) as trace:
        asyncio.run(main(trace))
        assert len(trace) == 8
    assert max(synced) == path.stat().st_size


def test_an_open_trace_holds_no_text_in_memory(tmp_path: Path):
    with opened(tmp_path / "t.jsonl") as trace:
        for i in range(20):
            add(trace, i, f"{i}" * 100_000, "A" * 100_000)
    tracemalloc.start()
    with opened(tmp_path / "t.jsonl") as trace:
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        assert len(trace) == 20
    tracemalloc.stop()
    assert held < 100_000


# --- kills, damage and full disks


def test_a_last_line_torn_anywhere_is_cut_off_and_all_before_it_stays(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    with opened(path) as trace:
        add(trace, 0)
        add(trace, 1, answer="é ∑")
        before = path.stat().st_size
        add(trace, 2, answer="torn 𝔽")
    whole = path.read_bytes()
    for end in range(before, len(whole)):
        path.write_bytes(whole[:end])
        assert len(list(read_trace(path))) == 3
        with opened(path) as trace:
            assert found(trace, 3) == [reply("A"), reply("é ∑"), None]
            assert path.stat().st_size == before
            trace.record_decision("next", end)
        with opened(path) as trace:
            assert (len(trace), trace.decision("next")) == (2, end)


def refused_and_set_aside(path: Path, number: int) -> None:
    """A reader refuses the damaged line ``number`` by name, and a writer sets it aside."""
    with pytest.raises(TraceError, match=rf"t\.jsonl:{number}: damaged line"):
        list(read_trace(path))
    aside = path.with_name("t.jsonl.damaged")
    aside.unlink(missing_ok=True)
    content = path.read_bytes().splitlines()
    with opened(path):
        [line] = read_records(aside, DamagedLine)
    assert (line.file, line.line) == ("t.jsonl", number)
    assert line.content == content[number - 1].decode(errors="backslashreplace")
    mark, *kept = path.read_bytes().splitlines()
    assert b'"name":"repaired"' in mark
    assert kept == [*content[: number - 1], *content[number:]]


def test_a_line_cut_in_the_middle_of_the_file_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    with opened(path) as trace:
        add(trace, 0)
        add(trace, 1)
    prompt, first, second = path.read_bytes().splitlines(keepends=True)
    for end in range(len(first) - 1):
        path.write_bytes(b"".join([prompt, first[:end], b"\n", second]))
        refused_and_set_aside(path, 2)
        with opened(path) as trace:
            assert found(trace, 2) == [None, reply("A")]


def test_bytes_lost_in_the_middle_of_the_file_are_refused_by_name(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    with opened(path) as trace:
        add(trace, 0)
        add(trace, 1)
    prompt, first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([prompt, first[:20], b"\0" * 20, first[40:], second]))
    refused_and_set_aside(path, 2)


ODD_LINES = [
    b"5",
    b'"text"',
    b"null",
    b"[]",
    b"{}",
    b'{"v": 1}',
    b'{"v": 1, "type": "decision", "name": "budget"}',
    b'{"v": 1, "type": "decision", "name": ["budget"], "value": 1}',
    b'{"v": 1, "type": "prompt"}',
    b'{"v": 1, "type": "call", "key": 7, "digest": "d"}',
    b'{"v": 1, "type": "call", "key": {"problem_id": "p"}, "digest": "d"}',
]


@pytest.mark.parametrize("line", ODD_LINES, ids=lambda line: line.decode())
def test_a_line_of_json_that_is_no_entry_is_refused_by_name(tmp_path: Path, line: bytes):
    path = tmp_path / "t.jsonl"
    with opened(path) as trace:
        trace.record_decision("budget", 1)
    path.write_bytes(path.read_bytes() + line + b"\n")
    refused_and_set_aside(path, 2)


def test_a_refused_trace_is_closed(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(orjson.dumps({"v": SCHEMA_VERSION + 1, "type": "decision"}) + b"\n")
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(TraceError):
            Trace(path)
    assert os.listdir("/proc/self/fd") == before


def test_another_schema_version_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(orjson.dumps({"v": SCHEMA_VERSION + 1, "type": "decision"}) + b"\n")
    with pytest.raises(TraceError, match=rf"t\.jsonl:1: schema version {SCHEMA_VERSION + 1}"):
        Trace(path)


@pytest.mark.parametrize("written", [0, 1, 200])
def test_a_short_write_is_an_error_and_leaves_a_file_that_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
):
    write = os.write
    with opened(tmp_path / "t.jsonl") as trace:
        add(trace, 0)
        with monkeypatch.context() as full:
            full.setattr(os, "write", lambda file, line: write(file, line[:written]))
            with pytest.raises(OSError, match=r"No space left on device: .*t\.jsonl"):
                add(trace, 1)
        assert found(trace, 2) == [reply("A"), None]
        add(trace, 1, answer="B")
    with opened(tmp_path / "t.jsonl") as trace:
        assert found(trace, 2) == [reply("A"), reply("B")]


def test_a_full_disk_is_an_error_and_leaves_a_file_that_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(file: int, line: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(tmp_path / "t.jsonl") as trace:
        add(trace, 0)
        with monkeypatch.context() as full:
            full.setattr(os, "write", refuse)
            with pytest.raises(OSError, match="No space left"):
                add(trace, 1)
    with opened(tmp_path / "t.jsonl") as trace:
        assert found(trace, 2) == [reply("A"), None]


def test_a_disk_found_full_at_the_sync_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", refuse)
    with opened(tmp_path / "t.jsonl") as trace, pytest.raises(OSError, match="No space left") as raised:
        add(trace, 0)
    assert raised.value.filename == str(tmp_path / "t.jsonl")


# --- lines that were changed


def changed(path: Path, number: int, old: bytes, new: bytes) -> None:
    """Replace ``old`` in line ``number``."""
    content = path.read_bytes().splitlines(keepends=True)
    assert old in content[number - 1]
    content[number - 1] = content[number - 1].replace(old, new)
    path.write_bytes(b"".join(content))


def test_a_changed_answer_is_noticed(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    with opened(path) as trace:
        add(trace, 0)
        add(trace, 1)
    changed(path, 2, b'"text":"A"', b'"text":"B"')
    refused_and_set_aside(path, 2)


def test_a_call_without_a_completion_is_damaged_also_without_checksum(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    with opened(path) as trace:
        add(trace, 0)
    prompt, call = path.read_bytes().splitlines()
    value = orjson.loads(call)
    del value["check"]
    value["reply"]["completions"] = []
    path.write_bytes(prompt + b"\n" + orjson.dumps(value) + b"\n")
    refused_and_set_aside(path, 2)


def test_a_lost_prompt_costs_no_call(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    with opened(path) as trace:
        add(trace, 0, "Q")
        add(trace, 1, "other")
        add(trace, 2, "Q")
    changed(path, 1, b'"content":"Q"', b'"content":"R"')
    with pytest.raises(TraceError, match=r"t\.jsonl:1: damaged line"):
        list(read_calls(path))
    with opened(path) as trace:
        assert [call.key.index for call in read_calls(path)] == [1]  # the others wait for their prompt
        assert trace.find(key(0), ask("Q")) == trace.find(key(2), ask("Q")) == reply("A")
        assert trace.find(key(1), ask("other")) == reply("A")
        trace.finish()
        assert [call.messages[0].content for call in read_calls(path)] == ["Q", "other", "Q"]
        assert b"repaired" not in path.read_bytes()
    with opened(path) as trace:
        assert found(trace, 1) == [reply("A")]


def test_a_repaired_trace_makes_calls_for_other_requests_again_and_drops_the_old_ones_at_the_end(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    with opened(path) as trace:
        add(trace, 0, "Q")
        add(trace, 1, "after A")
        add(trace, 2, "after A, too")
        trace.record_decision("selection", 1)
    changed(path, 2, b'"text":"A"', b'"text":"X"')
    with opened(path) as trace:
        assert trace.find(key(0), ask("Q")) is None
        add(trace, 0, "Q", "B")
        assert trace.find(key(1), ask("after B")) is None
        add(trace, 1, "after B", "C")
    with opened(path) as trace:  # killed before the end, and resumed
        assert trace.find(key(0), ask("Q")) == reply("B")
        assert trace.find(key(1), ask("after B")) == reply("C")
        trace.finish()
        trace.record_decision("next", 2)
    assert [call.messages[0].content for call in read_calls(path)] == ["Q", "after B"]
    with opened(path) as trace:
        assert (len(trace), trace.decision("selection"), trace.decision("next")) == (2, 1, 2)
        with pytest.raises(TraceError, match="recorded for another request"):
            trace.find(key(1), ask("after A"))
    reasons = [line.reason.split(" (")[0] for line in read_records(path.with_name("t.jsonl.damaged"), DamagedLine)]
    assert reasons == ["damaged line", *["not used any more: a call that it depends on was made again"] * 2]


def test_a_repaired_trace_stays_locked(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"damage\n")
    with opened(path) as trace:
        for _ in range(2):
            with pytest.raises(BlockingIOError, match="another process still writes"):
                Trace(path)
            trace.finish()


def test_a_trace_in_another_layout_has_the_same_checksums(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    with opened(path) as trace:
        add(trace, 0, "é", "∑")
    values = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    with opened(path) as trace:
        assert found(trace, 1, "é") == [reply("∑")]
    assert not path.with_name("t.jsonl.damaged").exists()


# --- file names


@given(st.text(min_size=1))
@example("..")
@example("../../etc/passwd")
@example("/")
@example("a\0b")
@example("-rf")
@example("問題" * 500)
@example("a" * 5000)
def test_a_trace_name_is_one_plain_file_name(problem_id: str):
    name = trace_name(problem_id)
    assert Path(name).name == name
    assert name.isascii()
    assert name.isprintable()
    assert not name.startswith(".")
    assert len(name) < 80


@given(st.sets(st.text(min_size=1), min_size=2))
@example({"a/b", "a_b", "a\\b", "a b", "A_B", "a_b.", "..", ".", "/"})
@example({"a" * 5000, "a" * 5001})
def test_different_problems_have_different_trace_names_on_any_file_system(problem_ids: set[str]):
    assert len({trace_name(p).lower() for p in problem_ids}) == len(problem_ids)
