"""PaCoRe: what a round sees of the one before, in which order, and how wide it is."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from tmas import Problem, Result, asolve
from tmas.methods.pacore import PaCoReSettings
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer

pytestmark = pytest.mark.usefixtures("answers_as_text")

PROBLEM = Problem(problem_id="p", question="What is 1 + 1?")


def reply(body: Body) -> list[str]:
    """Responses of many lengths."""
    n = team.number(body)
    return [f"Response {n}{' indeed' * (n % 7)}: \\boxed{{{n % 3}}}."]


async def solve(
    answer: Any = reply, seed: int = 0, context_length: int = 100_000, **method: Any
) -> tuple[Result, list[Body]]:
    async with ScriptedServer(answer) as server:
        model = team.model(server.base_url, context_length=context_length)
        return await asolve(PROBLEM, model, team.small("pacore", **method), seed=seed), server.requests


def references(prompt: str) -> list[str]:
    """The references that a prompt shows; their numbers have to be right."""
    found = re.findall(r"^Reference (\d+):\n(.+)$", prompt, re.MULTILINE)
    assert [int(number) for number, _ in found] == list(range(1, len(found) + 1))
    return [text for _, text in found]


@pytest.mark.parametrize(
    ("widths", "rounds", "expected"),
    [([4, 1], 2, [4, 1]), ([5, 3, 1], 3, [5, 3, 1]), ([2], 4, [2, 2, 2, 2]), ([3, 2], 3, [3, 2, 2])],
)
async def test_rounds_have_their_widths_and_the_last_one_stays(widths: list[int], rounds: int, expected: list[int]):
    result, _ = await solve(widths=widths, max_iterations=rounds)
    assert [len(iteration.rollouts) for iteration in result.trajectory.iterations] == expected
    if expected[-1] == 1:
        assert result.answer == result.trajectory.iterations[-1].rollouts[0].answer


async def test_a_round_reads_the_responses_of_the_last_one_and_of_no_other():
    result, requests = await solve(widths=[6, 4, 1])
    first, second, last = [
        list(dict.fromkeys(map(team.prompt, part))) for part in (requests[:6], requests[6:10], requests[10:])
    ]
    assert (len(first), len(second), len(last)) == (1, 1, 1)  # all of a round see the same
    responses = [[r.solution.text for r in i.rollouts] for i in result.trajectory.iterations]  # type: ignore[union-attr]
    assert references(first[0]) == []
    assert sorted(references(second[0])) == sorted(responses[0])
    assert sorted(references(last[0])) == sorted(responses[1])
    assert "your own comprehensive solution" in second[0]
    assert [r.mode for i in result.trajectory.iterations for r in i.rollouts] == ["initial"] * 6 + ["exploit"] * 5


async def test_references_are_shuffled_by_the_seed_whatever_they_say_and_whenever_they_come():
    async def order(seed: int, slow: int = 0) -> list[str]:
        def delayed(body: Body) -> Script:
            return Script(tuple(reply(body)), first_delay=0.01 * ((team.number(body) + slow) % 3))

        _, requests = await solve(delayed, seed=seed, widths=[8, 1], max_iterations=2)
        return references(team.prompt(requests[-1]))

    shown = await order(0)
    assert await order(0, slow=1) == shown
    assert shown != sorted(shown, key=len)
    other = await order(1)
    by_length = [[sorted(texts, key=len).index(text) for text in texts] for texts in (shown, other)]
    assert by_length[0] != by_length[1]


async def test_what_was_cut_short_is_no_reference():
    cut = 0

    def answer(body: Body) -> list[str] | Script:
        nonlocal cut
        cut += 1
        return Script(("Unfinished thought",), finish_reason="length") if cut == 1 else reply(body)

    _, requests = await solve(answer, widths=[3, 1], max_iterations=2)
    assert len(references(team.prompt(requests[-1]))) == 2


async def test_without_a_reference_a_round_works_on_the_bare_problem():
    def answer(body: Body) -> list[str] | Script:
        return Script(("So",), finish_reason="length") if len(asked) < 2 else reply(body)

    asked: list[Body] = []

    def counted(body: Body) -> list[str] | Script:
        said = answer(body)
        asked.append(body)
        return said

    result, requests = await solve(counted, widths=[2], max_iterations=3)
    prompts = [team.prompt(body) for body in requests]
    assert len(set(prompts[:4])) == 1
    assert len(references(prompts[4])) == 2
    assert [i.rollouts[0].mode for i in result.trajectory.iterations] == ["initial", "initial", "exploit"]


async def test_too_long_the_longest_references_go_first_and_the_last_one_keeps_its_ends():
    lengths = iter([400, 900, 600, 5000])

    def answer(body: Body) -> list[str]:
        return (
            [f"Begin{'x' * next(lengths)}end \\boxed{{1}}."]
            if "Reference 1" not in team.prompt(body)
            else ["\\boxed{1}"]
        )

    async def shown(room: int) -> list[str]:
        nonlocal lengths
        lengths = iter([400, 900, 600, 5000])
        result, requests = await solve(answer, context_length=1064 + room, widths=[4, 1], max_iterations=2)
        assert result.packed_prompts == 1
        return re.findall(r"Begin.*?end", team.prompt(requests[-1]), re.DOTALL)

    assert sorted(map(len, await shown(1000))) == [408, 608, 908]
    assert sorted(map(len, await shown(600))) == [408, 608]
    [last] = await shown(250)
    assert "characters left out here" in last


def test_a_round_has_at_least_one_response():
    with pytest.raises(ValidationError, match=r"widths\.1\n  Input should be greater than or equal to 1"):
        PaCoReSettings.model_validate({"widths": [4, 0]})
    with pytest.raises(ValidationError, match=r"widths\n  Tuple should have at least 1 item"):
        PaCoReSettings.model_validate({"widths": []})
