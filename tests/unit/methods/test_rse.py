"""RSE: what is distilled from what, how it guides the next iteration, and what becomes of bad JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tmas import Problem, Result, asolve
from tmas.records import Failure, FailureReason
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer

pytestmark = pytest.mark.usefixtures("answers_as_text")

PROBLEM = Problem(problem_id="p", question="What is 1 + 1?")


async def solve(reply: Any = team.reply, context_length: int = 100_000, **method: Any) -> tuple[Result, list[Body]]:
    async with ScriptedServer(reply) as server:
        model = team.model(server.base_url, context_length=context_length)
        result = await asolve(PROBLEM, model, team.small("rse", **method))
    return result, server.requests


def by_role(requests: list[Body], role: str) -> list[Body]:
    return [body for body in requests if team.role_of(body) == role]


def system(body: Body) -> str | None:
    """The system message, which comes first; None where there is none."""
    roles = [message["role"] for message in body["messages"]]
    assert roles in (["user"], ["system", "user"])
    return body["messages"][0]["content"] if len(roles) == 2 else None


async def test_the_bank_is_in_the_system_message_pitfalls_first():
    result, requests = await solve()
    samples = by_role(requests, "solution")
    first, later = samples[:3], samples[3:]
    assert {system(body) for body in first} == {None}
    assert len({team.prompt(body) for body in samples}) == 1  # the bare problem, always
    bank = result.trajectory.iterations[0].experiences
    shown = system(later[0])
    assert shown is not None
    assert all(item.statement in shown for item in bank)
    places = {kind: [shown.index(i.statement) for i in bank if i.kind == kind] for kind in ("pitfall", "conclusion")}
    assert max(places["pitfall"]) < min(places["conclusion"])
    assert {r.mode for r in result.trajectory.iterations[0].rollouts} == {"initial"}
    assert {r.mode for r in result.trajectory.iterations[1].rollouts} == {"exploit"}


async def test_each_rollout_is_distilled_alone_with_its_reasoning():
    def reply(body: Body) -> Script:
        said = team.reply(body)
        return Script(tuple(said), reasoning=f"I thought of {team.number(body)}.")

    _, requests = await solve(reply, max_iterations=2)
    samples, distilled = by_role(requests, "solution")[:3], by_role(requests, "distill")
    seen = sorted(
        [n for n, sample in enumerate(samples) if f"I thought of {team.number(sample)}." in team.prompt(body)]
        for body in distilled
    )
    assert seen == [[0], [1], [2]]
    for sample in samples:
        [own] = [b for b in distilled if f"I thought of {team.number(sample)}." in team.prompt(b)]
        assert team.reply(sample)[0] in team.prompt(own)
    assert not any("I thought" in (system(body) or "") for body in requests)


async def test_a_schema_goes_with_it_unless_the_model_thinks_between_tags():
    async def schemas(thinks: bool) -> set[bool]:
        def reply(body: Body) -> list[str]:
            return [f"<think>Hm.</think>{text}" if thinks else text for text in team.reply(body)]

        return {"response_format" in body for body in by_role((await solve(reply))[1], "distill")}

    assert (await schemas(False), await schemas(True)) == ({True}, {False})


async def test_the_bank_after_each_iteration_is_recorded():
    result, _ = await solve()
    first, second, last = result.trajectory.iterations
    assert first.experience_change is not None
    assert first.experience_change.added == tuple(item.item_id for item in first.experiences)
    assert second.experience_change is not None
    assert {item.created for item in second.experiences} <= {0, 1}
    assert (last.experiences, last.experience_change) == (second.experiences, None)  # it is not distilled


async def test_bad_json_is_asked_for_again_five_times_and_then_dropped():
    bad: list[Body] = []

    def reply(body: Body) -> list[str]:
        if team.role_of(body) != "distill" or team.prompt(body) != team.prompt((bad or [body])[0]):
            return team.reply(body)
        bad.append(body)
        return ["There is nothing to say."]

    result, _ = await solve(reply, max_iterations=2)
    assert len(bad) == 6
    first = result.trajectory.iterations[0]
    assert [failure.reason for failure in first.failures] == [FailureReason.UNPARSABLE]
    assert {index for item in first.experiences for _, index in item.rollouts} < {0, 1, 2}
    assert len({index for item in first.experiences for _, index in item.rollouts}) == 2


async def test_bad_entries_are_left_out_and_counted():
    def reply(body: Body) -> list[str]:
        if team.role_of(body) == "distill":
            return [json.dumps({"verified_propositions": ["x = 2", 7], "critical_pitfalls": [""]})]
        return team.reply(body)

    result, _ = await solve(reply, max_iterations=2)
    first = result.trajectory.iterations[0]
    assert [item.statement for item in first.experiences] == ["x = 2"]
    assert first.experience_change is not None
    assert first.experience_change.unreadable == 2 * 3


async def test_what_was_cut_short_is_not_distilled():
    def reply(body: Body) -> list[str] | Script:
        said = team.reply(body)
        cut = team.role_of(body) == "solution" and body["seed"] % 2
        return Script(tuple(said), finish_reason="length") if cut else said

    result, requests = await solve(reply, n_candidates=8, max_iterations=2)
    failed = [isinstance(r.solution, Failure) for r in result.trajectory.iterations[0].rollouts]
    assert 0 < sum(failed) < 8
    assert len(by_role(requests, "distill")) == 8 - sum(failed)


async def test_without_a_bank_the_next_iteration_sees_the_bare_problem():
    def reply(body: Body) -> list[str]:
        return ["{}"] if team.role_of(body) == "distill" else team.reply(body)

    result, requests = await solve(reply, agents={"parse_attempts": 1})
    assert {system(body) for body in by_role(requests, "solution")} == {None}
    assert {r.mode for i in result.trajectory.iterations for r in i.rollouts} == {"initial"}


async def test_long_reasoning_loses_its_middle_before_the_solution_does():
    def reply(body: Body) -> Script:
        return Script(tuple(team.reply(body)), reasoning=f"Begin {'and so on ' * 500}end.")

    _, requests = await solve(reply, context_length=1064 + 1200, n_candidates=1, max_iterations=2)
    [prompt] = [team.prompt(body) for body in by_role(requests, "distill")]
    assert "Begin and so on" in prompt
    assert "characters left out here" in prompt
    assert "and so on end." in prompt
    assert "I tried approach" in prompt


async def test_a_bank_too_long_for_the_context_is_shown_without_its_least_supported_items():
    def reply(body: Body) -> list[str]:
        if team.role_of(body) == "distill":
            texts = [f"x = {n}{' indeed' * 40}" for n in range(team.number(body) % 3, 12)]
            return [json.dumps({"verified_propositions": texts, "critical_pitfalls": []})]
        return team.reply(body)

    result, requests = await solve(reply, context_length=1064 + 900, max_iterations=2)
    shown = system(by_role(requests, "solution")[-1]) or ""
    bank = result.trajectory.iterations[0].experiences
    kept = [item for item in bank if item.statement in shown]
    left_out = [item for item in bank if item.statement not in shown]
    assert kept
    assert left_out
    assert max(item.support for item in left_out) <= min(item.support for item in kept)
    assert result.packed_prompts >= 3


async def test_an_item_that_was_left_out_is_not_shown_if_a_shown_one_begins_like_it():
    distilled = iter([["x = 1"], [], []])

    def reply(body: Body) -> list[str]:
        if team.role_of(body) == "distill":
            texts = ["x = 12", *(f"y = {n}{' indeed' * 40}" for n in range(12)), *next(distilled)]
            return [json.dumps({"verified_propositions": texts, "critical_pitfalls": []})]
        return team.reply(body)

    result, requests = await solve(reply, context_length=1064 + 900, max_iterations=2)
    lines = (system(by_role(requests, "solution")[-1]) or "").split("\n")
    first, second = result.trajectory.iterations
    assert "- x = 12" in lines
    assert "- x = 1" not in lines
    shown = tuple(item.item_id for item in first.experiences if f"- {item.statement}" in lines)
    assert {rollout.shown for rollout in second.rollouts} == {shown}
