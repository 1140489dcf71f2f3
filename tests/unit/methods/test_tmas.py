"""The method against a scripted team: which calls it makes, what each sees, and what waits for what."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tmas import Problem, Result, asolve, asolve_all
from tmas.records import Failure, FailureReason, Verification
from tmas.records.reading import read_records
from tmas.records.run_files import FailureLine, Metrics
from tmas.run.replay import RecordedRun
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer
from tmas.testing.team import prompt

PROBLEM = Problem(problem_id="p", question="What is 1 + 1?", answer="2")


async def solve(server: ScriptedServer, problem: Problem = PROBLEM, **method: Any) -> Result:
    return await asolve(problem, team.model(server.base_url), team.method(**method))


async def test_the_calls_are_those_of_the_paper():
    async with ScriptedServer(team.reply) as server:
        result = await solve(server)
    roles = Counter(team.role_of(body) for body in server.requests)
    n, m, t = 3, 2, 3
    assert roles == {"solution": n * t, "verification": n * t, "summary": n * t, "experience": t, "guideline": t}
    assert {body.get("n", 1) for body in server.requests if team.role_of(body) == "verification"} == {m}
    assert len(result.trajectory.iterations) == t
    assert result.trajectory.stop == "max_iterations"
    assert result.failures == ()


async def test_exploit_sees_rollouts_and_experience_and_explore_only_guidelines():
    async with ScriptedServer(team.reply) as server:
        result = await solve(server, n_candidates=6)
    modes = {(r.iteration, r.index): r.mode for i in result.trajectory.iterations for r in i.rollouts}
    assert {mode for (t, _), mode in modes.items() if t == 0} == {"initial"}
    assert {mode for (t, _), mode in modes.items() if t > 0} == {"exploit", "explore"}
    second = result.trajectory.iterations[1]
    prompts = Counter(prompt(b) for b in server.requests if team.role_of(b) == "solution")
    exploit = [p for p in prompts if all(e.statement in p for e in result.trajectory.iterations[0].experiences)]
    explore = [p for p in prompts if "Strategies already tried" in p]
    for p in exploit:
        assert "Earlier attempts" in p
        assert "Strategies already tried" not in p
    for p in explore:
        assert "Earlier attempts" not in p
        assert "Fact" not in p
    drawn = Counter(r.mode for r in second.rollouts)
    assert drawn["exploit"] in [prompts[p] for p in exploit]
    assert drawn["explore"] in [prompts[p] for p in explore]


async def test_critiques_are_kept_no_longer_than_they_are_used():
    async with ScriptedServer(team.reply) as server:
        result = await solve(server)
    checks = [v for i in result.trajectory.iterations for r in i.rollouts for v in r.verifications]
    assert {v.critique for v in checks if isinstance(v, Verification)} == {None}
    assert all("was checked" in prompt(body) for body in server.requests if team.role_of(body) == "summary")


async def test_the_gold_answer_is_in_no_prompt():
    canary = "canary-7391"
    async with ScriptedServer(team.reply) as server:
        await solve(server, PROBLEM.model_copy(update={"answer": canary, "metadata": {"note": canary}}))
    assert server.requests
    assert not any(canary in prompt(body) for body in server.requests)


async def test_modes_are_a_function_of_seed_problem_iteration_and_candidate():
    async def modes(seed: int, problem: Problem = PROBLEM, n: int = 8) -> list[str]:
        async with ScriptedServer(team.reply) as server:
            method = team.method(n_candidates=n, max_iterations=2)
            result = await asolve(problem, team.model(server.base_url), method, seed=seed)
        return [r.mode for r in result.trajectory.iterations[1].rollouts]

    first = await modes(0)
    assert await modes(0) == first
    assert (await modes(0, n=4)) == first[:4]
    assert await modes(1) != first
    assert await modes(0, PROBLEM.model_copy(update={"problem_id": "q"})) != first


@pytest.mark.parametrize(("epsilon", "mode"), [(0.0, "exploit"), (1.0, "explore")])
async def test_epsilon_at_its_ends(epsilon: float, mode: str):
    async with ScriptedServer(team.reply) as server:
        result = await solve(server, epsilon=epsilon)
    assert {r.mode for i in result.trajectory.iterations[1:] for r in i.rollouts} == {mode}


@pytest.mark.parametrize(
    ("off", "role", "bank"),
    [("use_experience", "experience", "experiences"), ("use_guidelines", "guideline", "guidelines")],
)
async def test_an_ablation_leaves_one_bank_empty_without_its_agent(off: str, role: str, bank: str):
    async with ScriptedServer(team.reply) as server:
        result = await solve(server, **{off: False})
    roles = Counter(team.role_of(body) for body in server.requests)
    n, t = 3, 3
    calls = {"solution": n * t, "verification": n * t, "summary": n * t, "experience": t, "guideline": t}
    assert roles == {name: count for name, count in calls.items() if name != role}
    assert all(getattr(iteration, bank) == () for iteration in result.trajectory.iterations)
    assert result.failures == ()
    heading = {"experience": "Experience from earlier rounds", "guideline": "Strategies already tried"}[role]
    assert not any(heading in prompt(body) for body in server.requests)


async def test_nothing_waits_for_a_slow_sibling():
    """One solution takes long: the other candidates are verified and summarised meanwhile."""
    slow = asyncio.Event()

    def reply(body: Body) -> list[str] | Script:
        if team.role_of(body) == "solution" and not slow.is_set():
            slow.set()
            return Script(tuple(team.reply(body)), first_delay=0.5)
        return team.reply(body)

    async with ScriptedServer(reply) as server:
        await solve(server, max_iterations=1)
    asked = [team.role_of(body) for body in server.requests]
    last_verification = len(asked) - 1 - asked[::-1].index("verification")
    assert asked[:last_verification].count("summary") == 2


async def test_explorers_start_while_the_experience_agent_still_writes():
    def reply(body: Body) -> list[str] | Script:
        delay = 0.5 if team.role_of(body) == "experience" else 0.0
        return Script(tuple(team.reply(body)), first_delay=delay)

    async with ScriptedServer(reply) as server:
        await solve(server, epsilon=1.0, max_iterations=2)
    asked = [team.role_of(body) for body in server.requests]
    assert [i for i, role in enumerate(asked) if role == "solution"][-1] < [
        i for i, role in enumerate(asked) if role == "experience"
    ][-1]


async def test_the_two_memory_agents_run_side_by_side():
    open_together: list[set[str]] = []

    def reply(body: Body) -> Script:
        open_together.append({team.role_of(e.body) for e in server.exchanges if e.state == "open"})
        return Script(tuple(team.reply(body)), first_delay=0.05)

    async with ScriptedServer(reply) as server:
        await solve(server, max_iterations=1)
    assert {"experience", "guideline"} in open_together


async def test_a_failed_candidate_is_data_and_the_run_goes_on():
    def reply(body: Body) -> list[str] | Script:
        said = team.reply(body)
        if team.role_of(body) == "solution" and team.number(body) % 2:
            return Script(tuple(said), finish_reason="length")
        return said

    async with ScriptedServer(reply) as server:
        result = await solve(server, n_candidates=8, max_iterations=2)
    rollouts = [r for i in result.trajectory.iterations for r in i.rollouts]
    failed = [r for r in rollouts if isinstance(r.solution, Failure)]
    assert 0 < len(failed) < len(rollouts)
    assert {r.solution.reason for r in failed} == {FailureReason.TRUNCATED}  # type: ignore[union-attr]
    assert all(r.verifications == () and r.summary is None for r in failed)
    assert result.answer is not None


async def test_when_everything_fails_there_is_no_answer_but_a_result():
    async with ScriptedServer(lambda body: Script(("",), finish_reason="length")) as server:
        result = await solve(server)
    assert result.answer is None
    assert result.solution is None
    assert len(result.trajectory.iterations) == 3
    assert {f.reason for f in result.failures} == {FailureReason.TRUNCATED}  # the memory agents' too: it is the cause
    assert {f.key.role for f in result.failures if f.key} == {"solution", "experience", "guideline"}
    assert {team.role_of(body) for body in server.requests} == {"solution"}


async def test_a_memory_agent_that_fails_leaves_its_bank_as_it_was():
    def reply(body: Body) -> list[str]:
        broken = team.role_of(body) == "experience" and "Fact" in prompt(body)
        return ["no JSON at all"] if broken else team.reply(body)

    async with ScriptedServer(reply) as server:
        result = await solve(server)
    banks = [[e.statement for e in i.experiences] for i in result.trajectory.iterations]
    assert banks[0]
    assert banks[0] == banks[1] == banks[2]
    assert [f.reason for i in result.trajectory.iterations[1:] for f in i.failures] == [FailureReason.UNPARSABLE] * 2


async def test_unreadable_verifications_are_asked_for_again_and_only_those():
    def reply(body: Body) -> list[str]:
        said = team.reply(body)
        return ["I cannot say.", *said[1:]] if team.role_of(body) == "verification" and len(said) == 4 else said

    async with ScriptedServer(reply) as server:
        result = await solve(server, n_candidates=1, n_verifications=4, max_iterations=1)
    assert [b.get("n", 1) for b in server.requests if team.role_of(b) == "verification"] == [4, 1]
    assert len(result.trajectory.iterations[0].rollouts[0].grades) == 4


def verifications(server: ScriptedServer) -> list[Body]:
    return [body for body in server.requests if team.role_of(body) == "verification"]


def copies_the_prompt(body: Body) -> list[str]:
    """A verifier that copies the three lines of the prompt, unless it must write JSON."""
    if team.role_of(body) != "verification":
        return team.reply(body)
    copied = prompt(body).rpartition("states your grade:\n")[2]
    return ['{"critique": "Step 1 holds.", "grade": "0.5"}' if "response_format" in body else copied] * body.get("n", 1)


async def test_an_unreadable_verification_is_asked_for_again_as_json():
    """A small model copies what the prompt shows."""
    async with ScriptedServer(copies_the_prompt) as server:
        result = await solve(server, n_candidates=1, n_verifications=4, max_iterations=1)
    first, again = verifications(server)
    assert "response_format" not in first
    assert "one JSON object" not in prompt(first)
    schema = again["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["grade"]["enum"] == ["0", "0.5", "1"]
    assert "one JSON object" in prompt(again)
    [rollout] = result.trajectory.iterations[0].rollouts
    assert rollout.grades == [0.5] * 4
    assert result.failures == ()


@pytest.mark.parametrize(
    ("agents", "thinks"),
    [({"structured_verification": False}, False), ({"structured_outputs": "off"}, False), ({}, True)],
)
async def test_no_schema_is_sent_where_the_settings_or_the_thinking_forbid_it(agents: dict[str, Any], thinks: bool):
    def reply(body: Body) -> list[str]:
        said = copies_the_prompt(body)
        return [f"<think>so</think>{text}" for text in said] if thinks else said

    async with ScriptedServer(reply) as server:
        await solve(server, n_candidates=1, n_verifications=1, max_iterations=1, agents=agents)
    asked = verifications(server)
    assert len(asked) == 3
    assert not any("response_format" in body for body in asked)
    assert len({prompt(body) for body in asked}) == 1


def summarises(text: str, thinks: bool = False) -> Callable[[Body], Script]:
    """A team whose summaries are ``text``, cut at ``max_tokens``."""

    def reply(body: Body) -> Script:
        if team.role_of(body) == "summary":
            return Script((text,), finish_reason="length")
        said = team.reply(body)
        return Script(tuple(f"<think>so</think>{text}" for text in said) if thinks else tuple(said))

    return reply


async def test_a_cut_summary_is_kept_up_to_its_last_whole_sentence_and_recorded(tmp_path: Path):
    async with ScriptedServer(summarises("It pairs the terms. The sum is 0.5. The last step is not pro")) as server:
        settings = team.method(n_candidates=1, max_iterations=2, epsilon=0)
        [result] = await asolve_all([PROBLEM], team.model(server.base_url), settings, output_dir=tmp_path)
    first, second = (iteration.rollouts[0] for iteration in result.trajectory.iterations)
    assert first.summary == second.summary == "It pairs the terms. The sum is 0.5."
    assert sum(team.role_of(body) == "summary" for body in server.requests) == 2
    [exploiting] = [prompt(b) for b in server.requests if team.role_of(b) == "solution" and "<attempt id" in prompt(b)]
    assert "What the verifiers found: It pairs the terms. The sum is 0.5.\n</attempt>" in exploiting
    written = list(read_records(tmp_path / "failures.jsonl", FailureLine))
    assert [(line.reason, line.call.role) for line in written if line.call] == [("shortened", "summary")] * 2
    assert Metrics.model_validate_json((tmp_path / "metrics.json").read_text()).failures == {"shortened": 2}
    replayed = await asyncio.to_thread(RecordedRun(tmp_path).trajectory, PROBLEM)
    assert replayed == result.trajectory


@pytest.mark.parametrize(
    ("text", "changes", "thinks"),
    [
        ("It pairs the terms and then", {}, False),
        ("Again. " * 1100, {}, False),  # a loop
        ("It pairs the terms. Then", {}, True),  # unfinished thinking, whose opening tag is in the chat template
        ("It pairs the terms. Then", {"cut_summaries": None}, False),
    ],
)
async def test_what_is_no_whole_summary_is_asked_for_again(text: str, changes: dict[str, Any], thinks: bool):
    async with ScriptedServer(summarises(text, thinks)) as server:
        result = await solve(server, n_candidates=1, max_iterations=1, agents=changes)
    [rollout] = result.trajectory.iterations[0].rollouts
    assert isinstance(rollout.summary, Failure)
    assert rollout.summary.reason == FailureReason.TRUNCATED
    assert rollout.cut_summary is None
    assert sum(team.role_of(body) == "summary" for body in server.requests) == 3


async def test_what_stays_unreadable_is_a_failure_after_the_bounded_retries():
    def reply(body: Body) -> list[str]:
        return ["I cannot say."] * body.get("n", 1) if team.role_of(body) == "verification" else team.reply(body)

    async with ScriptedServer(reply) as server:
        result = await solve(server, n_candidates=1, max_iterations=1, agents={"parse_attempts": 2})
    rollout = result.trajectory.iterations[0].rollouts[0]
    assert [v.reason for v in rollout.verifications if isinstance(v, Failure)] == [FailureReason.UNPARSABLE] * 2
    assert rollout.mean_grade is None
    assert sum(team.role_of(b) == "verification" for b in server.requests) == 2
    assert isinstance(rollout.summary, Failure)
    assert rollout.summary.reason == FailureReason.UNPARSABLE


async def test_without_verifications_a_summary_fails_for_their_reason():
    def reply(body: Body) -> Script:
        cut_short = team.role_of(body) == "verification"
        return Script(tuple(team.reply(body)), finish_reason="length" if cut_short else "stop")

    async with ScriptedServer(reply) as server:
        result = await solve(server, n_candidates=1, max_iterations=1)
    rollout = result.trajectory.iterations[0].rollouts[0]
    assert isinstance(rollout.summary, Failure)
    assert rollout.summary.reason == FailureReason.TRUNCATED
    assert rollout.summary.message == "no verification to summarise"


async def test_unanimous_verification_stops_early():
    def reply(body: Body) -> list[str]:
        if team.role_of(body) == "verification":
            return ["All steps hold.\nGrade: 1"] * body.get("n", 1)
        return team.reply(body)

    async with ScriptedServer(reply) as server:
        result = await solve(server, early_stop="unanimous")
        never = await solve(server, early_stop="none")
    assert (result.trajectory.stop, len(result.trajectory.iterations)) == ("early_stop", 1)
    assert (never.trajectory.stop, len(never.trajectory.iterations)) == ("max_iterations", 3)


async def test_proofs_have_no_answer_but_are_selected():
    async with ScriptedServer(team.reply) as server:
        result = await solve(server, agents={"task": "proof"})
    assert result.answer is None
    assert result.solution is not None
    assert not any("boxed{}" in prompt(b) for b in server.requests if team.role_of(b) == "solution")


@pytest.mark.parametrize("style", ["tags", "server", "none"])
async def test_thinking_never_travels_on(style: str):
    secret = "a private thought"

    def reply(body: Body) -> Script:
        said = team.reply(body)
        if style == "tags":
            return Script(tuple(f"<think>{secret}</think>\n{text}" for text in said))
        return Script(tuple(said), reasoning=secret if style == "server" else "")

    async with ScriptedServer(reply) as server:
        result = await solve(server)
    assert result.failures == ()
    assert not any(secret in prompt(body) for body in server.requests)
    memory = [b for b in server.requests if team.role_of(b) in ("experience", "guideline")]
    # A schema would keep a model that thinks between tags from thinking.
    assert all(("response_format" in body) == (style != "tags") for body in memory)
