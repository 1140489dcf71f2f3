"""run/control.py and run/live_socket.py: a live run answers at its socket, and changes without losing a call."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from tests.support.commands import tmas, tmas_process
from tests.support.serving import runs_in, served
from tests.support.waiting import LIMIT, until, until_held_back
from tmas import Result, asolve_all
from tmas.errors import UserError
from tmas.files import read_lines
from tmas.records.live import ControlLine, LimitChanges, RunStatus
from tmas.records.prices import Price
from tmas.records.reading import read_records
from tmas.run.activity import Activity
from tmas.run.budget import recorded_charges
from tmas.run.control import BudgetUse, RunControl
from tmas.run.live_socket import SOCKET, NotLive, _listen, answer_requests, ask_live
from tmas.run.status import change_limits, run_status
from tmas.settings import RunSettings
from tmas.testing import team
from tmas.testing.chat_server import Body, ScriptedServer, run_in_thread
from tmas.testing.team import essence

pytestmark = pytest.mark.usefixtures("answers_as_text")
FIXTURE = Path(__file__).parents[2] / "fixtures" / "run_v1" / "run"


class Gate:
    """A scripted team whose reply number ``at`` is held back until :meth:`open`. Then the run can do nothing else."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, 0
        self.reached, self._opened = threading.Event(), threading.Event()

    def open(self) -> None:
        self._opened.set()

    def reply(self, body: Body) -> list[str]:
        self.count += 1
        if self.count == self.at:
            self.reached.set()
            assert self._opened.wait(LIMIT)
        return team.reply(body)


@contextmanager
def gated(at: int) -> Iterator[tuple[ScriptedServer, Gate]]:
    gate = Gate(at)
    with run_in_thread(ScriptedServer(gate.reply)) as server:
        try:
            yield server, gate
        finally:
            gate.open()


PRICE: dict[str, Any] = {"input": 1000, "output": 3000}
"""Price of a million tokens."""


def cost(folder: Path) -> Any:
    """What the traces of the run in ``folder`` cost at ``PRICE``, with calls that were interrupted."""
    costs = [Price(**PRICE).cost(usage) for usage in recorded_charges(folder).values()]
    return pytest.approx(sum(cost or 0 for cost in costs))


def settings(base_url: str, price: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
    model = team.model(base_url, **({"price": price} if price else {}))
    return {"model": model, "method": team.method(), **given}


@asynccontextmanager
async def live(folder: Path, at: int, **given: Any) -> AsyncIterator[tuple[asyncio.Task[list[Result]], Gate]]:
    """A run of three problems in ``folder``, with one call at once, that is held at call number ``at``."""
    with gated(at) as (server, gate):
        options = settings(server.base_url, output_dir=folder, **{"concurrency": 1, **given})
        running = asyncio.create_task(asolve_all(team.problems(3), **options))
        await until(lambda: gate.reached.is_set() or running.done())
        try:
            yield running, gate
        finally:
            gate.open()
            await asyncio.gather(running, return_exceptions=True)


async def change(folder: Path, **changes: Any) -> RunStatus:
    return await asyncio.to_thread(change_limits, folder, LimitChanges(**changes))


async def seen(folder: Path) -> RunStatus:
    return await asyncio.to_thread(run_status, folder)


def recorded(folder: Path) -> list[tuple[str, Any, Any]]:
    return [(line.setting, line.before, line.after) for line in read_records(folder / "control.jsonl", ControlLine)]


# --- pause and limits


async def test_a_pause_starts_no_call_loses_none_and_changes_nothing(tmp_path: Path):
    async with ScriptedServer(team.reply) as server:
        await asolve_all(team.problems(3), output_dir=tmp_path / "whole", **settings(server.base_url))
        calls = len(server.requests)
    run = tmp_path / "run"
    async with live(run, at=5) as (running, gate):
        assert (await change(run, pause=True)).state == "paused"
        gate.open()
        await until(lambda: len(team.recorded_calls(run)) == 5)  # the call in flight finishes and is recorded
        for _ in range(200):  # a call that could start would
            await asyncio.sleep(0)
        status = await seen(run)
        assert (status.state, status.in_flight, status.calls, gate.count) == ("paused", 0, 5, 5)
        assert not running.done()
        assert (await change(run, pause=False)).state == "running"
        await running
    assert gate.count == calls
    assert essence(run) == essence(tmp_path / "whole")
    assert recorded(run) == [("pause", False, True), ("pause", True, False)]


async def test_concurrency_and_active_problems_change_at_once_and_only_real_changes_are_recorded(tmp_path: Path):
    async with live(tmp_path, at=5, active_problems=1) as (running, gate):
        assert (await seen(tmp_path)).by_iteration == {0: 1}
        status = await change(tmp_path, concurrency=7, active_problems=3)
        assert (status.concurrency, status.active_problems) == (7, 3)
        await change(tmp_path, concurrency=7)
        await until(lambda: len(list((tmp_path / "trace").iterdir())) == 3)  # the other two problems have begun
        gate.open()
        await running
    assert recorded(tmp_path) == [("concurrency", 1, 7), ("active_problems", 1, 3)]


async def test_a_resumed_run_has_the_limits_of_its_command_and_the_record_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with live(tmp_path, at=5) as (running, _):
        await change(tmp_path, concurrency=7, pause=True)
        running.cancel()
    async with live(tmp_path, at=2) as (running, gate):
        status = await seen(tmp_path)
        assert (status.state, status.concurrency) == ("running", 1)
        gate.open()
        await running
    assert recorded(tmp_path)[2:] == [("concurrency", 7, 1), ("pause", True, False)]
    assert "this start uses those of its command" in caplog.text


async def test_a_budget_that_is_divided_between_the_problems_cannot_be_changed(tmp_path: Path):
    method = team.small("tmas", allocation={"policy": "progress", "least_candidates": 1})
    async with live(tmp_path, at=9, method=method, limits={"tokens_per_run": 10**6}) as (running, gate):
        with pytest.raises(UserError, match="divided between the problems"):
            await change(tmp_path, tokens_per_run=10**7)
        gate.open()
        await running


async def test_a_lower_budget_ends_the_run_and_problems_are_recorded_under_it(tmp_path: Path):
    async with live(tmp_path, at=9, limits={"tokens_per_run": 10**6}) as (running, gate):
        spent = (await seen(tmp_path)).tokens_spent
        assert spent
        await change(tmp_path, tokens_per_run=spent + 1)
        gate.open()
        results = await running
    assert {result.trajectory.stop for result in results} == {"budget"}
    terms = [line["terms"]["limits"]["tokens_per_run"] for line in read_lines(tmp_path / "predictions.jsonl")]
    assert terms == [spent + 1] * 3
    async with ScriptedServer(team.reply) as server:  # the same limit: nothing is left to do
        given = settings(server.base_url, output_dir=tmp_path, limits={"tokens_per_run": spent + 1})
        await asolve_all(team.problems(3), **given)
        assert server.requests == []


async def test_a_budget_that_is_set_later_counts_the_tokens_of_earlier_starts(tmp_path: Path):
    async with live(tmp_path, at=30) as (running, _):
        running.cancel()
    earlier = len(team.recorded_calls(tmp_path))  # 29, or 30 if the held call ended before it was cancelled
    async with live(tmp_path, at=3) as (_, gate):
        status = await change(tmp_path, tokens_per_run=10**6)
        recorded_so_far = sum(
            call["reply"]["usage"]["prompt_tokens"] + call["reply"]["usage"]["completion_tokens"]
            for call in team.recorded_calls(tmp_path).values()
        )
        assert len(team.recorded_calls(tmp_path)) == earlier + 2
        assert status.tokens_spent == recorded_so_far
        gate.open()


async def test_a_budget_in_money_changes_like_one_in_tokens_and_counts_earlier_starts(tmp_path: Path):
    async with live(tmp_path, at=30, price=PRICE) as (running, _):
        running.cancel()
    async with live(tmp_path, at=9, price=PRICE) as (running, gate):
        status = await seen(tmp_path)
        assert (status.money_spent, status.currency, status.money_per_run) == (cost(tmp_path), "USD", None)
        assert (await change(tmp_path, money_per_run=1000)).money_spent == cost(tmp_path)
        assert status.money_spent
        limit = status.money_spent + 0.0001
        await change(tmp_path, money_per_run=limit)
        gate.open()
        assert {result.trajectory.stop for result in await running} == {"budget"}
    assert recorded(tmp_path) == [("money_per_run", None, 1000), ("money_per_run", 1000, limit)]
    terms = [line["terms"]["limits"]["money_per_run"] for line in read_lines(tmp_path / "predictions.jsonl")]
    assert terms == [limit] * 3
    totals = orjson.loads((tmp_path / "metrics.json").read_bytes())
    assert (await seen(tmp_path)).money_spent == pytest.approx(totals["cost"]["total"])
    async with ScriptedServer(team.reply) as server:  # the same limit: nothing is left to do
        given = settings(server.base_url, PRICE, output_dir=tmp_path, limits={"money_per_run": limit})
        await asolve_all(team.problems(3), **given)
        assert server.requests == []


async def test_changes_are_checked_and_made_all_or_none(tmp_path: Path):
    async with live(tmp_path, at=3):
        with pytest.raises(UserError, match="concurrency: Input should be greater than or equal to 1"):
            await asyncio.to_thread(ask_live, tmp_path, {"changes": {"active_problems": 2, "concurrency": 0}})
        with pytest.raises(UserError, match="seed: Extra inputs are not permitted"):
            await asyncio.to_thread(ask_live, tmp_path, {"changes": {"active_problems": 2, "seed": 2}})
        with pytest.raises(UserError, match="a budget in money needs the price of every model"):
            await change(tmp_path, active_problems=2, money_per_run=3)
        assert (await seen(tmp_path)).active_problems == 512
    assert not (tmp_path / "control.jsonl").exists()


async def test_a_run_that_still_starts_and_one_on_ray_refuse_what_they_cannot_do(tmp_path: Path):
    on_ray = RunSettings(**settings("http://127.0.0.1:9/v1"), active_problems=5, ray={"workers": 2})
    control = RunControl(tmp_path, on_ray, Activity())
    with pytest.raises(UserError, match="still starting"):
        await control.change(LimitChanges(pause=True))
    control.use(SimpleNamespace(budget_use=BudgetUse()))  # type: ignore[arg-type]
    control.use(SimpleNamespace(budget_use=BudgetUse(exhausted=True)))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="the budget of the run is used up, and the run is ending"):
        await control.change(LimitChanges(tokens_per_run=10**7))
    control.use(SimpleNamespace(budget_use=BudgetUse()))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="on Ray, active_problems can be at most 5"):
        await control.change(LimitChanges(active_problems=6))
    with pytest.raises(ValueError, match=r"on Ray it needs ray\.workers=1"):
        await control.change(LimitChanges(tokens_per_run=6))


@pytest.mark.parametrize("budget", ["tokens_per_run", "money_per_run"])
async def test_neither_budget_of_a_run_can_be_changed_while_problems_divide_it(tmp_path: Path, budget: str):
    given = settings("http://127.0.0.1:9/v1", PRICE, method=team.method(allocation={}), limits={budget: 50})
    control = RunControl(tmp_path, RunSettings(**given), Activity())
    control.use(SimpleNamespace(budget_use=BudgetUse()))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"{budget} is divided between the problems"):
        await control.change(LimitChanges(**{budget: 60}))


# --- the status


async def test_the_status_shows_roles_banks_failures_and_estimates(tmp_path: Path):
    async with live(tmp_path, at=25) as (running, gate):
        status = await seen(tmp_path)
        roles = status.roles
        assert (status.problems, status.finished, status.calls, status.in_flight) == (3, 0, 24, 1)
        assert sum(role.calls for role in roles.values()) == 24
        assert sum(role.in_flight for role in roles.values()) == 1
        assert roles["verification"].tokens > 0
        assert {change.bank for change in status.bank_changes} <= {"experience", "guideline"}
        gate.open()
        await running
    whole = await seen(tmp_path)
    assert (whole.state, whole.finished, whole.by_iteration) == ("finished", 3, {2: 3})
    assert whole.bank_changes[-1].change.added
    assert whole.calls == len(team.recorded_calls(tmp_path))


async def test_time_tokens_and_money_left_are_estimated_from_the_work_since_the_first_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now = 1000.0
    monkeypatch.setattr("tmas.run.control.time", SimpleNamespace(monotonic=lambda: now, time=lambda: now))
    given = settings(
        "http://127.0.0.1:9/v1", PRICE, method=team.method(max_iterations=10), limits={"money_per_run": 50}
    )
    control = RunControl(tmp_path, RunSettings(**given), activity := Activity(), problems=4, finished=1, currency="USD")
    control.use(SimpleNamespace(budget_use=BudgetUse()), earlier_cost=6)  # type: ignore[arg-type]
    activity.iterations = {"b": 6}
    assert control.status().seconds_left is None
    activity.calls, activity.tokens, activity.cost = 1, 500, 3
    control.status()
    now += 60
    activity.iterations, activity.tokens, activity.cost = {"b": 8}, 700, 7
    status = control.status()
    assert (status.money_spent, status.money_left, status.exceeds_budget) == (13, pytest.approx(44), True)
    assert (status.seconds_left, status.completion_tokens_left) == (pytest.approx(660), 2200)  # 2 of 40 done, 22 to go


async def test_commands_show_and_change_a_live_run(tmp_path: Path):
    async with live(tmp_path / "it's a run", at=5, price=PRICE) as (running, gate):
        run = tmp_path / "it's a run"
        changed = await asyncio.to_thread(tmas_process, "control", run, "concurrency=2", "tokens_per_run=9000000")
        assert changed.returncode == 0, changed.stderr
        assert "limits: concurrency=2 active_problems=512 tokens_per_run=9000000" in changed.stdout
        shown = await asyncio.to_thread(tmas, "status", run)
        assert f"{run}: running\nproblems: 0 of 3 finished" in shown.stdout
        costs = await asyncio.to_thread(tmas, "control", run, "money_per_run=7.5")
        assert " money_per_run=7.5\n" in costs.stdout
        assert re.search(
            r"^money: \d.\d+ USD spent of 7.50, \d.\d\d left; the rest of the work costs", costs.stdout, re.M
        )
        as_json = await asyncio.to_thread(tmas, "status", run, "json=true")
        assert RunStatus.model_validate_json(as_json.stdout).concurrency == 2
        gate.open()
        await running


def test_the_status_of_a_run_of_an_older_version_comes_from_its_files():
    shown = tmas_process("status", FIXTURE)
    assert shown.returncode == 0, shown.stderr
    assert "finished\nproblems: 3 of 3 finished (" in shown.stdout
    assert "Latest bank changes" in shown.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["control", FIXTURE, "pause=true"], "no process works in this run directory. Only a live run can be changed."),
        (
            ["control", FIXTURE],
            "nothing to change. Give one of concurrency, active_problems, tokens_per_run, money_per_run, pause.",
        ),
        (["control", FIXTURE, "concurrency=0"], "concurrency: Input should be greater than or equal to 1"),
        (["status", "nowhere"], "nowhere: no manifest.json, and no live process."),
        (["status"], "not set: run."),
        (["view", "nowhere"], "nowhere: not a run directory: manifest.json is missing"),
    ],
)
def test_wrong_input_is_one_message(words: list[Any], message: str, tmp_path: Path):
    done = tmas(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr.replace("\n", " ")


# --- the socket


async def echo(request: dict[str, Any]) -> dict[str, Any]:
    return {"status": request}


async def test_only_the_owner_can_connect_and_long_paths_work(tmp_path: Path):
    folder = tmp_path / ("x" * 150)
    folder.mkdir()
    async with answer_requests(folder, echo):
        assert stat.S_IMODE((folder / SOCKET).stat().st_mode) == 0o600
        assert await asyncio.to_thread(ask_live, folder, {"a": 1}) == {"status": {"a": 1}}
    assert list(folder.iterdir()) == []


async def test_another_user_learns_that_only_the_owner_can_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class OfAnotherUser(socket.socket):
        def connect(self, address: Any) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tmas.run.live_socket.socket.socket", OfAnotherUser)
    with pytest.raises(UserError, match="only the owner of the run can read its live status") as refused:
        ask_live(tmp_path, {})
    assert refused.value.where == tmp_path
    assert not isinstance(refused.value, NotLive)


async def test_a_request_that_fails_in_the_live_process_is_answered_with_the_error(tmp_path: Path):
    async def broken(request: dict[str, Any]) -> dict[str, Any]:
        raise PermissionError(13, "Permission denied", "trace.jsonl")

    async with answer_requests(tmp_path, broken):
        with pytest.raises(UserError, match=r"the request failed .*Permission denied: 'trace.jsonl'"):
            await asyncio.to_thread(ask_live, tmp_path, {})


async def test_the_socket_of_a_dead_process_is_replaced_and_that_of_a_live_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    _listen(tmp_path).close()  # as a killed process leaves it
    with pytest.raises(NotLive):
        ask_live(tmp_path, {})
    async with answer_requests(tmp_path, echo):
        async with answer_requests(tmp_path, echo):
            assert "another process answers on it" in caplog.text
        assert await asyncio.to_thread(ask_live, tmp_path, {}) == {"status": {}}


async def test_a_file_system_without_sockets_costs_the_run_nothing_but_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(path: str, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    async with answer_requests(tmp_path, echo):
        pass
    assert "no live status and control (Operation not permitted)" in caplog.text


async def test_a_request_that_is_too_long_or_not_json_is_refused(tmp_path: Path):
    async with answer_requests(tmp_path, echo):
        with pytest.raises(UserError, match="cannot be read"):
            await asyncio.to_thread(ask_live, tmp_path, {"a": "x" * 2**17})
        for request in ([], None, 7, "changes"):
            with pytest.raises(UserError, match="cannot be read"):
                await asyncio.to_thread(ask_live, tmp_path, request)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [2**63, 2**64])
@pytest.mark.parametrize("name", ["concurrency", "active_problems", "tokens_per_run"])
def test_a_limit_that_the_answer_of_the_socket_cannot_hold_is_refused(name: str, number: int):
    with pytest.raises(ValidationError, match="less than"):
        LimitChanges.model_validate({name: number})


async def test_half_a_line_of_the_record_of_changes_is_cut_off_when_the_run_starts_again(tmp_path: Path):
    async with live(tmp_path, at=9) as (running, gate):
        await change(tmp_path, concurrency=7)
        gate.open()
        await running
    whole = (tmp_path / "control.jsonl").read_bytes()
    (tmp_path / "control.jsonl").write_bytes(whole + whole[:20])
    async with live(tmp_path, at=99) as (running, _):
        await running
    assert (tmp_path / "control.jsonl").read_bytes().startswith(whole)
    assert recorded(tmp_path)[0] == ("concurrency", 1, 7)


# --- serve


async def test_a_server_answers_in_its_own_folder_for_all_its_requests(tmp_path: Path):
    gate = Gate(5)
    with run_in_thread(ScriptedServer(gate.reply)) as engine:
        async with served(tmp_path, engine.base_url, concurrency=1, model={"price": PRICE}) as server:
            asked = asyncio.create_task(server.ask())
            await until(gate.reached.is_set)
            status = await change(tmp_path, concurrency=3)
            assert (status.problems, status.finished, status.calls, status.concurrency) == (1, 0, 4, 3)
            with pytest.raises(UserError, match="tokens_per_run cannot be changed here"):
                await change(tmp_path, tokens_per_run=3)
            assert (await change(tmp_path, pause=True)).state == "paused"
            gate.open()
            await until(lambda: server.service.control.activity.in_flight == 0)
            await until_held_back(server.service.runtime.limiter)
            assert not asked.done()
            assert (await change(tmp_path, pause=False)).state == "running"
            assert (await asked).status == 200
            status = await seen(tmp_path)
            assert (status.finished, status.money_spent) == (1, cost(runs_in(tmp_path)[0]))
    assert len(runs_in(tmp_path)) == 1
    with pytest.raises(UserError, match="no live process"):
        await seen(tmp_path)
