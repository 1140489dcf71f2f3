"""Self-Refine: feedback and rewrite from one call, trajectories that stop on their own, and what a bad call costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tmas import Problem, Result, asolve
from tmas.records import Failure, FailureReason, Rollout, Solution
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer

pytestmark = pytest.mark.usefixtures("answers_as_text")

PROBLEM = Problem(problem_id="p", question="What is 1 + 1?")
Feedback = Callable[[str], str | Script]


def script(feedback: Feedback) -> Callable[[Body], list[str] | Script]:
    """Drafts are "Draft 0 ..."; ``feedback`` answers what it is shown."""

    def reply(body: Body) -> list[str] | Script:
        if team.role_of(body) == "solution":
            return ["Draft 0 says \\boxed{0}."]
        said = feedback(team.prompt(body))
        return said if isinstance(said, Script) else [said]

    return reply


def rewritten(prompt: str) -> str:
    """Finds fault with draft n and writes draft n + 1."""
    n = next(n for n in range(9) if f"Draft {n}" in prompt)
    return f"The sum is off by one.\n\n## Rewritten solution:\nDraft {n + 1} says \\boxed{{{n + 1}}}."


async def solve(feedback: Feedback, server_log: list[Body] | None = None, **method: Any) -> Result:
    settings = team.small("self_refine", **({"n_candidates": 1} | method))
    async with ScriptedServer(script(feedback)) as server:
        result = await asolve(PROBLEM, team.model(server.base_url), settings)
    if server_log is not None:
        server_log.extend(server.requests)
    return result


def texts(result: Result) -> list[str | FailureReason]:
    solutions = [iteration.rollouts[0].solution for iteration in result.trajectory.iterations]
    return [s.reason if isinstance(s, Failure) else s.text.split(" says")[0] for s in solutions]


async def test_each_call_sees_the_last_draft_alone_and_gives_the_next():
    log: list[Body] = []
    result = await solve(rewritten, log)
    assert texts(result) == ["Draft 0", "Draft 1", "Draft 2", "Draft 3"]
    assert [r.answer for i in result.trajectory.iterations for r in i.rollouts] == ["0", "1", "2", "3"]
    feedback = [team.prompt(body) for body in log if team.role_of(body) == "feedback"]
    assert [[n for n in range(4) if f"Draft {n}" in prompt] for prompt in feedback] == [[0], [1], [2]]
    assert not any("off by one" in prompt for prompt in feedback)
    assert all(prompt.startswith("# Problem\n\nWhat is 1 + 1?") for prompt in feedback)
    assert (result.trajectory.stop, result.answer) == ("max_iterations", "3")


async def test_it_stops_where_the_feedback_finds_nothing():
    def feedback(prompt: str) -> str:
        return "Step 1 holds. It is correct." if "Draft 1" in prompt else rewritten(prompt)

    log: list[Body] = []
    result = await solve(feedback, log)
    assert (result.trajectory.stop, texts(result)) == ("early_stop", ["Draft 0", "Draft 1", "Draft 1"])
    assert len(log) == 3
    assert result.answer == "1"


async def test_praise_of_a_step_does_not_stop_it():
    result = await solve(lambda prompt: f"Step 1: it is correct. Step 2 is not. {rewritten(prompt)}")
    assert texts(result) == ["Draft 0", "Draft 1", "Draft 2", "Draft 3"]


@pytest.mark.parametrize(
    "heading",
    [
        "## Rewritten solution (corrected)",
        "# Improved solution",
        "### 4. Corrected solution",
        "**Revised solution:**",
        "Rewritten solution:",
    ],
)
async def test_a_rewrite_follows_any_such_heading(heading: str):
    result = await solve(lambda _: f"Step 1: it is correct.\n{heading}\nSo \\boxed{{7}}. It is correct.")
    last = result.trajectory.iterations[1].rollouts
    assert {r.answer for r in last} == {"7"}


@pytest.mark.parametrize(
    "feedback",
    [
        "Step 1: it is correct. Step 2 has a sign error.",
        "I do not believe that it is correct.",
        "I don't think it is correct.",
        "Who knows if it is correct.",
    ],
)
async def test_words_that_only_sound_like_praise_are_a_failure(feedback: str):
    result = await solve(lambda _: feedback)
    assert {f.reason for f in result.failures} == {FailureReason.UNPARSABLE}


@pytest.mark.parametrize(
    "feedback",
    [
        "It is correct.",
        "Step 2 is not obvious, but holds.\n**It is correct.**",
        "So it is correct",
        "Every step holds. It is correct.\n\n$$\\boxed{0}$$",
        "All holds.\n`It is correct.`",
        "It is correct.\n\\[\\boxed{\\frac{1}{2}}\\]",
        "It is correct.\n\n**Final answer:** $\\boxed{7}$",
    ],
)
async def test_praise_at_the_end_stops_it(feedback: str):
    result = await solve(lambda _: feedback)
    assert result.failures == ()
    assert result.trajectory.stop == "early_stop"


async def test_a_trajectory_that_stopped_stands_while_others_go_on():
    stopped: list[int] = []

    def reply(body: Body) -> list[str]:
        if team.role_of(body) == "solution":
            return [f"Draft 0 of seed {body['seed']} says \\boxed{{0}}."]
        seed = team.prompt(body).split("of seed ")[1].split(" ")[0]
        if not stopped or stopped[0] == int(seed):
            stopped[:] = [int(seed)]
            return ["It is correct."]
        return [rewritten(team.prompt(body)).replace(" says", f" of seed {seed} says")]

    async with ScriptedServer(reply) as server:
        settings = team.small("self_refine", n_candidates=3, max_iterations=3)
        result = await asolve(PROBLEM, team.model(server.base_url), settings)
    last = result.trajectory.iterations[-1].rollouts
    kept = [r for r in last if isinstance(r.solution, Solution) and r.solution.iteration == 0]
    assert (result.trajectory.stop, len(kept), [r.iteration for r in last]) == ("max_iterations", 1, [2, 2, 2])
    assert sum(team.role_of(body) == "feedback" for body in server.requests) == 1 + 2 * 2
    assert sorted(r.answer or "" for r in last) == ["0", "2", "2"]
    assert result.answer == "2"  # the last drafts vote


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("I have no opinion.", FailureReason.UNPARSABLE),
        ("Wrong.\n# Rewritten solution\n  ", FailureReason.UNPARSABLE),
        (Script(("Wrong.\n# Rewritten solution\nSo",), finish_reason="length"), FailureReason.TRUNCATED),
    ],
)
async def test_feedback_that_fails_is_given_again_on_the_same_draft(bad: str | Script, reason: FailureReason):
    told: list[str] = []

    def feedback(prompt: str) -> str | Script:
        told.append(prompt)
        return bad if 2 <= len(told) <= 3 else rewritten(prompt)

    result = await solve(feedback, agents={"parse_attempts": 2})
    assert texts(result) == ["Draft 0", "Draft 1", "Draft 1", "Draft 2"]
    assert told[1] == told[2] == told[3]
    assert [[f.reason for f in iteration.failures] for iteration in result.trajectory.iterations] == [
        [],
        [],
        [reason],
        [],
    ]
    assert (result.trajectory.stop, result.answer) == ("max_iterations", "2")


async def test_feedback_is_asked_for_again_until_it_can_be_read():
    told: list[str] = []

    def feedback(prompt: str) -> str:
        told.append(prompt)
        return "I have no opinion." if len(told) == 1 else rewritten(prompt)

    result = await solve(feedback, max_iterations=2)
    assert (texts(result), result.failures, len(told)) == (["Draft 0", "Draft 1"], (), 2)


async def test_a_draft_that_failed_is_drafted_again():
    drafts = 0

    def reply(body: Body) -> list[str] | Script:
        nonlocal drafts
        if team.role_of(body) == "feedback":
            return ["It is correct."]
        drafts += 1
        return Script(("So",), finish_reason="length") if drafts == 1 else ["Draft 0 says \\boxed{0}."]

    async with ScriptedServer(reply) as server:
        settings = team.small("self_refine", n_candidates=1)
        result = await asolve(PROBLEM, team.model(server.base_url), settings)
    assert texts(result) == [FailureReason.TRUNCATED, "Draft 0", "Draft 0"]
    assert [i.rollouts[0].mode for i in result.trajectory.iterations] == ["initial", "initial", "exploit"]


async def test_a_rewrite_knows_its_parent():
    result = await solve(rewritten)
    rollouts: list[Rollout] = [i.rollouts[0] for i in result.trajectory.iterations]
    assert [r.parents for r in rollouts] == [(), ((0, 0),), ((1, 0),), ((2, 0),)]
