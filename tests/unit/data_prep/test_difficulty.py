"""`tmas filter`: pass rates of the policy, the window, resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.data_steps import filter_settings, problem_file, runner, silent
from tmas.data_prep.difficulty import FilterSettings, filter_by_difficulty, pass_rates
from tmas.data_prep.pool import read_problems
from tmas.files import read_lines
from tmas.llm.endpoint import EndpointDown
from tmas.methods.tmas import TMASSettings
from tmas.run.replay import RecordedRun
from tmas.testing.chat_server import Body, Fault, ScriptedServer, run_in_thread


def replies(*texts: str) -> Any:
    """Answers question i with the text i, for all of its samples."""

    def reply(body: Body) -> list[str]:
        number = int(body["messages"][0]["content"].split("What is ")[1].split()[0])
        return [texts[number]] * body.get("n", 1)

    return reply


def report(folder: Path) -> dict[str, Any]:
    return orjson.loads((folder / "report.json").read_bytes())


def test_the_window_keeps_what_is_solved_sometimes(tmp_path: Path):
    samples = iter("0120000022220002")  # of problem p0, whose answer is 0

    def reply(body: Body) -> list[str]:
        return [f"It is \\boxed{{{next(samples)}}}."]

    lines: list[str] = []
    kept: list[float] = []
    removed: list[tuple[int, str]] = []
    for number in range(4):
        folder = tmp_path / str(number)
        with run_in_thread(ScriptedServer(reply)) as server:
            settings = filter_settings(server, folder, problem_file(folder, 1), min_pass_rate=0.25, max_pass_rate=0.75)
            filter_by_difficulty(settings, runner, lines.append)
        kept += [p.baseline_pass_rate for p in read_problems(folder / "problems.jsonl")]
        removed += [(number, line["reason"]) for line in read_lines(folder / "removed.jsonl")]
    assert kept == [0.5, 0.75]
    assert removed == [(1, "too easy"), (2, "too hard")]
    assert "1 of 1 problems kept; removed: {}" in lines


def test_rates_count_failures_as_wrong_and_leave_out_what_was_never_sampled(tmp_path: Path):
    texts = ["It is \\boxed{0}.", "I do not know.", "It is \\boxed{many}."]
    with run_in_thread(ScriptedServer(replies(*texts))) as server:
        settings = filter_settings(server, tmp_path, problem_file(tmp_path, 3), max_pass_rate=1)
        filter_by_difficulty(settings, runner, silent)
    rates = pass_rates(RecordedRun(tmp_path / "run"))
    assert rates == {"p0": 1.0, "p1": 0.0, "p2": None}
    assert report(tmp_path)["removed"] == {"too hard": 1, "unjudged": 1}
    assert report(tmp_path)["histogram"] == {"0.000": 1, "1.000": 1, "unjudged": 1}
    assert [p.problem_id for p in read_problems(tmp_path / "problems.jsonl")] == ["p0"]


def test_samples_without_an_answer_do_not_make_a_problem_hard_whose_answers_nobody_could_judge(tmp_path: Path):
    texts = iter(["It is \\boxed{many}.", "I do not know."] * 2)
    with run_in_thread(ScriptedServer(lambda _: [next(texts)])) as server:
        settings = filter_settings(server, tmp_path, problem_file(tmp_path, 1))
        filter_by_difficulty(settings, runner, silent)
    assert pass_rates(RecordedRun(tmp_path / "run")) == {"p0": None}


def test_unjudged_problems_may_stay_with_an_unknown_rate(tmp_path: Path):
    with run_in_thread(ScriptedServer(replies("It is \\boxed{many}."))) as server:
        settings = filter_settings(server, tmp_path, problem_file(tmp_path, 1), on_unjudged="keep")
        filter_by_difficulty(settings, runner, silent)
    assert [p.baseline_pass_rate for p in read_problems(tmp_path / "problems.jsonl")] == [-1.0]


def test_a_policy_that_stops_midway_loses_nothing(tmp_path: Path):
    texts = ["It is \\boxed{0}."] * 3
    problems = problem_file(tmp_path, 3)
    faults = [None] * 5 + [Fault("reset", after=None)] * 100
    with run_in_thread(ScriptedServer(replies(*texts), faults=faults)) as server, pytest.raises(EndpointDown):
        filter_by_difficulty(filter_settings(server, tmp_path, problems), runner, silent)
    assert not (tmp_path / "report.json").exists()
    with run_in_thread(ScriptedServer(replies(*texts))) as server:
        settings = filter_settings(server, tmp_path, problems)
        filter_by_difficulty(settings, runner, silent)
        assert 0 < len(server.requests) < 12
        made = len(server.requests)
        filter_by_difficulty(settings, runner, silent)
        assert len(server.requests) == made
    assert report(tmp_path)["problems"] == 3


def test_more_problems_go_on_from_those_drawn_before(tmp_path: Path):
    texts = ["It is \\boxed{0}."] * 9
    problems = problem_file(tmp_path, 9)
    with run_in_thread(ScriptedServer(replies(*texts))) as server:
        filter_by_difficulty(filter_settings(server, tmp_path, problems, max_problems=4), runner, silent)
        first = {line["problem_id"] for line in read_lines(tmp_path / "run" / "predictions.jsonl")}
        assert len(server.requests) == 16
        filter_by_difficulty(filter_settings(server, tmp_path, problems, max_problems=6), runner, silent)
        assert len(server.requests) == 24
        fewer = filter_settings(server, tmp_path, problems, max_problems=4)
        filter_by_difficulty(fewer, runner, silent)
        assert len(server.requests) == 24
    assert sum(report(tmp_path)["histogram"].values()) == report(tmp_path)["problems"] == 4
    second = {line["problem_id"] for line in read_lines(tmp_path / "run" / "predictions.jsonl")}
    assert first < second
    assert first != {"p0", "p1", "p2", "p3"}  # drawn, not the first ones


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": TMASSettings()}, "pass rates come from majority_vote, not from tmas"),
        ({"problems": "there/problems.jsonl", "output_dir": "there"}, "would overwrite the input file"),
        ({"min_pass_rate": 0.9, "max_pass_rate": 0.1}, "min_pass_rate is above max_pass_rate"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, changes: dict[str, Any], message: str):
    given = {"problems": tmp_path, "output_dir": tmp_path, "model": {"name": "m", "base_url": "http://h/v1"}}
    with pytest.raises(ValueError, match=message):
        FilterSettings.model_validate({**given, "method": {"name": "majority_vote"}} | changes)
