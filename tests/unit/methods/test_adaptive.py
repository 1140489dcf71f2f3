"""Adaptive TMAS against a scripted team: fewer calls, the same outcome in any order, resume, and shares of a budget."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.support.runs import recorded_tokens
from tmas import Result, asolve_all
from tmas.files import read_lines
from tmas.methods.allocation import AllocationSettings
from tmas.methods.stopping import VerificationSettings
from tmas.methods.tmas import TMASSettings
from tmas.records import Rollout, Trajectory
from tmas.run.replay import RecordedRun
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer

pytestmark = pytest.mark.usefixtures("answers_as_text")

M = 4
TEST = VerificationSettings(alpha=0.01, beta=0.1)


def adaptive(**changes: Any) -> TMASSettings:
    settings = {
        "n_candidates": 3,
        "n_verifications": M,
        "max_iterations": 3,
        "epsilon": 0.4,
        "early_stop": "accepted",
        "verification": TEST,
        "allocation": AllocationSettings(least_candidates=2, stalled_after=1),
    }
    return TMASSettings.model_validate(settings | changes)


async def solve(server: ScriptedServer, directory: Path | None = None, count: int = 1, **options: Any) -> list[Result]:
    method = options.pop("method", None) or adaptive()
    model = team.model(server.base_url)
    return await asolve_all(team.problems(count), model, method, output_dir=directory, **options)


def graded(grade: str) -> Any:
    def reply(body: Body) -> list[str]:
        if team.role_of(body) == "verification":
            return [f"Checked.\nThe final grade is: \\boxed{{{grade}}}"] * body.get("n", 1)
        return team.reply(body)

    return reply


def rollouts(trajectory: Trajectory) -> list[Rollout]:
    return [rollout for iteration in trajectory.iterations for rollout in iteration.rollouts]


async def test_wrong_candidates_get_one_round_and_the_selected_one_all_checks():
    async with ScriptedServer(graded("0")) as server:
        [result] = await solve(server)
    chosen = result.trajectory.selected
    assert chosen is not None
    for rollout in rollouts(result.trajectory):
        full = (rollout.iteration, rollout.index) == (chosen.iteration, chosen.candidate)
        assert len(rollout.verifications) == (M if full else 2)
        assert [v.index for v in rollout.verifications] == list(range(len(rollout.verifications)))  # type: ignore[union-attr]
    assert result.trajectory.stop == "max_iterations"


async def test_an_accepted_candidate_ends_the_problem_without_a_call_of_the_memory_agents():
    async with ScriptedServer(graded("1")) as server:
        [result] = await solve(server)
        calls = Counter(team.role_of(body) for body in server.requests)
    assert calls.keys() == {"solution", "verification", "summary"}
    assert result.trajectory.stop == "early_stop"
    assert [len(r.verifications) for r in rollouts(result.trajectory)] == [M] * 3


async def test_a_check_of_a_later_round_that_fails_is_a_failure_on_disk(tmp_path: Path):
    def reply(body: Body) -> list[str]:
        if team.role_of(body) != "verification":
            return team.reply(body)
        grades = ["1", "1"] if body["n"] == 2 else [""] * body["n"]
        return [f"Checked.\nThe final grade is: \\boxed{{{grade}}}" for grade in grades]

    async with ScriptedServer(reply) as server:
        await solve(server, tmp_path, method=adaptive(max_iterations=1, n_verifications=6))
    calls = [line["call"] for line in read_lines(tmp_path / "failures.jsonl")]
    assert {(call["role"], call["offset"]) for call in calls} == {("verification", 2)}


def test_the_acceptance_needs_the_test_and_enough_verifications():
    with pytest.raises(ValidationError, match="which is null"):
        TMASSettings(early_stop="accepted")
    with pytest.raises(ValidationError, match="raise verification"):
        adaptive(n_verifications=3)


async def test_it_is_off_by_default_and_then_not_in_the_settings_on_disk():
    assert {"verification", "allocation"}.isdisjoint(TMASSettings().model_dump())


async def test_the_order_of_arrival_makes_no_difference():
    async def run(delay: float) -> Trajectory:
        def reply(body: Body) -> Script:
            return Script(tuple(team.reply(body)), first_delay=delay * (team.number(body) % 5))

        async with ScriptedServer(reply) as server:
            return (await solve(server))[0].trajectory

    assert await run(0.0) == await run(0.01)


@pytest.mark.parametrize("kill_after", [4, 9, 16])
async def test_a_killed_run_resumes_without_repeating_a_call_and_its_record_gives_the_same(
    kill_after: int, tmp_path: Path
):
    async with ScriptedServer(team.reply) as server:
        [whole] = await solve(server)
        calls = len(server.requests)
    async with ScriptedServer(team.reply) as server:
        running = asyncio.create_task(solve(server, tmp_path))
        while len(server.requests) < kill_after and not running.done():  # noqa: ASYNC110 - any moment will do
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        [again] = await solve(server, tmp_path)
        assert len(team.recorded_calls(tmp_path)) == calls
    assert again.trajectory == whole.trajectory
    recorded = await asyncio.to_thread(RecordedRun(tmp_path).trajectory, team.problems(1)[0])
    assert rollouts(recorded) == rollouts(whole.trajectory)


async def test_settled_problems_leave_their_share_to_others_and_a_resumed_run_repeats_the_grants(tmp_path: Path):
    """The first problem is settled at once. Three quarters of what two problems would use serve the second."""

    def reply(body: Body) -> list[str]:
        return graded("1" if "What is 0 + 0?" in team.prompt(body) else "0")(body)

    async with ScriptedServer(reply) as server:
        whole = await solve(server, count=2)
        spent = [sum(entry.usage.total_tokens for entry in result.usage) for result in whole]
        limit = sum(spent) + spent[0]
        assert limit // 2 < spent[1]  # its own share is too small
        shared = await solve(server, tmp_path, count=2, limits={"tokens_per_run": limit})
        before = len(server.requests)
        (tmp_path / "predictions.jsonl").unlink()
        (tmp_path / "failures.jsonl").unlink(missing_ok=True)
        again = await solve(server, tmp_path, count=2, limits={"tokens_per_run": limit})
        assert len(server.requests) == before
        own_share = await solve(server, tmp_path / "small", count=2, limits={"tokens_per_run": spent[1]})
    assert [r.trajectory for r in again] == [r.trajectory for r in shared] == [r.trajectory for r in whole]
    assert own_share[1].trajectory.stop == "budget"
    assert recorded_tokens(tmp_path / "small") <= spent[1]


async def test_a_budget_that_ends_between_rounds_leaves_every_candidate_a_record_and_a_run_that_can_be_repeated(
    tmp_path: Path,
):
    async with ScriptedServer(graded("1")) as server:
        [whole] = await solve(server)
        spent = sum(entry.usage.total_tokens for entry in whole.usage)
        for step in range(1, 12):
            limits = {"tokens_per_problem": spent * step // 12}
            [first] = await solve(server, tmp_path / str(step), limits=limits)
            (tmp_path / str(step) / "predictions.jsonl").unlink()
            (tmp_path / str(step) / "failures.jsonl").unlink()
            made = len(server.requests)
            [again] = await solve(server, tmp_path / str(step), limits=limits)
            assert len(server.requests) == made
            assert again.trajectory == first.trajectory
            assert all(r.verifications or r.failures for r in rollouts(first.trajectory))
