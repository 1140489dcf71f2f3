"""recipes/miniature/gates.py: the teacher meets every gate, and each kind of mistake lowers its own share."""

from __future__ import annotations

import asyncio

import pytest

from recipes.miniature.gates import GATES, Call, Share, measured, true_findings
from recipes.miniature.language import solution
from recipes.miniature.task import Candidate
from tests.support.miniature import TeacherSession, miniature_problems, solve
from tmas.llm.thinking import split_thinking

PLAIN = "plain solving"


async def recorded(error_rate: float = 0) -> list[Call]:
    """The calls of TMAS on a few problems, with the teacher in every role."""
    calls = []
    for problem in miniature_problems(6):
        session = TeacherSession(problem.problem_id, error_rate=error_rate)
        await solve(problem, session, "tmas", n_candidates=4, n_verifications=1, max_iterations=5, epsilon=0.5)
        for call in session.calls:
            texts = [split_thinking(reply, "").text for reply in call.replies]
            calls.append(Call(call.role, call.prompt, texts, call.replies))
    return calls


@pytest.fixture(scope="module")
def calls() -> list[Call]:
    return asyncio.run(recorded())


def test_the_teacher_meets_every_gate(calls: list[Call]):
    shares = measured(calls)
    assert shares.keys() == GATES.keys()
    assert {name: share.value for name, share in shares.items() if name != PLAIN} == dict.fromkeys(
        GATES.keys() - {PLAIN}, 1.0
    )
    assert shares[PLAIN].total == 6 * 4


@pytest.mark.parametrize("role", ["verification", "summary", "experience", "guideline"])
def test_a_reply_with_one_other_word_is_not_exact(calls: list[Call], role: str):
    wrong = {"verification": ("grade is", "grade was"), "guideline": ('"new"', '"old"')}
    old, new = wrong.get(role, ("BAD", "OK"))
    first = next(call for call in calls if call.role == role and old in call.texts[0])
    changed = first._replace(texts=[first.texts[0].replace(old, new, 1)])
    assert measured([first])[f"{role} exact"] == Share(1, 1)
    assert measured([changed])[f"{role} exact"] == Share(0, 1)
    assert measured([first._replace(texts=[""], replies=[])])[f"{role} exact"] == Share(0, 1)


MEMORY = """\
echo 1/2
A:echo:ab OK
B:echo:ab BAD
golf 0/2
A:golf:ab BAD
A:golf:ac BAD
A:golf:bc BAD

Aa=1 Ab=2 Ac=3 At=0
Ba=1 Bb=2 Bc=3 Bt=1"""
FOLLOWS, AVOIDS, REUSES = "exploit follows a rule that is open", "exploit avoids refuted", "exploit reuses verified"


def exploiting(rule: str, orders: tuple[str, ...], prompt: str = MEMORY) -> dict[str, Share]:
    """The shares of a candidate: echo is open, with A:ab known to fit and B:ab known not to; golf is refuted."""
    shares = measured([Call("solution", prompt, [solution(Candidate(rule, orders))], [])])
    return {name: share for name, share in shares.items() if share.total}


def test_exploiting_reuses_what_was_verified_and_avoids_what_was_refuted():
    assert exploiting("echo", ("ab", "ac")) == dict.fromkeys((FOLLOWS, AVOIDS, REUSES), Share(1, 1))
    assert exploiting("echo", ("ac", "ab")) == {FOLLOWS: Share(1, 1), AVOIDS: Share(0, 1), REUSES: Share(0, 1)}


@pytest.mark.parametrize("rule", ["golf", "hotel"])
def test_a_refuted_rule_and_one_that_was_never_shown_are_mistakes_while_another_is_open(rule: str):
    assert exploiting(rule, ("ab", "ac")) == {FOLLOWS: Share(0, 1)}
    assert exploiting(rule, ("ab", "ac"), MEMORY.replace("echo 1/2\n", "")) == {}


def test_a_solution_without_an_answer_follows_nothing():
    shares = measured([Call("solution", MEMORY, [""], [])])
    assert shares[FOLLOWS] == Share(0, 1)


def test_exploring_with_a_listed_strategy_is_not_new(calls: list[Call]):
    explored = [call for call in calls if measured([call])["explore is new"].total]
    assert explored
    first = explored[0]
    listed = "- [G1, support 1] echo: x+y-z\n"
    tried = first._replace(prompt=listed + first.prompt, texts=[solution(Candidate("echo", ("ab",) * 4))])
    assert measured([tried])["explore is new"] == Share(0, 1)


def test_true_findings_count_the_errors_of_the_verifiers(calls: list[Call]):
    assert {share.value for share in true_findings(calls).values()} == {1.0}
    found = true_findings(asyncio.run(recorded(error_rate=0.25)))["verification"]
    assert found.value == pytest.approx(0.75, abs=0.06)
