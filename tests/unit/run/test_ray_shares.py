"""Shares of a run's budget with several Ray workers. The actors are objects in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the cpu or gpu extra")

from tests.support.runs import recorded_tokens
from tests.support.waiting import until
from tests.unit.run.test_ray_workers import Remote
from tmas import Result, asolve_all
from tmas.methods.tmas import TMASSettings
from tmas.run import ray_workers as workers
from tmas.run import runtime
from tmas.run.share_messages import RemoteShares, ShareDesk
from tmas.run.shares import Amount, Grant, ShareRequest, Shares
from tmas.settings import Limits
from tmas.testing import team
from tmas.testing.chat_server import Body, ScriptedServer

METHOD = TMASSettings.model_validate({
    "n_candidates": 3, "n_verifications": 4, "max_iterations": 3, "early_stop": "accepted",
    "verification": {"alpha": 0.01}, "allocation": {"least_candidates": 2, "stalled_after": 1},
})  # fmt: skip


def first_is_settled(body: Body) -> list[str]:
    """The first problem's candidates pass all checks, those of the others none."""
    if team.role_of(body) != "verification":
        return team.reply(body)
    grade = int("What is 0 + 0?" in team.prompt(body))
    return [f"Checked.\nThe final grade is: \\boxed{{{grade}}}"] * body.get("n", 1)


@pytest.fixture
async def actors_here(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    started: list[Any] = []

    def start(opened: Any, directory: Path) -> list[Any]:
        arguments = (opened.settings, directory, workers.digest(opened.settings.prompts.hashes()))
        made = [workers.RayWorker(*arguments) for _ in range(opened.settings.ray.workers)]
        started.extend(made)
        return [Remote(worker) for worker in made]

    monkeypatch.setattr(workers, "_start_actors", start)
    monkeypatch.setattr(workers, "HEARTBEAT_INTERVAL", 0.01)
    monkeypatch.setattr(workers.ray, "kill", lambda _: None)
    monkeypatch.setattr(workers.ray.util, "get_node_ip_address", lambda: "here")
    monkeypatch.setattr(runtime, "ray_cluster", lambda _: nullcontext())
    yield
    for worker in started:
        await worker._startup.result()[0].aclose()


async def solve(server: ScriptedServer, directory: Path, limit: int | None, count: int | None = 2) -> list[Result]:
    ray: dict[str, Any] = {"ray": {"workers": count}} if count else {}
    limits = {"tokens_per_run": limit}
    return await asolve_all(
        team.problems(3), team.model(server.base_url), METHOD, output_dir=directory, limits=limits, **ray
    )


@pytest.mark.usefixtures("answers_as_text", "actors_here")
async def test_two_workers_solve_as_one_process_does_and_never_exceed_the_budget(tmp_path: Path):
    async with ScriptedServer(first_is_settled) as server:
        whole = await solve(server, tmp_path / "whole", None, count=None)
        spent = [sum(entry.usage.total_tokens for entry in result.usage) for result in whole]
        enough = 6 * max(spent)  # calls in flight count too, so this leaves room for them
        with_enough = await solve(server, tmp_path / "enough", enough)
        assert [result.trajectory for result in with_enough] == [result.trajectory for result in whole]
        for part in (0.7, 0.9):
            limit, folder = int(part * sum(spent)), tmp_path / str(part)
            shared = await solve(server, folder, limit)
            assert recorded_tokens(folder) <= limit
            assert shared[0].trajectory == whole[0].trajectory
            assert "budget" in {result.trajectory.stop for result in shared}
            made = len(server.requests)
            (folder / "predictions.jsonl").unlink()
            (folder / "failures.jsonl").unlink(missing_ok=True)
            again = await solve(server, folder, limit)
            assert len(server.requests) == made
            assert [result.trajectory for result in again] == [result.trajectory for result in shared]


async def test_an_answer_that_a_dead_worker_did_not_get_is_given_to_the_next_one():
    limits = Limits(tokens_per_run=300)
    shares = Shares(limits, problems=3, reserve=0.5)
    desk, dead, alive = ShareDesk(shares), RemoteShares(limits), RemoteShares(limits)
    allowance = shares.begin("a")
    assert allowance == Amount(100)
    shares.begin("b")
    await shares.end("b", Amount(20))

    async def ask(worker: RemoteShares, name: str) -> asyncio.Task[Grant]:
        asking = asyncio.create_task(worker.ask(ShareRequest("a", Amount(90), Amount(40), 0, allowance=allowance)))
        await until(lambda: worker.questions)
        desk.receive(name, worker.questions)
        await until(lambda: desk.answers(name))
        return asking

    lost = await ask(dead, "first process")
    lost.cancel()
    desk.keep_only({"second process"})
    assert shares.begin("a") == Amount(150)  # 100, and the 50 of the answer that got lost
    asking = await ask(alive, "second process")
    alive.receive(desk.answers("second process"))
    assert await asking == Grant(granted=True, taken=50)  # 30 were missing, and 20 are the reserve
    assert shares.pool == Amount(80 - 50)


async def test_a_problem_that_says_twice_that_it_ended_leaves_its_rest_once():
    shares = Shares(Limits(tokens_per_run=200), problems=2, reserve=0.5)
    shares.begin("a")
    await shares.end("a", Amount(60))
    await shares.end("a", Amount(60))
    assert shares.pool == Amount(40)
