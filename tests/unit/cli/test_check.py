"""``tmas check`` against the scripted team: what it prints, what it advises, and its exit codes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rich.console import Console

from tests.support import commands
from tests.support.commands import CommandResult
from tmas.cli.check import CheckSettings, _check
from tmas.cli.check_tables import print_check
from tmas.methods import METHODS
from tmas.methods.allocation import AllocationSettings
from tmas.methods.pacore import PaCoReSettings
from tmas.methods.stopping import VerificationSettings
from tmas.methods.tmas import TMASSettings
from tmas.run.activity import Activity
from tmas.run.check import CheckOptions, check_model, small_method, unfit_roles
from tmas.run.progress import RunProgress
from tmas.settings import RunSettings
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer, run_in_thread


def check(server: ScriptedServer, *overrides: str) -> CommandResult:
    given = ("model.name=scripted", f"model.base_url={server.base_url}", "model.sampling.max_tokens=1000")
    return commands.tmas("check", *given, *overrides)


def test_a_fit_model_is_described_with_its_server_its_roles_and_the_planned_run(tmp_path: Path):
    problems = tmp_path / "p.jsonl"
    problems.write_text('{"problem_id": "a", "question": "1 + 1?"}\n{"problem_id": "b", "question": "2 + 2?"}\n')
    with run_in_thread(ScriptedServer(team.reply, context_length=9000)) as server:
        done = check(server, f"problems={problems}", f"output_dir={tmp_path / 'run'}", "method.max_iterations=3")
    assert done.returncode == 0, done.stderr
    assert f"scripted at {server.base_url} plays solution, verification, summary, experience, guideline" in done.stdout
    assert "context 9,000 tokens: prompts of up to 7,936, completions of up to 1,000" in done.stdout
    assert "the server lists scripted" in done.stdout
    assert "thinking in 0 of 10 replies" in done.stdout
    assert "│verification│      4│    100%│" in done.stdout
    assert "The planned run (2 problems): 156 calls, about" in done.stdout  # 2 x 3 x (3 x 8 + 2)
    assert "Advice" not in done.stdout
    assert list(tmp_path.iterdir()) == [problems]
    assert len(server.requests) == 2 + 2 + 2 + 2


def test_a_problem_of_the_planned_run_can_be_asked(tmp_path: Path):
    problems = tmp_path / "p.jsonl"
    problems.write_text(
        '{"problem_id": "a", "question": "1 + 1?"}\n{"problem_id": "b", "question": "What is 2 + 2?"}\n'
    )
    with run_in_thread(ScriptedServer(team.reply, context_length=9000)) as server:
        done = check(server, f"problems={problems}", "check.problem=b")
        asked = [request["messages"][-1]["content"] for request in server.requests]
        later = check(server, f"problems={problems}", "check.problem=b", "max_problems=1")
        unknown = check(server, f"problems={problems}", "check.problem=c")
    assert done.returncode == 0, done.stderr
    assert all("2 + 2?" in prompt for prompt in asked)
    assert (later.returncode, "The planned run (1 " in later.stdout) == (0, True), later.stderr
    assert (unknown.returncode, "check.problem: there is no problem c" in unknown.stderr) == (2, True)


def test_an_unfit_role_fails_the_check_with_advice_and_the_beginning_of_its_reply():
    def reply(body: Body) -> Script:
        texts = {
            "solution": ["The answer is 24."] * body.get("n", 1),
            "verification": ["<think>Hm.</think>[red]It \x1b[2Jis\u202e fine."] * body.get("n", 1),
        }
        return Script(tuple(texts.get(team.role_of(body), team.reply(body))))

    with run_in_thread(ScriptedServer(reply, context_length=9000, refuses=["seed"])) as server:
        done = check(server, "method.agents.parse_attempts=2")
    assert done.returncode == 1
    assert "thinking in 8 of 12 replies: 8 between <think> tags" in done.stdout
    assert "verification: try method.agents.structured_verification=true" in done.stdout
    assert "2 of 2 candidates have no final answer; try method.agents.answer_format=stated" in done.stdout
    assert "The server refuses the field seed" in done.stdout
    assert "The check had 2 candidates, the run has 8. For a model that was trained for TMAS" in done.stdout
    assert ": [red]It is fine.\n" in done.stdout
    assert "\x1b" not in done.stdout  # a reply must not control the terminal
    assert "tmas: the check failed: verification has 0 readable of 8 replies" in done.stderr


def test_truncated_replies_are_advised_to_be_longer():
    def reply(body: Body) -> Script:
        cut = team.role_of(body) == "solution"
        return Script(tuple(team.reply(body)), finish_reason="length" if cut else "stop")

    with run_in_thread(ScriptedServer(reply, context_length=9000)) as server:
        done = check(server, "model.roles.solution.sampling.max_tokens=77")
    assert done.returncode == 1
    assert (
        "2 unreadable replies reached max_tokens: raise model.roles.solution.sampling.max_tokens (now 77)"
        in done.stdout
    )
    assert "verification gave no reply" in done.stderr


def test_there_is_no_estimate_if_the_server_does_not_report_its_tokens():
    silent = ScriptedServer(lambda body: Script(tuple(team.reply(body)), usage="none"), context_length=9000)
    with run_in_thread(silent) as server:
        done = check(server)
    assert done.returncode == 0, done.stderr
    assert "There is no estimate of the planned run, because the server reported no plausible" in done.stdout
    assert "in replies" not in done.stdout
    assert "tokens/s, the speed" not in done.stdout


def test_the_excerpt_is_of_the_reply_that_could_not_be_read():
    def reply(body: Body) -> Script:
        texts = [*team.reply(body)]
        if team.role_of(body) == "verification":
            texts[0] = "I have no grade."
        return Script(tuple(texts))

    with run_in_thread(ScriptedServer(reply, context_length=9000)) as server:
        done = check(server, "method.agents.parse_attempts=1")
    [excerpt] = [line for line in done.stdout.splitlines() if line.startswith("verification, ")]
    assert excerpt.endswith(": I have no grade.")


def test_a_dead_server_and_an_unknown_model_end_the_check_with_their_own_codes():
    dead = ("model.base_url=http://127.0.0.1:9/v1", "model.patience.backoff_base=0.01", "model.name=m")
    done = commands.tmas("check", *dead)
    assert (done.returncode, "cannot connect (Connection refused)" in done.stderr) == (3, True)
    with run_in_thread(ScriptedServer(team.reply, context_length=9000)) as server:
        done = check(server, "model.name=another")
    assert (done.returncode, "It serves scripted. Set model.name" in done.stderr) == (2, True)


async def test_calls_that_take_too_long_are_ended_and_their_role_is_unfit(tmp_path: Path):
    async with ScriptedServer(lambda _: Script(("a b c",), chunk_delay=3600)) as server:
        settings = RunSettings(model=team.model(server.base_url), method=team.method())
        checked = await check_model(settings, CheckOptions(seconds=0.2), tmp_path, Activity())
    assert unfit_roles(checked, settings, 0.5)[0] == "solution gave no reply"
    console = Console(record=True, width=200)
    print_check(console, checked, settings, 0.2, None)
    assert "The check was ended after 0.2 s, at " in (shown := console.export_text())
    assert "lower model.sampling.max_tokens (now 1,000)" in shown
    assert checked.usage["solution"].calls == 2


@pytest.mark.parametrize(("name", "iterations"), [("tmas", 1), ("rse", 2)])
async def test_the_progress_counts_the_iterations_of_the_check(
    name: str, iterations: int, monkeypatch: pytest.MonkeyPatch
):
    shown: list[RunProgress] = []

    @asynccontextmanager
    async def show_progress(progress: RunProgress, console: Console) -> AsyncIterator[None]:
        shown.append(progress)
        yield

    monkeypatch.setattr("tmas.cli.check.show_progress", show_progress)
    async with ScriptedServer(team.reply) as server:
        settings = CheckSettings(model=team.model(server.base_url), method=team.small(name))
        await _check(settings, CheckOptions(), Console())
    assert [progress.iterations for progress in shown] == [iterations]


def test_a_method_that_ends_problems_early_is_checked_without_that():
    adaptive = TMASSettings(
        early_stop="accepted", verification=VerificationSettings(), allocation=AllocationSettings(policy="progress")
    )
    small = small_method(adaptive, CheckOptions())
    assert isinstance(small, TMASSettings)
    assert (small.early_stop, small.allocation) == ("none", None)
    assert not small.allocates


def test_rounds_that_are_narrower_than_the_check_keep_their_width():
    small = small_method(PaCoReSettings(widths=(32, 4, 1)), CheckOptions(candidates=2))
    assert isinstance(small, PaCoReSettings)
    assert small.widths == (2, 2, 1)


@pytest.mark.parametrize("name", METHODS)
async def test_every_method_is_checked_with_all_its_roles(name: str, tmp_path: Path):
    async with ScriptedServer(team.reply) as server:
        model = team.model(server.base_url)
        settings = RunSettings(model=model, method=METHODS[name].settings_type())  # type: ignore[call-arg]
        checked = await check_model(settings, CheckOptions(), tmp_path, Activity())
    left_out = {"summary"} if name == "genselect" else set()  # by shown=solution, the default
    assert set(checked.usage) == set(small_method(settings.method, CheckOptions()).roles) - left_out
    assert unfit_roles(checked, settings, 0.0) == []
    assert len(server.requests) <= 20
