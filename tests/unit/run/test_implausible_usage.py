"""Token counts that cannot be true: a run neither ends nor overspends by them, and old traces with them can be read."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.runs import recorded_tokens
from tmas import Result, solve_all
from tmas.concurrency import PriorityLimiter
from tmas.llm.tokens import ContextWindow
from tmas.methods.majority_vote import MajorityVoteSettings
from tmas.records import CallKey, Problem, Sampling, UsageEntry
from tmas.run.budget import CANCELLED_PREFIX, UNREPORTED_PREFIX, unreported_usage
from tmas.run.session import ProblemSession
from tmas.run.state import RoleModel, RunState
from tmas.run.trace import Trace, read_calls, trace_path
from tmas.settings import Limits
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer, run_in_thread

ABSURD = [2**64 - 1, -100_000, 10**12]
PROBLEM = Problem(problem_id="p0", question="What is 0 + 0?")
ANSWER = "The answer is \\boxed{0}. " * 20


def solve(path: Path, count: int, **options: Any) -> tuple[list[Result], int]:
    """The results of a run whose server reports ``count`` for all tokens, and the number of its requests."""

    def reply(_: Body) -> Script:
        choice = {"message": {"content": ANSWER}, "finish_reason": "stop"}
        usage = {"prompt_tokens": count, "completion_tokens": count}
        return Script(raw=(json.dumps({"choices": [choice], "usage": usage}).encode(),), stream=False)

    with run_in_thread(ScriptedServer(reply)) as server:
        method = MajorityVoteSettings(n_candidates=100)
        results = solve_all([PROBLEM], team.model(server.base_url), method, output_dir=path, **options)
        return results, len(server.requests)


@pytest.mark.parametrize("count", ABSURD)
def test_a_run_goes_through_and_its_calls_say_that_they_were_counted(tmp_path: Path, count: int):
    results, _ = solve(tmp_path, count)
    assert [result.answer for result in results] == ["0"]
    calls = list(read_calls(trace_path(tmp_path, "p0")))
    assert {call.reply.notes for call in calls if call.reply} == {("usage_implausible",)}
    assert recorded_tokens(tmp_path) > 100 * len(ANSWER) / 4
    assert sum(entry.usage.total_tokens for entry in results[0].usage) == 0


@pytest.mark.parametrize("count", ABSURD)
def test_a_budget_holds(tmp_path: Path, count: int):
    _, requests = solve(tmp_path, count, limits={"tokens_per_problem": 3000}, concurrency=1)
    assert 2 <= requests <= 20  # about 250 tokens each


def with_usage_of_an_older_version(path: Path, count: int) -> None:
    """Write ``count`` into the usage of each recorded reply, as older versions did, and into the other counts."""
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    for line in lines:
        line.pop("check", None)  # older versions wrote no checksums
        if line["type"] == "call":
            line["reply"]["usage"] |= {"prompt_tokens": count, "completion_tokens": count}
            line["reply"]["notes"] = []
    kept = [line for line in lines if not line.get("name", "").startswith(UNREPORTED_PREFIX)]
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in kept))


@pytest.mark.parametrize("count", ABSURD)
def test_an_old_trace_with_such_counts_can_be_read_resumed_and_is_counted_again(tmp_path: Path, count: int):
    first, _ = solve(tmp_path, count)
    counted = recorded_tokens(tmp_path)
    with_usage_of_an_older_version(trace_path(tmp_path, "p0"), count)
    assert recorded_tokens(tmp_path) == 0
    (tmp_path / "predictions.jsonl").unlink()
    again, requests = solve(tmp_path, count)
    assert requests == 0
    assert [result.answer for result in again] == [result.answer for result in first]
    assert recorded_tokens(tmp_path) == counted


@pytest.mark.parametrize("count", ABSURD)
def test_other_counts_of_an_old_trace_are_checked_too(tmp_path: Path, count: int):
    key = CallKey(problem_id="p0", iteration=0, role="solution", index=0)
    usage = {"calls": 1, "prompt_tokens": 5, "completion_tokens": count, "seconds": 1.0}
    entry = {"role": "solution", "iteration": 0, "usage": usage}
    with closing(Trace(trace_path(tmp_path, "p0"))) as trace:
        trace.record_decision(f"{UNREPORTED_PREFIX}{key}", count)
        trace.record_decision(f"{CANCELLED_PREFIX}{key}", UsageEntry.model_validate(entry).model_dump())
        role = RoleModel(None, "m", Sampling(), ContextWindow(len, 1000, 1))  # type: ignore[arg-type]
        run = RunState({"solution": role}, PriorityLimiter(1), limits=Limits(tokens_per_problem=100))
        session = ProblemSession(PROBLEM, trace, run)
    assert recorded_tokens(tmp_path) == session.charges.budget.spent == 5


def test_tokens_that_no_server_reported_belong_to_the_role_of_their_call_also_in_a_later_round():
    for key in (CallKey(problem_id="p", iteration=3, role="verification", index=2, offset=o) for o in (0, 4)):
        entry = unreported_usage(f"{UNREPORTED_PREFIX}{key}", 7)
        assert (entry.role, entry.iteration, entry.usage.completion_tokens) == ("verification", 3, 7)
