"""cli/progress.py: the line says everything that is going on, on a terminal and off it."""

from __future__ import annotations

import asyncio
import io

import pytest
from rich.console import Console

from tmas.cli import progress as module
from tmas.cli.progress import show_progress
from tmas.run import progress as run_progress
from tmas.run.activity import Activity
from tmas.run.progress import RunProgress


class Clock:
    """Time that the test decides."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(run_progress, "time", clock)
    return clock


def test_the_line_gives_every_figure(clock: Clock):
    progress = RunProgress(Activity(), problems=10, iterations=20)
    activity = progress.activity
    activity.in_flight, activity.calls, activity.replayed, activity.failed, activity.tokens = 41, 42, 43, 44, 4500
    activity.iterations = {"a": 3, "b": 3, "c": 0, "d": 5}
    progress.mark_finished("d")
    clock.now += 45
    assert progress.line().split(" | ") == [
        "1/10 problems (1 in it 0, 2 in it 3)",
        "41 calls in flight",
        "42 made",
        "43 from the trace",
        "100 tokens/s",
        "0:45 elapsed",
        "? left",
        "44 failed calls",
    ]


def test_the_line_at_the_start_and_without_failures(clock: Clock):
    line = RunProgress(Activity(), problems=2, iterations=1).line()
    assert line.startswith("0/2 problems (none active) | 0 calls in flight")
    assert "failed" not in line


def test_a_status_stands_alone(clock: Clock):
    progress = RunProgress(Activity(status="starting vLLM with m"), problems=2, iterations=1)
    clock.now += 3725
    assert progress.line() == "starting vLLM with m (1:02:05)"


def test_before_the_first_token_the_line_says_what_the_run_waits_for(clock: Clock):
    activity = Activity(in_flight=3, iterations={"a": 0})
    activity.note_retry("http://h/v1", "cannot connect (Connection refused), attempt 2 of 3")
    progress = RunProgress(activity, problems=1, iterations=1)
    line = progress.line()
    assert " | waiting for the server | " in line
    assert line.endswith(" | retrying http://h/v1: cannot connect (Connection refused), attempt 2 of 3")
    activity.status = "waiting for the model server"
    assert progress.line().endswith("attempt 2 of 3")
    activity.note_retry("http://h/v1", "")
    activity.status, activity.tokens = "", 5
    assert "0 made" in progress.line()
    assert "retrying" not in progress.line()


def test_tokens_per_second_are_those_of_the_last_minute(clock: Clock):
    progress = RunProgress(Activity(), problems=1, iterations=1)
    for tokens in (60_000, 61_000, 62_000, 63_000):
        clock.now += 30
        progress.activity.tokens = tokens
        line = progress.line()
    assert " 33 tokens/s" in line  # 2,000 in 60 s
    progress.activity.tokens = 10  # calls that are retried take their tokens back
    assert " 0 tokens/s" in progress.line()


def test_the_time_left_does_not_count_what_was_replayed(clock: Clock):
    progress = RunProgress(Activity(), problems=4, iterations=10)
    progress.mark_finished("a")
    progress.activity.iterations = {"b": 6}
    clock.now += 1
    progress.line()
    progress.activity.calls = 1
    assert "? left" in progress.line()
    progress.activity.iterations = {"b": 8}
    clock.now += 60
    assert "11:00 left" in progress.line()  # 2 of 40 iterations in 60 s, 22 to go


async def printed(activity: Activity, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> str:
    monkeypatch.setattr(module, "PLAIN_INTERVAL", 0.01)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=40)
    async with show_progress(RunProgress(activity, problems=3, iterations=1), console):
        await asyncio.sleep(0.05)
    return console.file.getvalue()  # type: ignore[attr-defined]


async def test_off_a_terminal_a_line_is_one_line_and_no_markup(monkeypatch: pytest.MonkeyPatch):
    output = await printed(Activity(status="starting vLLM with [red]" + "m" * 100), monkeypatch, terminal=False)
    assert output
    assert "\x1b" not in output
    for line in output.splitlines():
        assert line == "starting vLLM with [red]" + "m" * 100 + " (0:00)"


async def test_on_a_terminal_the_whole_line_and_a_bar_are_shown_and_no_markup(monkeypatch: pytest.MonkeyPatch):
    output = await printed(Activity(status="starting vLLM with [red]"), monkeypatch, terminal=True)
    assert "starting vLLM with [red] (0:00)" in output
    assert "━━━" in output


async def test_an_error_inside_comes_out_and_ends_the_display():
    before = asyncio.all_tasks()
    with pytest.raises(KeyError):
        async with show_progress(RunProgress(Activity(), problems=1, iterations=1), Console(file=io.StringIO())):
            raise KeyError
    assert asyncio.all_tasks() == before
