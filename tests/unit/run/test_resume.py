"""Resume is replay: whatever the moment of the kill, no finished call is made again and the outcome is the same."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.support.runs import recorded_tokens
from tests.support.waiting import LIMIT, until
from tmas import Problem, Result, asolve_all
from tmas.errors import UserError
from tmas.files import read_lines
from tmas.llm.endpoint import EndpointDown
from tmas.run import solver
from tmas.run.directory import RunRefused
from tmas.run.trace import Trace, trace_path
from tmas.testing import team
from tmas.testing.chat_server import Body, Fault, Script, ScriptedServer
from tmas.testing.team import essence


async def solve(server: ScriptedServer, directory: Path, problems: list[Problem], **changes: Any) -> list[Result]:
    method = team.method(**changes.pop("method", {}))
    return await asolve_all(problems, team.model(server.base_url), method, output_dir=directory, **changes)


def spent(line: dict[str, Any]) -> int:
    """Tokens, prompt and completion, of one prediction."""
    return sum(entry["usage"]["prompt_tokens"] + entry["usage"]["completion_tokens"] for entry in line["usage"])


async def reference(tmp_path: Path) -> tuple[list[dict[str, Any]], int]:
    async with ScriptedServer(team.reply) as server:
        await solve(server, tmp_path / "whole", team.problems(2))
        return essence(tmp_path / "whole"), len(server.requests)


@pytest.mark.parametrize("kill_after", [1, 4, 11, 23, 40, 58])
async def test_a_cancelled_run_goes_on_without_repeating_a_call(tmp_path: Path, kill_after: int):
    whole, calls = await reference(tmp_path)
    async with ScriptedServer(team.reply) as server:
        running = asyncio.create_task(solve(server, tmp_path / "run", team.problems(2)))
        while len(server.requests) < kill_after and not running.done():  # noqa: ASYNC110 - any moment will do
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        recorded = set(team.recorded_calls(tmp_path / "run"))
        before = len(server.requests)
        await solve(server, tmp_path / "run", team.problems(2))
    assert len(server.requests) - before == calls - len(recorded)
    assert recorded <= set(team.recorded_calls(tmp_path / "run"))
    assert essence(tmp_path / "run") == whole


async def test_traces_are_opened_one_at_a_time_without_blocking_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    loop_ran, now_open, most_open = threading.Event(), 0, 0

    class SlowTrace(Trace):
        def __init__(self, path: Path) -> None:
            nonlocal now_open, most_open
            now_open += 1
            most_open = max(most_open, now_open)
            loop_ran.clear()
            assert loop_ran.wait(LIMIT), "the event loop is blocked while a trace is opened"
            super().__init__(path)
            now_open -= 1

    async def run_the_loop() -> None:
        while True:
            loop_ran.set()
            await asyncio.sleep(0.01)

    monkeypatch.setattr(solver, "Trace", SlowTrace)
    running = asyncio.create_task(run_the_loop())
    async with ScriptedServer(team.reply) as server:
        await solve(server, tmp_path, team.problems(3))
    running.cancel()
    assert most_open == 1


async def test_a_trace_that_is_opened_when_the_run_is_cancelled_does_not_stay_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    is_opening, may_open = threading.Event(), threading.Event()

    def open_slowly(path: Path) -> Trace:
        is_opening.set()
        assert may_open.wait(LIMIT)
        return Trace(path)

    monkeypatch.setattr(solver, "Trace", open_slowly)
    async with ScriptedServer(team.reply) as server:
        running = asyncio.create_task(solve(server, tmp_path, team.problems(1)))
        await until(is_opening.is_set)
        running.cancel()
        for _ in range(100):  # turns of the loop, in which the cancellation reaches the opening
            await asyncio.sleep(0)
        may_open.set()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()
    Trace(trace_path(tmp_path, "p0")).close()


async def test_a_context_that_the_server_told_stays_that_of_the_run(tmp_path: Path):
    async def solved(length: int, count: int) -> None:
        async with ScriptedServer(team.reply, context_length=length) as server:
            model = team.model(server.base_url, context_length=None)
            await asolve_all(team.problems(count), model, team.method(), output_dir=tmp_path)

    await solved(50_000, 1)
    with pytest.raises(RunRefused, match=r"model\.solution\.context_length: 50000 in the run, 40000 now"):
        await solved(40_000, 2)
    await solved(50_000, 2)
    manifest = orjson.loads((tmp_path / "manifest.json").read_bytes())
    assert set(manifest["told"].values()) == {50_000}
    assert len(manifest["problems"]) == 2


async def test_a_refused_resume_changes_no_prediction(tmp_path: Path):
    async def solved(length: int) -> None:
        async with ScriptedServer(team.reply, context_length=length) as server:
            await asolve_all(
                team.problems(1), team.model(server.base_url, context_length=None), team.method(), output_dir=tmp_path
            )

    await solved(50_000)
    before = (tmp_path / "predictions.jsonl").read_bytes()
    with pytest.raises(RunRefused, match="50000 in the run, 40000 now"):
        await solved(40_000)
    assert (tmp_path / "predictions.jsonl").read_bytes() == before


async def test_a_dead_endpoint_ends_the_run_and_a_living_one_goes_on(tmp_path: Path):
    whole, calls = await reference(tmp_path)
    async with ScriptedServer(team.reply, faults=[None] * 20 + [Fault("reset", after=None)] * 500) as server:
        with pytest.raises(EndpointDown):
            await solve(server, tmp_path / "run", team.problems(2))
        done = len(team.recorded_calls(tmp_path / "run"))
    assert 0 < done <= 20
    async with ScriptedServer(team.reply) as server:  # on another port: where it is served makes no difference
        await solve(server, tmp_path / "run", team.problems(2))
        assert len(server.requests) == calls - done
    assert essence(tmp_path / "run") == whole


async def test_more_iterations_and_more_problems_extend_a_run(tmp_path: Path):
    whole, calls = await reference(tmp_path)
    async with ScriptedServer(team.reply) as server:
        await solve(server, tmp_path / "run", team.problems(1), method={"max_iterations": 1})
        await solve(server, tmp_path / "run", team.problems(2))
    assert len(server.requests) == calls
    assert essence(tmp_path / "run") == whole


async def test_lines_are_in_finishing_order_while_it_runs_and_in_input_order_at_the_end(tmp_path: Path):
    others_written = asyncio.Event()

    class FirstIsLast(ScriptedServer):
        async def _respond(self, request: web.Request, body: Body, fault: Fault | None) -> web.StreamResponse:
            if "What is 0" in body["messages"][0]["content"]:
                await others_written.wait()
            return await super()._respond(request, body, fault)

    def ids(name: str) -> list[str]:
        return [line["problem_id"] for line in read_lines(tmp_path / name)]

    async with FirstIsLast(lambda _: Script(("cut",), finish_reason="length")) as server:
        one = {"n_candidates": 1, "max_iterations": 1}
        running = asyncio.create_task(solve(server, tmp_path, team.problems(3), method=one))
        await until(lambda: len(ids("predictions.jsonl")) == 2)
        assert sorted(ids("predictions.jsonl")) == ["p1", "p2"]
        others_written.set()
        await running
        assert ids("predictions.jsonl") == ["p0", "p1", "p2"]
        assert list(dict.fromkeys(ids("failures.jsonl"))) == ["p0", "p1", "p2"]
        await solve(server, tmp_path, team.problems(3)[::-1][:2], method=one)
        assert ids("predictions.jsonl") == ["p2", "p1", "p0"]  # what was not asked for now comes last


async def test_another_configuration_is_refused_by_name(tmp_path: Path):
    async with ScriptedServer(team.reply) as server:
        await solve(server, tmp_path, team.problems(1))
        made = len(server.requests)
        with pytest.raises(RunRefused, match=r"method\.epsilon: 0\.4 in the run, 0\.9 now"):
            await solve(server, tmp_path, team.problems(1), method={"epsilon": 0.9})
        with pytest.raises(RunRefused, match="seed: 0 in the run, 5 now"):
            await solve(server, tmp_path, team.problems(1), seed=5)
        assert len(server.requests) == made


async def test_a_budget_is_hard_recorded_and_can_be_raised(tmp_path: Path):
    whole, calls = await reference(tmp_path)
    limit = 2000

    def slow(body: Body) -> Script:
        return Script(tuple(team.reply(body)), chunk_delay=0.001)

    async with ScriptedServer(slow) as server:
        results = await solve(server, tmp_path / "run", team.problems(2), limits={"tokens_per_problem": limit})
        lines = essence(tmp_path / "run")
        assert [r.trajectory.stop for r in results] == ["budget", "budget"]
        assert all(line["answer"] is not None for line in lines)
        begun = len(server.requests)
        assert sum(entry["usage"]["calls"] for line in lines for entry in line["usage"]) == begun
        for line in lines:
            assert spent(line) < limit + 50  # a few calls at once, and a few words of each before they are ended
        again = await solve(server, tmp_path / "run", team.problems(2), limits={"tokens_per_problem": limit})
        assert [r.answer for r in again] == [r.answer for r in results]
        assert essence(tmp_path / "run") == lines  # what the cancelled calls cost is replayed too
        recorded = len(team.recorded_calls(tmp_path / "run"))
        before = len(server.requests)
        await solve(server, tmp_path / "run", team.problems(2))
        assert len(server.requests) - before == calls - recorded
    finished = essence(tmp_path / "run")
    cancelled = begun - recorded
    assert cancelled > 0
    assert [{**f, "terms": None, "usage": None} for f in finished] == [
        {**w, "terms": None, "usage": None} for w in whole
    ]
    assert sum(e["usage"]["calls"] for line in finished for e in line["usage"]) == calls + cancelled
    assert all(f > w for f, w in zip(map(spent, finished), map(spent, whole), strict=True))


async def test_a_budget_of_the_run_stops_all_problems(tmp_path: Path):
    async with ScriptedServer(team.reply) as server:
        results = await solve(server, tmp_path, team.problems(4), limits={"tokens_per_run": 3000})
    lines = list(read_lines(tmp_path / "predictions.jsonl"))
    assert {r.trajectory.stop for r in results} == {"budget"}
    assert sum(e["usage"]["prompt_tokens"] for line in lines for e in line["usage"]) <= 3000


async def test_a_budget_of_the_run_knows_what_was_spent_before_on_problems_it_has_not_opened_again(tmp_path: Path):
    """They are opened one by one, and have further to go than before."""
    async with ScriptedServer(team.reply) as server:
        await solve(server, tmp_path, team.problems(4), method={"max_iterations": 1})
        before, limit = recorded_tokens(tmp_path), int(1.5 * recorded_tokens(tmp_path))
        more = {"limits": {"tokens_per_run": limit}, "active_problems": 1, "method": {"max_iterations": 3}}
        results = await solve(server, tmp_path, team.problems(4), **more)
    assert {r.trajectory.stop for r in results} == {"budget"}
    assert before < recorded_tokens(tmp_path) <= 1.1 * limit


async def test_every_failure_is_listed_with_its_call(tmp_path: Path):
    def reply(body: Body) -> list[str]:
        return ["no grade"] * body.get("n", 1) if team.role_of(body) == "verification" else team.reply(body)

    async with ScriptedServer(reply) as server:
        await solve(server, tmp_path, team.problems(1), method={"max_iterations": 1})
    lines = list(read_lines(tmp_path / "failures.jsonl"))
    roles = [line["call"]["role"] for line in lines]
    assert roles.count("verification") == 6  # N = 3, M = 2, each a failure of its own
    assert {line["reason"] for line in lines} == {"unparsable"}
    assert orjson.loads((tmp_path / "metrics.json").read_bytes())["failures"] == {"unparsable": len(lines)}


async def test_problems_of_one_id_are_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(UserError, match="several problems have the same problem_id: p0"):
        await asolve_all([*team.problems(2), *team.problems(1)], team.model("http://h/v1"), output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
