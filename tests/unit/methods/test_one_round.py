"""Majority vote and best of N: one round of the same samples, and two ways to choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from tmas import Problem, Result, asolve
from tmas.methods.majority_vote import MajorityVoteSettings
from tmas.records import Failure
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer

PROBLEM = Problem(problem_id="p", question="What is one half?", answer="1/2")


class Samples:
    """Gives these answers to the samples in turn, and to each the grades that its answer has."""

    def __init__(self, answers: Sequence[str], grades: dict[str, Sequence[str]] | None = None) -> None:
        self.answers, self.grades = iter(answers), grades or {}

    def __call__(self, body: Body) -> list[str] | Script:
        if team.role_of(body) == "verification":
            [grades] = [grades for answer, grades in self.grades.items() if f"boxed{{{answer}}}." in team.prompt(body)]
            return [f"The steps were checked.\nGrade: {grade}" for grade in grades]
        answer = next(self.answers)
        return Script((answer,), finish_reason="length") if answer == "..." else [f"It is \\boxed{{{answer}}}."]


async def solve(name: str, samples: Samples, **method: Any) -> Result:
    async with ScriptedServer(samples) as server:
        model = team.model(server.base_url)
        return await asolve(PROBLEM, model, team.small(name, **method), concurrency=1)  # samples come in order


async def test_equivalent_answers_are_one_class():
    result = await solve("majority_vote", Samples(["7", "0.5", "8", "1/2", "..."]))
    assert result.trajectory.selected is not None
    assert (result.answer, result.trajectory.selected.votes) == ("0.5", 2)
    assert isinstance(result.trajectory.iterations[0].rollouts[4].solution, Failure)


@pytest.mark.usefixtures("answers_as_text")
async def test_equal_classes_go_to_the_one_sampled_first():
    assert (await solve("majority_vote", Samples(["8", "7", "7", "8", "9"]))).answer == "8"


@pytest.mark.usefixtures("answers_as_text")
async def test_all_samples_are_of_the_bare_problem_under_seeds_of_their_own():
    async with ScriptedServer(team.reply) as server:
        await asolve(PROBLEM, team.model(server.base_url), team.small("majority_vote"))
    [prompt] = {team.prompt(body) for body in server.requests}
    assert prompt.startswith("# Problem\n\nWhat is one half?\n\n\n# Your task\n\nSolve the problem.\n")
    assert len({body["seed"] for body in server.requests}) == 5


def test_proofs_cannot_be_voted_on():
    with pytest.raises(ValidationError, match="a majority vote needs final answers"):
        MajorityVoteSettings.model_validate({"agents": {"task": "proof"}})


@pytest.mark.usefixtures("answers_as_text")
@pytest.mark.parametrize(
    ("grades", "answer"),
    [
        ({"7": ("0.5", "0.5"), "8": ("1", "0.5"), "9": ("1", "0")}, "8"),
        ({"7": ("0.5", "0.5"), "8": ("0", "1"), "9": ("0", "0")}, "7"),  # a tie: two samples say 7
        ({"7": ("?", "?"), "8": ("0", "?"), "9": ("?", "?")}, "8"),  # no grade stands behind a 0
    ],
)
async def test_the_best_mean_grade_is_given(grades: dict[str, Sequence[str]], answer: str):
    samples = Samples(["9", "8", "7", "7"], grades)
    result = await solve("best_of_n", samples, agents={"parse_attempts": 1})
    assert result.answer == answer


@pytest.mark.usefixtures("answers_as_text")
async def test_what_was_cut_short_is_not_verified():
    result = await solve("best_of_n", Samples(["...", "8", "...", "..."], {"8": ("0", "0")}))
    assert [len(r.verifications) for r in result.trajectory.iterations[0].rollouts] == [0, 2, 0, 0]
    assert result.answer == "8"
