"""run/health.py: replies are counted as readable or not, in a run and when it is replayed."""

from __future__ import annotations

from pathlib import Path

from tmas import asolve
from tmas.records import CallKey, Completion, Failure, FailureReason, Reply, Result, Usage
from tmas.records.reading import read_records
from tmas.records.run_files import Prediction
from tmas.run.health import ReplyCounter, replies_by_role
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer


async def test_unreadable_replies_are_counted_by_role_and_the_same_in_a_replay(tmp_path: Path):
    asked: list[str] = []

    def reply(body: Body) -> Script:
        role, texts = team.role_of(body), team.reply(body)
        first = role not in asked
        asked.append(role)
        if role == "verification" and first:  # the first of its completions has no grade; it is asked for again
            texts = ["No grade.", *texts[1:]]
        if role == "experience":  # never readable
            texts = ["no JSON"]
        if role == "guideline":
            texts = [f"<think>Hm.</think>{texts[0]}"]
        return Script(tuple(texts), finish_reason="length" if role == "summary" and first else "stop")

    method = team.method(n_candidates=1, n_verifications=2, max_iterations=1, agents={"cut_summaries": None})
    async with ScriptedServer(reply) as server:
        model = team.model(server.base_url)

        async def solved() -> Result:
            return await asolve("1 + 1?", model, method, output_dir=tmp_path)

        results = [await solved(), await solved()]
    for result in results:
        found = {role: (c.replies, c.unreadable, c.truncated) for role, c in replies_by_role(result.replies).items()}
        assert found == {
            "solution": (1, 0, 0),
            "verification": (3, 1, 0),
            "summary": (2, 1, 1),
            "experience": (3, 3, 0),
            "guideline": (1, 0, 0),
        }
        assert replies_by_role(result.replies)["guideline"].thinking_tags == 1
    [line] = read_records(tmp_path / "predictions.jsonl", Prediction)
    assert line.replies == results[0].replies


def test_the_counts_are_the_same_however_often_they_are_asked_for():
    counter, key = ReplyCounter(), CallKey(problem_id="p", iteration=0, role="solution", index=0)
    counter.count(key, 1, Reply(completions=(Completion(text="?"),), usage=Usage()))
    failures = [Failure(reason=FailureReason.UNPARSABLE, message="no answer", key=key)]
    first = counter.counts(failures)
    assert [(one.role, one.replies, one.unreadable) for one in first] == [("solution", 1, 1)]
    assert counter.counts(failures) == first
