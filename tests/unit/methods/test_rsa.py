"""RSA: which candidates a step aggregates, and how the last population gives the answer."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tmas import Problem, Result, asolve
from tmas.methods.rsa import RSASettings
from tmas.records import Solution
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer

pytestmark = pytest.mark.usefixtures("answers_as_text")

PROBLEM = Problem(problem_id="p", question="What is 1 + 1?")


def reply(body: Body) -> list[str]:
    n = team.number(body)
    return [f"Attempt {n}: \\boxed{{{n % 3}}}."]


async def solve(
    answer: Any = reply, seed: int = 0, context_length: int = 100_000, **method: Any
) -> tuple[Result, list[Body]]:
    async with ScriptedServer(answer) as server:
        model = team.model(server.base_url, context_length=context_length)
        return await asolve(PROBLEM, model, team.small("rsa", **method), seed=seed), server.requests


def aggregated(body: Body) -> list[str]:
    """The candidates that a prompt shows; their numbers have to be right."""
    found = re.findall(r"^Candidate (\d+):\n(.+)$", team.prompt(body), re.MULTILINE)
    assert [int(number) for number, _ in found] == list(range(1, len(found) + 1))
    return [text for _, text in found]


async def test_each_candidate_aggregates_k_distinct_members_of_the_last_population():
    result, requests = await solve(n_candidates=6, n_aggregated=4)
    populations = [[r.solution.text for r in i.rollouts] for i in result.trajectory.iterations]  # type: ignore[union-attr]
    assert [len(aggregated(body)) for body in requests] == [0] * 6 + [4] * 12
    for t in (1, 2):
        for body in requests[6 * t : 6 * (t + 1)]:
            assert len(set(aggregated(body)) & set(populations[t - 1])) == 4
    subsets = {frozenset(aggregated(body)) for body in requests[6:12]}
    assert len(subsets) > 1  # drawn anew for each candidate


async def test_a_candidate_names_the_members_that_it_aggregates():
    result, requests = await solve(n_candidates=4, n_aggregated=2, max_iterations=2)
    first, second = result.trajectory.iterations
    texts = {(0, r.index): r.solution.text for r in first.rollouts if isinstance(r.solution, Solution)}
    shown = [[texts[parent] for parent in rollout.parents] for rollout in second.rollouts]
    assert sorted(shown) == sorted(aggregated(body) for body in requests[4:])
    assert {r.mode for r in first.rollouts} == {"initial"}
    assert {r.mode for r in second.rollouts} == {"exploit"}


async def test_the_draws_depend_on_the_seed_alone():
    async def parents(seed: int) -> list[Any]:
        result, _ = await solve(seed=seed, n_candidates=8, n_aggregated=3, max_iterations=2)
        return [rollout.parents for rollout in result.trajectory.iterations[1].rollouts]

    assert await parents(0) == await parents(0)
    assert await parents(0) != await parents(1)


async def test_k_of_1_refines_a_single_candidate():
    _, requests = await solve(n_aggregated=1)
    assert all("write an improved solution" in team.prompt(body) for body in requests[3:])
    assert [len(aggregated(body)) for body in requests[3:]] == [1] * 6


async def test_a_failed_candidate_is_no_member_of_the_population():
    asked: list[Body] = []

    def cut_short(body: Body) -> list[str] | Script:
        asked.append(body)
        return Script(("So",), finish_reason="length") if len(asked) <= 3 else reply(body)

    result, requests = await solve(cut_short, n_candidates=4, n_aggregated=3, max_iterations=3)
    assert [len(aggregated(body)) for body in requests] == [0] * 4 + [1] * 4 + [3] * 4
    assert [failure.reason for failure in result.failures] == ["truncated"] * 3


async def test_without_a_population_a_step_works_on_the_bare_problem():
    asked: list[Body] = []

    def cut_short(body: Body) -> list[str] | Script:
        asked.append(body)
        return Script(("So",), finish_reason="length") if len(asked) <= 2 else reply(body)

    result, _ = await solve(cut_short, n_candidates=2, n_aggregated=2)
    assert [i.rollouts[0].mode for i in result.trajectory.iterations] == ["initial", "initial", "exploit"]


async def test_too_long_the_longest_candidates_are_left_out_first():
    lengths = iter([400, 900, 5000])

    def long(body: Body) -> list[str]:
        filler = "" if aggregated(body) else "x" * next(lengths)
        return [f"Begin{filler}end \\boxed{{1}}."]

    result, requests = await solve(long, context_length=1064 + 750, n_aggregated=3, max_iterations=2)
    assert result.packed_prompts == 3
    shown = [re.findall(r"Begin(x*)end", team.prompt(body)) for body in requests[3:]]
    assert [sorted(map(len, texts)) for texts in shown] == [[400, 900]] * 3


@pytest.mark.parametrize("rule", ["vote", "random"])
async def test_the_last_population_votes_or_a_random_member_answers(rule: str):
    async def answer(seed: int) -> str | None:
        said = iter(["7", "8", "7"])

        def last(body: Body) -> list[str]:
            return [f"\\boxed{{{next(said)}}}"] if aggregated(body) else reply(body)

        method = {"max_iterations": 2, "selection": {"rule": rule, "scope": "last"}}
        result, _ = await solve(last, seed=seed, **method)
        return result.answer

    answers = {await answer(seed) for seed in range(12)}
    assert answers == ({"7"} if rule == "vote" else {"7", "8"})


def test_k_is_published():
    assert RSASettings().n_aggregated == 4
