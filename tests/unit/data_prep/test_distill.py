"""`tmas distill`: the estimate before the first call, the hard budget, resume, and no gold answer in any context."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import parquet

from tests.support.data_steps import distill_settings, filter_settings, problem_file, runner, silent
from tmas.data_prep.build import build
from tmas.data_prep.build_settings import BuildSettings
from tmas.data_prep.cost import Expected, Length, estimate_lines, expected_estimate
from tmas.data_prep.difficulty import filter_by_difficulty
from tmas.data_prep.distill import DistillSettings, distill, estimate
from tmas.data_prep.pool import read_problems
from tmas.files import read_lines
from tmas.llm.endpoint import EndpointDown
from tmas.llm.tokens import ContextWindow, token_counter
from tmas.methods.majority_vote import MajorityVoteSettings
from tmas.methods.tmas import TMASSettings
from tmas.records import Problem
from tmas.records.prices import Price
from tmas.run.replay import RecordedRun
from tmas.testing import team
from tmas.testing.chat_server import Body, Fault, Script, ScriptedServer, run_in_thread
from tmas.training.contexts import rows_from_run
from tmas.training.rows import read_rows

ROLES = {"solution", "verification", "summary", "experience", "guideline"}


def test_the_expected_estimate_counts_every_call_and_prompt():
    problems = [Problem(problem_id=str(i), question="x" * 100, answer=None) for i in range(10)]
    method = TMASSettings(n_candidates=2, n_verifications=3, max_iterations=2, epsilon=0)
    one = Length(reply=1000, text=10)
    expected = Expected(solution=one, verification=one, summary=one, experience=one, guideline=one, bank=100)
    found = expected_estimate(problems, method, expected, len)
    assert found.usage.calls == 10 * 2 * (3 * 2 + 2)
    assert found.usage.completion_tokens == 10 * 2 * (2 + 6 + 2 + 2) * 1000
    assert found.by_role["verification"].completion_tokens == 10 * 2 * 6 * 1000
    question = 100 + 200  # and the instructions
    solutions = 2 * (2 * question + 100 + 2 * 20)  # the second iteration has R and E
    verifications = 2 * 6 * (question + 10)
    summaries = 2 * 2 * (question + 10 + 3 * 10)
    memory = 2 * 2 * (question + 2 * 20 + 100)
    assert found.usage.prompt_tokens == 10 * (solutions + verifications + summaries + memory)
    assert not found.measured
    prices = dict.fromkeys(method.roles, Price(input=1, cached_input=0.1, output=2))
    low, high = found.costs(prices)
    assert low.total == pytest.approx((found.usage.prompt_tokens / 10 + 2 * found.usage.completion_tokens) / 1e6)
    assert high.total == pytest.approx((found.usage.prompt_tokens + 2 * found.usage.completion_tokens) / 1e6)
    assert found.costs({"solution": Price(input=1, output=2)})[1].total is None


@pytest.mark.parametrize(
    ("ablation", "role", "epsilon"), [("use_experience", "experience", 0.0), ("use_guidelines", "guideline", 1.0)]
)
def test_a_bank_that_is_not_used_is_not_expected_to_cost_anything(ablation: str, role: str, epsilon: float):
    problem = Problem(problem_id="a", question="x" * 100, answer=None)
    method = TMASSettings(n_candidates=2, max_iterations=2, epsilon=epsilon)
    expected = Expected(bank=100)
    whole = expected_estimate([problem], method, expected, len).by_role
    ablated = expected_estimate([problem], method.model_copy(update={ablation: False}), expected, len).by_role
    assert set(ablated) == ROLES - {role}
    assert whole["solution"].prompt_tokens - ablated["solution"].prompt_tokens == 2 * 100  # of the second iteration


def test_no_prompt_is_expected_to_be_longer_than_the_room_that_its_model_has():
    problem = Problem(problem_id="a", question="x" * 100, answer=None)
    method = TMASSettings(n_candidates=2, n_verifications=3, max_iterations=2, epsilon=0.5)
    long = Length(reply=10, text=1000)
    expected = Expected(solution=long, verification=long, summary=long, bank=500)
    limits = dict.fromkeys(method.roles, 600)
    found = expected_estimate([problem], method, expected, len, limits)
    prompts = {role: usage.prompt_tokens for role, usage in found.by_role.items()}
    assert prompts == {
        "solution": 2 * 300 + 2 * 600,  # the first iteration has neither attempts nor a bank
        "verification": 2 * 6 * 600,
        "summary": 2 * 2 * 600,
        "experience": 2 * 600,
        "guideline": 2 * 600,
    }


def test_no_reply_is_expected_to_be_longer_than_the_limit_of_its_role():
    model = team.model("http://h/v1", roles={"verification": {"sampling": {"max_tokens": 90}}})
    expected = Expected(summary=Length(reply=400, text=350)).within(model)
    assert expected.solution == Length(reply=1000, text=1000)
    assert expected.verification == Length(reply=90, text=90)
    assert expected.summary == Length(reply=400, text=350)


def test_a_dry_run_says_what_it_takes_and_calls_nobody(tmp_path: Path):
    lines: list[str] = []
    with run_in_thread(ScriptedServer(team.reply)) as server:
        problems = problem_file(tmp_path, 4)
        settings = distill_settings(
            server, tmp_path / "t", problems, dry_run=True, limits={"tokens_per_run": 10, "money_per_run": 5},
            model=team.model(server.base_url, price={"input": 1, "cached_input": 0, "output": 1}),
        )  # fmt: skip
        distill(settings, runner, lines.append)
        assert server.requests == []
    assert lines[0].startswith("4 problems to distill, about 132 calls: ")
    assert "cost: 0.1680 to 0.5815 USD, with all prompt tokens cached or none" in lines
    assert "hard budget: 10 tokens and 5.00 USD" in lines
    assert "the budget is below the estimate" in lines[-1]
    assert not (tmp_path / "t").exists()


def test_once_problems_are_finished_the_estimate_is_measured(tmp_path: Path):
    problems = problem_file(tmp_path, 6)
    with run_in_thread(ScriptedServer(team.reply)) as server:
        distill(distill_settings(server, tmp_path / "t", problems, max_problems=2), runner, silent)
        calls = len(server.requests)
        settings = distill_settings(server, tmp_path / "t", problems)
        found = estimate(list(read_problems(problems)), settings)
        assert (found.problems, found.measured, found.usage.calls) == (4, True, 2 * calls)
        assert estimate_lines(found, settings, "distill")[1:3] == [
            "measured on the problems already finished",
            "cost: unknown, without a price of scripted (model.price.input, model.price.output)",
        ]
        distill(settings, runner, silent)
        assert len(server.requests) == 3 * calls
        assert estimate(list(read_problems(problems)), settings).tokens == 0


def test_problems_that_a_budget_cut_off_are_estimated_again_once_it_is_raised(tmp_path: Path):
    problems = problem_file(tmp_path, 3)
    with run_in_thread(ScriptedServer(team.reply)) as server:
        cut = distill_settings(server, tmp_path / "t", problems, limits={"tokens_per_problem": 500})
        distill(cut, runner, silent)
        raised = distill_settings(server, tmp_path / "t", problems, limits={"tokens_per_problem": 10**6})
        found = {
            name: estimate(list(read_problems(problems)), s).problems for name, s in (("cut", cut), ("raised", raised))
        }
    assert found == {"cut": 0, "raised": 3}


CANARY = "73190457"
GOLD = rf"\frac{{{CANARY}}}{{{CANARY}}}"
"""One, as nobody else writes it: replies are right, so that there are successes of every role, without holding it."""


def thinks(body: Body) -> Script:
    """The team's replies with thinking before them; some of a bank's agents cannot be read at first."""
    lost = team.role_of(body) in ("experience", "guideline") and team.number(body) % 3 == 0
    texts = ["Nothing to read."] if lost else team.reply(body)
    return Script(tuple(f"<think>Let me see {i}.</think>{text}" for i, text in enumerate(texts)))


def test_the_gold_answer_never_enters_a_context(tmp_path: Path):
    problems = problem_file(tmp_path, 12, answer=GOLD, metadata={"solution": f"It is {CANARY}."})
    with run_in_thread(ScriptedServer(thinks)) as server:
        rates = filter_settings(server, tmp_path / "filtered", problems, min_pass_rate=0, max_pass_rate=1)
        filter_by_difficulty(rates, runner, silent)
        distill(distill_settings(server, tmp_path / "t", rates.output_dir / "problems.jsonl"), runner, silent)
        assert {team.role_of(body) for body in server.requests} == ROLES
        assert all(CANARY not in str(body) for body in server.requests)
    calls = team.recorded_calls(tmp_path / "t").values()
    asked = {(call["key"]["role"], call["key"]["iteration"], call["key"]["attempt"] > 0) for call in calls}
    assert asked >= {(role, t, False) for role in ROLES for t in range(3)}
    assert asked >= {("experience", 1, True), ("guideline", 1, True)}
    assert all(CANARY.encode() not in file.read_bytes() for file in (tmp_path / "t" / "trace").iterdir())

    build(
        BuildSettings(
            problems=rates.output_dir / "problems.jsonl", run=tmp_path / "t", output_dir=tmp_path / "rows",
            tokenizer="estimate", max_prompt_tokens=10_000, validation_share=0, per_problem=9,
        ),
        silent,
    )  # fmt: skip
    rows = list(read_rows(tmp_path / "rows" / "train.parquet"))
    assert {row.source for row in rows} == {"normal", "experience", "guideline"}
    for row in rows:
        assert row.reward_model.ground_truth == GOLD
        assert CANARY not in str(row.model_dump(exclude={"reward_model"}))
    chats = parquet.read_table(tmp_path / "rows" / "sft_train.parquet").to_pylist()
    assert {chat["role"] for chat in chats} == ROLES
    assert all(CANARY not in str(chat) for chat in chats)


def test_the_budget_is_hard_and_can_be_raised(tmp_path: Path):
    def slow(body: Body) -> Script:
        return Script(tuple(team.reply(body)), chunk_delay=0.001)

    problems, said = problem_file(tmp_path, 3), list[str]()
    with run_in_thread(ScriptedServer(slow)) as server:
        limited = distill_settings(server, tmp_path / "t", problems, limits={"tokens_per_run": 4000})
        distill(limited, runner, said.append)
        lines = list(read_lines(tmp_path / "t" / "predictions.jsonl"))
        assert {line["stop"] for line in lines} == {"budget"}
        spent = sum(e["usage"]["prompt_tokens"] + e["usage"]["completion_tokens"] for p in lines for e in p["usage"])
        assert spent <= 4000
        assert said[-1].startswith("3 problems distilled (3 budget): ")
        assert said[-1].endswith(f" calls, {spent:,} tokens")
        recorded = len(team.recorded_calls(tmp_path / "t"))
        distill(distill_settings(server, tmp_path / "t", problems), runner, silent)
    assert len(team.recorded_calls(tmp_path / "t")) > recorded
    assert {line["stop"] for line in read_lines(tmp_path / "t" / "predictions.jsonl")} == {"max_iterations"}


def test_a_teacher_that_stops_midway_leaves_what_it_did(tmp_path: Path):
    problems = problem_file(tmp_path, 4)
    faults = [None] * 80 + [Fault("reset", after=None)] * 500
    with run_in_thread(ScriptedServer(team.reply, faults=faults)) as server, pytest.raises(EndpointDown):
        distill(distill_settings(server, tmp_path / "t", problems, active_problems=1), runner, silent)
    finished = set(RecordedRun(tmp_path / "t").problem_ids)
    assert 0 < len(finished) < 4
    window = ContextWindow(token_counter("estimate"), 10_000, 0)
    rows = list(rows_from_run(RecordedRun(tmp_path / "t"), read_problems(problems), window, per_problem=2))
    assert {row.extra_info.problem_id for row in rows} == finished
    recorded = team.recorded_calls(tmp_path / "t").keys()
    with run_in_thread(ScriptedServer(team.reply)) as server:
        distill(distill_settings(server, tmp_path / "t", problems), runner, silent)
        assert len(server.requests) == len(team.recorded_calls(tmp_path / "t")) - len(recorded)
    assert len(RecordedRun(tmp_path / "t").problem_ids) == 4


def test_contexts_come_from_the_team_alone(tmp_path: Path):
    given = {"problems": tmp_path, "output_dir": tmp_path, "model": {"name": "m", "base_url": "http://h/v1"}}
    with pytest.raises(ValueError, match="must be tmas, not majority_vote"):
        DistillSettings.model_validate(given | {"method": MajorityVoteSettings()})
