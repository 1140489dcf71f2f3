"""The benchmarks at a size for tests: that they measure what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiohttp import ClientSession

from benchmarks import bank_truth, client, engine, judging, prefixes, scaling, store
from benchmarks.server import chat_server
from tmas.llm.chat_model import NO_HINT, RoutingHint
from tmas.llm.connection import ProgressCallback
from tmas.methods.tmas import TMASSettings
from tmas.records import Completion, Message, Reply, Request, Sampling, Usage
from tmas.testing import team

SMALL = TMASSettings(max_iterations=2, n_candidates=3, n_verifications=2)


def request(text: str, n: int = 1) -> Request:
    return Request(model="m", messages=(Message(role="user", content=text),), sampling=Sampling(), n=n, seed=1)


class Recorder:
    """Replies at once, and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def complete(
        self, request: Request, on_progress: ProgressCallback | None = None, hint: RoutingHint = NO_HINT
    ) -> Reply:
        self.requests.append(request)
        return Reply(completions=(Completion(text="gibberish"),) * request.n, usage=Usage(calls=1, completion_tokens=5))


def test_the_client_benchmark_counts_every_request_of_the_run_and_keeps_as_many_in_flight_as_may_be():
    cost = client.measure("tmas, all in", concurrency=8, problems=4, rate=40)
    assert cost.calls == 4 * 2 * (8 + 8 + 8 + 2)
    assert (cost.failed, cost.peak) == (0, 8)
    assert cost.cpu_ms > 0


async def test_the_usage_that_the_benchmark_s_server_reports_adds_up():
    body = {"model": "m", "messages": [{"role": "user", "content": "# Your task"}], "n": 3}
    with chat_server(delay=0) as url:
        async with ClientSession() as session, session.post(f"{url}/chat/completions", json=body) as response:
            lines = (await response.text()).splitlines()
    [usage] = [json.loads(line[6:])["usage"] for line in lines if '"usage"' in line]
    assert usage == {"prompt_tokens": 1000, "completion_tokens": 300, "total_tokens": 1300}


def test_the_judge_benchmark_refuses_a_folder_with_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "vanilla").mkdir()
    monkeypatch.setattr("sys.argv", ["judging", str(tmp_path)])
    monkeypatch.setattr(judging, "prepare", lambda *_, **__: pytest.fail("it began"))
    with pytest.raises(SystemExit):
        judging.main()
    assert f"{tmp_path} is not empty" in capsys.readouterr().err


def test_engines_of_one_place_scale_by_their_number_when_there_is_enough_to_do():
    one, _ = scaling.makespan(1, 4, 6, SMALL)
    two, work = scaling.makespan(2, 4, 6, SMALL)
    assert 1.3 < one / two <= 2.001
    assert max(work) < 0.75 * sum(work)


async def test_a_run_that_is_replayed_makes_no_call(tmp_path: Path):
    run, calls = tmp_path / "run", 2 * 2 * (3 + 3 + 3 + 2)
    assert (await store.solve(run, 2, SMALL, active=2))[-1][0] == calls
    assert store.reopen(run, 2, SMALL, active=2) == 0
    traces = {file: file.read_bytes() for file in (run / "trace").iterdir()}
    assert sum(trace.count(b'"type":"call"') for trace in traces.values()) == calls
    assert (await store.solve(run, 2, SMALL, active=2))[-1][0] == calls
    assert {file: file.read_bytes() for file in traces} == traces


async def test_scripted_replies_have_the_texts_and_the_usage_that_the_engine_counted():
    engine_ = Recorder()
    scripted = engine.ScriptedReplies(engine_, team.reply, lambda _: 7, salt="a")
    reply = await scripted.complete(request("What is it?", n=2))
    assert isinstance(reply, Reply)
    assert [c.text for c in reply.completions] != ["gibberish"] * 2
    assert reply.usage.completion_tokens == 5
    [sent] = engine_.requests
    assert (sent.n, sent.sampling.max_tokens) == (2, 7)
    assert sent.sampling.extra == {"ignore_eos": True, "cache_salt": "a"}


async def test_the_usual_way_asks_singly_with_the_instructions_first():
    engine_ = Recorder()
    await prefixes.ConventionalPrompts(engine_).complete(request("The problem.\n\n# Your task\n\nSolve it.", n=3))
    assert [r.n for r in engine_.requests] == [1, 1, 1]
    assert {r.messages[0].content for r in engine_.requests} == {"# Your task\n\nSolve it.\n\nThe problem.\n\n"}


def test_more_of_what_a_bank_supports_is_true_than_under_the_older_rules():
    """The main result of benchmarks.bank_truth, on fewer problems: at 5 and 20 % noise, after 20 iterations."""
    for noise in (0.05, 0.2):
        before, now = (bank_truth.means("hard", rules, noise, problems=10)[-1] for rules in ("before", "now"))
        assert now.by_support > before.by_support + 0.02
        assert now.share > before.share
