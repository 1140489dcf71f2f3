"""run/progress.py: what the Python API prints, or passes to a callback, while it solves."""

from __future__ import annotations

import pytest

from tmas import asolve_all
from tmas.run.progress import RunProgress
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer


def slow(body: Body) -> Script:
    return Script(tuple(team.reply(body)), first_delay=0.02)


async def test_a_callback_gets_the_progress_while_the_run_goes_on_and_after_each_problem(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("tmas.api.CALL_INTERVAL", 0.01)
    seen: list[tuple[int, int]] = []

    def show(progress: RunProgress) -> None:
        assert progress.line()
        seen.append((progress.activity.finished, progress.activity.tokens))

    async with ScriptedServer(slow) as server:
        await asolve_all(team.problems(2), team.model(server.base_url), team.method(), progress=show)
    assert seen == sorted(seen)
    assert {finished for finished, _ in seen} == {0, 1, 2}
    assert seen[-1][1] > 0


@pytest.mark.parametrize("progress", [True, False])
async def test_a_line_is_printed_unless_the_caller_wants_none(
    progress: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("tmas.api.PRINT_INTERVAL", 0.01)
    async with ScriptedServer(slow) as server:
        await asolve_all(team.problems(1), team.model(server.base_url), team.method(), progress=progress)
    assert ("/1 problems (" in capsys.readouterr().err) == progress


async def test_an_error_of_the_callback_is_logged_once_and_costs_no_result(caplog: pytest.LogCaptureFixture):
    def broken(_: RunProgress) -> None:
        raise KeyError("mine")

    async with ScriptedServer(team.reply) as server:
        results = await asolve_all(team.problems(2), team.model(server.base_url), team.method(), progress=broken)
    assert len(results) == 2
    assert [record.exc_info is not None for record in caplog.records if "callback" in record.message] == [True]
