"""report/inspect_logs.py: runs as logs for the viewer of inspect_ai."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from tmas.errors import UserError
from tmas.records.reading import read_records
from tmas.records.run_files import Prediction, Terms
from tmas.report import inspect_logs
from tmas.report.report import ReportSettings, make_report
from tmas.report.runs import read_runs
from tmas.run.trace import read_calls, trace_path
from tmas.testing import team
from tmas.testing.synthetic_run import Writer, make, problems


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run in which some calls fail and some replies cannot be parsed."""
    method = team.method(n_candidates=3, n_verifications=3, max_iterations=3)
    return asyncio.run(make(tmp_path / "run", problems(6), method, Writer(seed=3)))


def test_the_package_is_asked_for_before_anything_is_written(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    with pytest.raises(UserError, match=r"tmas\[inspect\]"):
        make_report(ReportSettings(runs=(run,), inspect=run / "logs"))
    assert not (run / "report.html").exists()


def test_a_limit_of_tokens_is_named_only_if_the_problem_reached_it(run: Path):
    [reported] = read_runs([run], lambda _: None).runs
    line = next(reported.predictions())
    used = line.total_usage.total_tokens

    def limit(stop: str, **limits: int | float | None) -> Any:
        terms = Terms(method=line.terms.method, limits=limits)
        changed = line.model_copy(update={"stop": stop, "terms": terms})
        return inspect_logs._sample(reported, changed, None, "rule")["limit"]

    assert limit("budget", tokens_per_problem=used) == {"type": "token", "limit": used}
    assert limit("budget", tokens_per_problem=used + 1, money_per_problem=0.5) is None
    assert limit("budget", tokens_per_run=used) is None
    assert limit("max_iterations", tokens_per_problem=used) is None


def test_a_log_holds_every_call_score_and_failure(run: Path):
    log_module = pytest.importorskip("inspect_ai.log", reason="inspect_ai comes with the extra inspect")
    make_report(ReportSettings(runs=(run,), inspect=run / "logs"))
    log = log_module.read_eval_log(str(run / "logs" / "tmas.eval"), resolve_attachments=True)
    predictions = list(read_records(run / "predictions.jsonl", Prediction))
    assert (log.status, log.eval.solver, log.eval.task_args["seed"]) == ("success", "tmas", 3)
    assert [sample.id for sample in log.samples] == [line.problem_id for line in predictions]
    failures = []
    for sample, line in zip(log.samples, predictions, strict=True):
        calls = {str(call.key): call for call in read_calls(trace_path(run, line.problem_id))}
        events = [event for event in sample.events if event.event == "model"]
        assert {event.metadata["call"] for event in events} == calls.keys()
        for event in events:
            call = calls[event.metadata["call"]]
            assert [message.text for message in event.input] == [message.content for message in call.messages]
            written = [completion.text for completion in call.reply.completions] if call.reply else []
            assert [choice.message.text for choice in event.output.choices] == written
            assert (event.error is None) == (call.failure is None)
        assert sample.scores["rule"].value == {"equal": "C", "different": "I"}[line.correct or ""]
        assert sample.scores["rule"].answer == line.answer
        assert sample.role_usage.keys() == {entry.role for entry in line.usage}
        assert sum(usage.total_tokens for usage in sample.role_usage.values()) == line.total_usage.total_tokens
        failures += [event for event in sample.events if event.event == "info" and event.source == "failure"]
    assert failures  # replies that could not be used
    assert {score.name for score in log.results.scores} == {"selected", "pass_at_1"}
