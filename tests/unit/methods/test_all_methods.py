"""What holds for every method: its calls, the prompts' secrets, replay, order of arrival, budgets and failures."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from tmas import Problem, Result, asolve_all
from tmas.files import read_lines
from tmas.methods import METHODS
from tmas.records import Failure, Trajectory
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer

pytestmark = pytest.mark.usefixtures("answers_as_text")

BASELINES = [name for name in METHODS if name != "tmas"]  # which has tests of its own
PROBLEM = team.problems(1)[0]


async def solve(name: str, server: ScriptedServer, directory: Path | None = None, **options: Any) -> Result:
    problem, method = options.pop("problem", PROBLEM), team.small(name, **options.pop("method", {}))
    [result] = await asolve_all([problem], team.model(server.base_url), method, output_dir=directory, **options)
    return result


def roles_called(server: ScriptedServer) -> Counter[str]:
    return Counter(team.role_of(body) for body in server.requests)


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("majority_vote", {"solution": 5}),
        ("best_of_n", {"solution": 4, "verification": 4}),
        ("verify_refine", {"solution": 9, "verification": 9}),
        ("pacore", {"solution": 9}),
        ("rse", {"solution": 9, "distill": 6}),  # the last iteration is not distilled
        ("rsa", {"solution": 9}),
        ("genselect", {"solution": 5, "summary": 5, "comparison": 12}),  # 3 votes: 5 candidates, 3 winners, 2, 1
    ],
)
async def test_the_calls_are_those_of_its_paper(name: str, calls: dict[str, int]):
    def never_passes(body: Body) -> list[str]:
        if team.role_of(body) == "verification":
            return ["A step is missing.\nGrade: 0.5"] * body.get("n", 1)
        return team.reply(body)

    async with ScriptedServer(never_passes) as server:
        result = await solve(name, server)
    assert roles_called(server) == calls
    assert {entry.role for entry in result.usage} == calls.keys() == set(METHODS[name].settings_type.roles)
    assert len(result.trajectory.iterations) == team.small(name).max_iterations
    assert (result.trajectory.stop, result.failures) == ("max_iterations", ())


@pytest.mark.parametrize("name", BASELINES)
async def test_the_gold_answer_is_in_no_prompt(name: str):
    canary = "canary-7391"
    problem = PROBLEM.model_copy(update={"answer": canary, "metadata": {"note": canary}})
    async with ScriptedServer(team.reply) as server:
        await solve(name, server, problem=problem)
    assert not any(canary in message["content"] for body in server.requests for message in body["messages"])


@pytest.mark.parametrize("name", BASELINES)
async def test_its_results_are_written_like_those_of_tmas(name: str, tmp_path: Path):
    async with ScriptedServer(team.reply) as server:
        result = await solve(name, server, tmp_path)
    [line] = read_lines(tmp_path / "predictions.jsonl")
    settings = team.small(name)
    assert (line["method"], line["terms"]["method"]) == (name, settings.model_dump(mode="json"))
    for t, (written, iteration) in enumerate(zip(line["iterations"], result.trajectory.iterations, strict=True)):
        assert written["iteration"] == t
        assert [(c["candidate"], c["answer"]) for c in written["candidates"]] == [
            (r.index, r.answer) for r in iteration.rollouts
        ]
        assert [r.index for r in iteration.rollouts] == list(range(len(iteration.rollouts)))
        assert {r.iteration for r in iteration.rollouts} == {t}
        assert written["selected"] is not None
    metrics = orjson.loads((tmp_path / "metrics.json").read_bytes())
    assert all(0 <= iteration["pass_at_1"] <= 1 for iteration in metrics["iterations"])
    assert metrics["usage"].keys() == roles_called(server).keys()


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("kill_after", [1, 3, 8])
async def test_a_killed_run_goes_on_without_repeating_a_call(name: str, kill_after: int, tmp_path: Path):
    async with ScriptedServer(team.reply) as server:
        whole = await solve(name, server)
        calls = len(server.requests)
    async with ScriptedServer(team.reply) as server:
        running = asyncio.create_task(solve(name, server, tmp_path))
        while len(server.requests) < kill_after and not running.done():  # noqa: ASYNC110 - any moment will do
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        recorded, before = len(team.recorded_calls(tmp_path)), len(server.requests)
        again = await solve(name, server, tmp_path)
        assert len(server.requests) - before == calls - recorded
        assert len(team.recorded_calls(tmp_path)) == calls
        replayed = await solve(name, server, tmp_path)
        assert len(server.requests) - before == calls - recorded
    assert again.trajectory == replayed.trajectory == whole.trajectory


@pytest.mark.parametrize("name", BASELINES)
async def test_the_order_of_arrival_makes_no_difference(name: str):
    async def run(delay: float) -> Trajectory:
        def reply(body: Body) -> Script:
            return Script(tuple(team.reply(body)), first_delay=delay * (team.number(body) % 5))

        async with ScriptedServer(reply) as server:
            return (await solve(name, server)).trajectory

    assert await run(0.0) == await run(0.01)


@pytest.mark.parametrize("name", BASELINES)
async def test_another_seed_or_problem_is_another_run(name: str):
    async with ScriptedServer(team.reply) as server:
        first = await solve(name, server)
        seeded = await solve(name, server, seed=1)
        other = await solve(name, server, problem=Problem(problem_id="other", question=PROBLEM.question))
    assert first.trajectory != seeded.trajectory
    assert first.trajectory != other.trajectory


@pytest.mark.parametrize("name", BASELINES)
async def test_a_budget_ends_it_with_what_it_has(name: str, tmp_path: Path):
    async with ScriptedServer(team.reply) as server:
        whole = await solve(name, server)
        spent = sum(entry.usage.total_tokens for entry in whole.usage)
        cut = await solve(name, server, tmp_path, limits={"tokens_per_problem": spent // 2})
        assert cut.trajectory.stop == "budget"
        assert sum(entry.usage.total_tokens for entry in cut.usage) <= spent // 2
        assert "budget" in {failure.reason for failure in cut.failures}
        raised = await solve(name, server, tmp_path)
    assert raised.trajectory == whole.trajectory


@pytest.mark.parametrize("name", BASELINES)
async def test_when_everything_is_cut_short_there_is_a_result_without_an_answer(name: str):
    async with ScriptedServer(lambda body: Script(("The answer is",), finish_reason="length")) as server:
        result = await solve(name, server)
    rollouts = [r for iteration in result.trajectory.iterations for r in iteration.rollouts]
    assert (result.answer, result.solution, roles_called(server).keys()) == (None, None, {"solution"})
    assert all(isinstance(r.solution, Failure) and r.mode == "initial" for r in rollouts)
    assert {failure.reason for failure in result.failures} == {"truncated"}
    assert len(result.failures) == len(rollouts) == len(server.requests)


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "rse"])  # which distils it
@pytest.mark.parametrize("style", ["tags", "server"])
async def test_thinking_never_travels_on(name: str, style: str):
    secret = "a private thought"

    def reply(body: Body) -> Script:
        said = team.reply(body)
        if style == "tags":
            return Script(tuple(f"<think>{secret}</think>\n{text}" for text in said))
        return Script(tuple(said), reasoning=secret)

    async with ScriptedServer(reply) as server:
        result = await solve(name, server)
    assert result.answer is not None
    assert not any(secret in team.prompt(body) for body in server.requests)


@pytest.mark.parametrize("name", BASELINES)
async def test_prompts_are_made_to_fit_the_context(name: str, tmp_path: Path):
    """Solutions are long, and the context has room for little more than one."""

    def reply(body: Body) -> list[str]:
        filler = f" {'and_so_on_' * 10}" * 42
        return [f"Let us see{filler}.\n{text}" if "boxed" in text else text for text in team.reply(body)]

    model = team.model("", context_length=2800)
    async with ScriptedServer(reply) as server:
        given = model.model_copy(update={"base_url": server.base_url})
        [result] = await asolve_all([PROBLEM], given, team.small(name), output_dir=tmp_path)
    room = 2800 - 1000 - 64
    assert all(sum(len(m["content"]) for m in b["messages"]) / 2.5 <= room for b in server.requests)
    assert {failure.reason for failure in result.failures} <= {"unparsable"}
    assert (result.packed_prompts > 0) == (name != "majority_vote")
