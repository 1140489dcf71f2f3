"""Resume is replay: whatever the moment of the kill, no finished call is made again and the outcome is the same."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support import team
from tests.support.chat_server import Body, Fault, Script, ScriptedServer
from tmas import Problem, Result, asolve_all
from tmas.inference.endpoint import EndpointDown
from tmas.inference.run_directory import RunRefused, read_lines


async def solve(server: ScriptedServer, directory: Path, problems: list[Problem], **changes: Any) -> list[Result]:
    method = team.method(**changes.pop("method", {}))
    return await asolve_all(problems, team.model(server.base_url), method, output_dir=directory, **changes)


def essence(directory: Path) -> list[dict[str, Any]]:
    """Prediction lines without what the clock and the order of finishing put in."""
    lines = sorted(read_lines(directory / "predictions.jsonl"), key=lambda line: line["problem_id"])
    for line in lines:
        for entry in line["usage"]:
            entry["usage"].pop("seconds")
    return lines


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
        for line in lines:
            spent = sum(e["usage"]["prompt_tokens"] + e["usage"]["completion_tokens"] for e in line["usage"])
            assert spent <= limit
        again = await solve(server, tmp_path / "run", team.problems(2), limits={"tokens_per_problem": limit})
        assert [r.answer for r in again] == [r.answer for r in results]
        recorded = len(team.recorded_calls(tmp_path / "run"))
        before = len(server.requests)
        await solve(server, tmp_path / "run", team.problems(2))
        assert len(server.requests) - before == calls - recorded
    finished = essence(tmp_path / "run")
    assert [{**f, "terms": None} for f in finished] == [{**w, "terms": None} for w in whole]


async def test_a_budget_of_the_run_stops_all_problems(tmp_path: Path):
    async with ScriptedServer(team.reply) as server:
        results = await solve(server, tmp_path, team.problems(4), limits={"tokens_per_run": 3000})
    lines = list(read_lines(tmp_path / "predictions.jsonl"))
    assert {r.trajectory.stop for r in results} == {"budget"}
    assert sum(e["usage"]["prompt_tokens"] for line in lines for e in line["usage"]) <= 3000


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
