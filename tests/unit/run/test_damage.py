"""A run whose files were damaged or edited: readers name the line, and a resumed run sets it aside and repeats it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.unit.run.test_resume import solve
from tmas import api
from tmas.errors import UserError
from tmas.evaluation.runs import read_run
from tmas.files import read_lines
from tmas.records.reading import DefectiveFile, read_records
from tmas.records.run_files import DamagedLine, FailureLine, Prediction
from tmas.report.runs import read_runs
from tmas.run.replay import RecordedRun
from tmas.run.trace import TraceError, read_calls
from tmas.settings import RunSettings
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer
from tmas.testing.team import essence

Edit = Callable[[bytes], bytes]


def with_fields(**fields: Any) -> Edit:
    return lambda line: orjson.dumps({**orjson.loads(line), **fields})


def without(*fields: str) -> Edit:
    return lambda line: orjson.dumps({name: value for name, value in orjson.loads(line).items() if name not in fields})


def edit(file: Path, number: int, change: Edit) -> None:
    """Change line ``number``, counted from 1."""
    lines = file.read_bytes().splitlines()
    lines[number - 1] = change(lines[number - 1])
    file.write_bytes(b"".join(line + b"\n" for line in lines))


DAMAGE: dict[str, Edit] = {
    "no record": lambda _: b"[]",
    "null": lambda _: b"null",
    "no JSON": lambda _: b"{problem",
    "no UTF-8": lambda _: b"\xff\xfe",
    "deep": lambda _: b"[" * 100_000,
    "no id": without("problem_id"),
    "no id and no checksum": without("problem_id", "check"),
    "wrong usage": with_fields(usage="much"),
    "negative usage": lambda line: line.replace(b'"prompt_tokens":', b'"prompt_tokens":-', 1),
    "absurd usage": lambda line: line.replace(b'"prompt_tokens":', b'"prompt_tokens":18446744073709551615', 1),
    "another answer": with_fields(answer="77"),
    "another checksum": with_fields(check="0" * 16),
    "a checksum that is no text": with_fields(check=None),
}


def report(path: Path) -> list[Prediction]:
    return [line for one in read_runs([path], lambda _: None).runs for line in one.predictions()]


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
async def test_a_damaged_prediction_is_named_by_readers_and_written_again_without_a_call(tmp_path: Path, change: Edit):
    run = tmp_path / "run"
    async with ScriptedServer(team.reply) as server:
        await solve(server, run, team.problems(2))
        whole, made = essence(run), len(server.requests)
        edit(run / "predictions.jsonl", 2, change)
        for read in (read_run, RecordedRun, report):
            with pytest.raises(DefectiveFile, match=r"predictions\.jsonl:2: .*Resume the run with its own command"):
                await asyncio.to_thread(read, run)
        await solve(server, run, team.problems(2))
        assert len(server.requests) == made
    assert essence(run) == whole
    [aside] = read_records(run / "predictions.jsonl.damaged", DamagedLine)
    assert (aside.file, aside.line) == ("predictions.jsonl", 2)


async def test_a_damaged_failure_is_written_again(tmp_path: Path):
    def cut(body: Body) -> Script:
        return Script(tuple(team.reply(body)), finish_reason="length")

    async with ScriptedServer(cut) as server:
        await solve(server, tmp_path, team.problems(2), method={"max_iterations": 1})
        failures, made = list(read_records(tmp_path / "failures.jsonl", FailureLine)), len(server.requests)
        edit(tmp_path / "failures.jsonl", 1, lambda line: line.replace(b"truncated", b"unparsable", 1))
        await solve(server, tmp_path, team.problems(2), method={"max_iterations": 1})
        assert len(server.requests) == made
    assert list(read_records(tmp_path / "failures.jsonl", FailureLine)) == failures


async def test_a_damaged_failure_of_a_problem_that_is_not_in_this_start_costs_no_prediction(tmp_path: Path):
    def cut(body: Body) -> Script:
        return Script(tuple(team.reply(body)), finish_reason="length")

    async with ScriptedServer(cut) as server:
        method = team.method(max_iterations=1)
        settings = RunSettings(model=team.model(server.base_url), method=method)
        await api.run(team.problems(2), settings, tmp_path)
        names = ("predictions.jsonl", "failures.jsonl")
        whole, made = [list(read_lines(tmp_path / name)) for name in names], len(server.requests)
        last = len(whole[1])
        assert whole[1][-1]["problem_id"] == "p1"
        edit(tmp_path / "failures.jsonl", last, lambda line: line.replace(b"truncated", b"unparsable", 1))
        await api.run(team.problems(1), settings, tmp_path)
        assert list(read_lines(tmp_path / "predictions.jsonl")) == whole[0]
        assert list(read_lines(tmp_path / "failures.jsonl")) == whole[1][:-1]
        await api.run(team.problems(2), settings, tmp_path)
        assert [list(read_lines(tmp_path / name)) for name in names] == whole  # the lost failure is written again
        assert len(server.requests) == made


def trace_of_first(run: Path) -> Path:
    return next((run / "trace").glob("p0-*.jsonl"))


def line_of(file: Path, kind: str, role: str = "") -> int:
    """Number of the first line of this type, with ``role`` if given."""
    lines = file.read_bytes().splitlines()
    marks = (f'"type":"{kind}"'.encode(), f'"role":"{role}"'.encode() if role else b"")
    return next(number for number, line in enumerate(lines, 1) if all(mark in line for mark in marks))


TRACE_DAMAGE: dict[str, tuple[str, str, Edit, int]] = {
    "no record": ("call", "solution", lambda _: b"[]", 1),
    "no key": ("call", "solution", without("key"), 1),
    "no reply": ("call", "verification", without("reply"), 1),
    "wrong usage": ("call", "summary", lambda line: line.replace(b'"calls":1', b'"calls":"x"'), 1),
    "no JSON": ("call", "experience", lambda _: b"{nope", 1),
    "another answer": ("call", "solution", lambda line: line.replace(b"answer is", b"answer was"), 1),
    "a lost prompt": ("prompt", "", lambda _: b"{}", 0),
    "a decision": ("decision", "", with_fields(value=7), 0),
}


@pytest.mark.parametrize(("kind", "role", "change", "calls"), TRACE_DAMAGE.values(), ids=TRACE_DAMAGE)
async def test_a_damaged_line_of_a_trace_is_set_aside_and_only_its_call_is_made_again(
    tmp_path: Path, kind: str, role: str, change: Edit, calls: int
):
    async with ScriptedServer(team.reply) as server:
        await solve(server, tmp_path, team.problems(1))
        whole, recorded, made = essence(tmp_path), team.recorded_calls(tmp_path), len(server.requests)
        trace = trace_of_first(tmp_path)
        number = line_of(trace, kind, role)
        edit(trace, number, change)
        (tmp_path / "predictions.jsonl").unlink()
        await solve(server, tmp_path, team.problems(1))
        assert len(server.requests) == made + calls
    assert essence(tmp_path) == whole
    assert team.recorded_calls(tmp_path).keys() == recorded.keys()
    [aside] = read_records(trace.with_name(f"{trace.name}.damaged"), DamagedLine)
    assert (aside.file, aside.line) == (trace.name, number)


async def test_an_impossible_decision_without_checksum_is_made_again(tmp_path: Path):
    async with ScriptedServer(team.reply) as server:
        await solve(server, tmp_path, team.problems(1))
        whole, made = essence(tmp_path), len(server.requests)
        trace = trace_of_first(tmp_path)
        edit(trace, line_of(trace, "decision"), lambda line: without("check")(with_fields(value=7)(line)))
        (tmp_path / "predictions.jsonl").unlink()
        await solve(server, tmp_path, team.problems(1))
        assert len(server.requests) == made
    assert essence(tmp_path) == whole


async def test_readers_name_a_damaged_line_of_a_trace_and_say_what_to_do(tmp_path: Path):
    async with ScriptedServer(team.reply) as server:
        await solve(server, tmp_path, team.problems(1))
    trace = trace_of_first(tmp_path)
    edit(trace, 2, lambda line: line.replace(b"answer is", b"answer was"))
    for read in (lambda: list(read_calls(trace)), lambda: RecordedRun(tmp_path).trajectory(team.problems(1)[0])):
        with pytest.raises(
            TraceError, match=r"\.jsonl:2: damaged line .*checksum.* Delete predictions\.jsonl"
        ) as raised:
            await asyncio.to_thread(read)
        assert isinstance(raised.value, UserError)


async def test_calls_that_followed_from_a_damaged_one_are_made_again_if_the_new_reply_differs(tmp_path: Path):
    """As with a model that does not sample the same text twice."""
    again = False

    def reply(body: Body) -> list[str]:
        if again and team.role_of(body) == "solution":
            return ["Another way. The answer is \\boxed{5}."] * body.get("n", 1)
        return team.reply(body)

    async with ScriptedServer(reply) as server:
        await solve(server, tmp_path, team.problems(2))
        made, before = len(server.requests), team.recorded_calls(tmp_path)
        trace = trace_of_first(tmp_path)
        edit(trace, line_of(trace, "call", "solution"), lambda line: line.replace(b"answer is", b"answer was"))
        (tmp_path / "predictions.jsonl").unlink()
        again = True
        [first, _] = await solve(server, tmp_path, team.problems(2))
        assert made < len(server.requests) < made + len(before) / 2
        made = len(server.requests)
        assert [r.answer for r in await solve(server, tmp_path, team.problems(1))] == [first.answer]
        assert len(server.requests) == made
    calls = list(read_calls(trace))
    assert len({str(call.key) for call in calls}) == len(calls)  # none is there twice
    replayed = await asyncio.to_thread(RecordedRun(tmp_path).trajectory, team.problems(1)[0])
    assert replayed == first.trajectory


async def test_lines_without_checksum_as_older_versions_wrote_them_are_read(tmp_path: Path):
    async with ScriptedServer(team.reply) as server:
        await solve(server, tmp_path, team.problems(2))
        whole, made = essence(tmp_path), len(server.requests)
        for file in (*(tmp_path / "trace").iterdir(), tmp_path / "predictions.jsonl"):
            lines = list(read_lines(file))
            assert all(len(line.pop("check")) == 16 for line in lines)
            file.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
        assert len(RecordedRun(tmp_path).problem_ids) == 2
        await solve(server, tmp_path, team.problems(2))
        assert len(server.requests) == made
    assert essence(tmp_path) == whole
    assert not any(name.endswith(".damaged") for _, _, names in os.walk(tmp_path) for name in names)


async def test_a_prediction_of_another_schema_version_is_refused_and_not_set_aside(tmp_path: Path):
    async with ScriptedServer(team.reply) as server:
        await solve(server, tmp_path, team.problems(1))
        edit(tmp_path / "predictions.jsonl", 1, lambda line: without("check")(with_fields(v=2)(line)))
        content = (tmp_path / "predictions.jsonl").read_bytes()
        with pytest.raises(UserError, match=r"predictions\.jsonl:1: schema version 2"):
            await solve(server, tmp_path, team.problems(1))
    assert (tmp_path / "predictions.jsonl").read_bytes() == content
