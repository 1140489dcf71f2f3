"""A recorded run read again: the trajectory of every problem, whatever went wrong in it, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tmas import Result, solve_all
from tmas.errors import UserError
from tmas.records import FailureReason, Solution
from tmas.run.replay import RecordedRun
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer, run_in_thread


def solve(path: Path, reply: Any, model: dict[str, Any] | None = None, **options: Any) -> list[Result]:
    with run_in_thread(ScriptedServer(reply)) as server:
        settings = team.model(server.base_url, **(model or {}))
        return solve_all(team.problems(3), settings, options.pop("method", team.method()), output_dir=path, **options)


def faulty(body: Body) -> Script:
    """Some candidates and summaries are cut short; some verifications and bank updates have to be asked for again."""
    role, number = team.role_of(body), team.number(body)
    texts = tuple(team.reply(body))
    if role in ("solution", "summary") and number % 3 == 0:
        return Script(texts, finish_reason="length")
    if role in ("verification", "experience") and number % 2 == 0:
        return Script(("I cannot say.", *texts[1:]))
    return Script(texts)


def test_failures_and_repeated_calls_are_replayed(tmp_path: Path):
    results = solve(tmp_path, faulty)
    reasons = {failure.reason for result in results for failure in result.failures}
    assert reasons == {FailureReason.TRUNCATED, FailureReason.UNPARSABLE}
    assert any(key.endswith("/1") for key in team.recorded_calls(tmp_path))
    recorded = RecordedRun(tmp_path)
    assert [recorded.trajectory(result.problem) for result in results] == [result.trajectory for result in results]


def test_packed_prompts_need_no_tokenizer(tmp_path: Path):
    results = solve(tmp_path, team.reply, {"context_length": 2050})
    assert sum(result.packed_prompts for result in results) > 0
    recorded = RecordedRun(tmp_path)
    assert [recorded.trajectory(result.problem) for result in results] == [result.trajectory for result in results]


def test_a_replay_finds_the_items_that_a_shortened_prompt_of_rse_showed(tmp_path: Path):
    def reply(body: Body) -> list[str]:
        if team.role_of(body) == "distill":
            texts = [f"x = {n}{' indeed' * 40}" for n in range(team.number(body) % 3, 12)]
            return [orjson.dumps({"verified_propositions": texts, "critical_pitfalls": []}).decode()]
        return team.reply(body)

    method = team.small("rse", max_iterations=2)
    results = solve(tmp_path, reply, {"context_length": 1064 + 900}, method=method)
    for result in results:
        first, second = result.trajectory.iterations
        assert 0 < len(second.rollouts[0].shown) < len(first.experiences)
    recorded = RecordedRun(tmp_path)
    assert [recorded.trajectory(result.problem) for result in results] == [result.trajectory for result in results]


def test_a_run_that_its_budget_ended_has_what_was_done(tmp_path: Path):
    def slow(body: Body) -> Script:
        return Script(tuple(team.reply(body)), chunk_delay=0.001)

    results = solve(tmp_path, slow, limits={"tokens_per_problem": 3000})
    recorded = RecordedRun(tmp_path)
    for result in results:
        assert result.trajectory.stop == "budget"
        found = recorded.trajectory(result.problem)
        for mine, theirs in zip(found.iterations, result.trajectory.iterations, strict=True):
            assert (mine.experiences, mine.guidelines) == (theirs.experiences, theirs.guidelines)
            assert solutions(mine.rollouts) == solutions(theirs.rollouts)
    missing = {
        f.reason for result in results for i in recorded.trajectory(result.problem).iterations for f in i.all_failures
    }
    assert FailureReason.BUDGET in missing


def solutions(rollouts: Any) -> list[Any]:
    return [r.solution if isinstance(r.solution, Solution) else r.solution.reason for r in rollouts]


def test_nothing_is_written(tmp_path: Path):
    [result, *_] = solve(tmp_path, team.reply)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    RecordedRun(tmp_path).trajectory(result.problem)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_an_unfinished_line_and_another_schema_version(tmp_path: Path):
    solve(tmp_path, team.reply)
    with (tmp_path / "predictions.jsonl").open("ab") as file:
        file.write(b'{"problem_id": "torn')
    assert list(RecordedRun(tmp_path).problem_ids) == ["p0", "p1", "p2"]
    assert RecordedRun(tmp_path).prediction("p2").problem_id == "p2"
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(orjson.dumps(orjson.loads(manifest.read_bytes()) | {"schema_version": 0}))
    with pytest.raises(UserError, match="schema version 0"):
        RecordedRun(tmp_path)
