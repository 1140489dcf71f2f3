"""Verify-Refine: who is in the pool, who is rewritten with which analyses, and when it stops."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmas import Problem, Result, asolve
from tmas.agents.packing import Prompt
from tmas.methods.verify_refine import best_of, paired_analyses, pool_of
from tmas.records import CallKey, Failure, FailureReason, Rollout, Solution, Verification
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer

pytestmark = pytest.mark.usefixtures("answers_as_text")

PROBLEM = Problem(problem_id="p", question="What is 1 + 1?")
FAILED = Failure(reason=FailureReason.UNPARSABLE, message="no grade")


class Draws:
    """A session that only draws: the same number for the same name."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def shown_items(self, key: CallKey, prompt: Prompt) -> tuple[str, ...]:
        return prompt.shown

    def draw(self, name: str) -> float:
        return hashlib.sha256(f"{self.seed}/{name}".encode()).digest()[0] / 256


def rollout(t: int, i: int, grades: Sequence[float | Failure], own: float | None = None, text: str = "") -> Rollout:
    checks = tuple(
        g if isinstance(g, Failure) else Verification(index=m, grade=g, critique=f"analysis {m}")
        for m, g in enumerate(grades)
    )
    solution = Solution(iteration=t, index=i, mode="initial", text=text or f"{t}/{i}", answer=None, own_grade=own)
    return Rollout(iteration=t, index=i, mode="initial", solution=solution, verifications=checks)


def order(pool: Sequence[Rollout], seed: int = 0, t: int = 1) -> list[int]:
    return [r.index for r in best_of(Draws(seed), t, pool)]  # type: ignore[arg-type]


def pairing(
    grades: Sequence[float | Failure], seed: int = 0, t: int = 1, limits: tuple[int, int] = (8, 4)
) -> list[Verification]:
    return paired_analyses(Draws(seed), t, rollout(0, 0, grades), *limits)  # type: ignore[arg-type]


# --- the pool


def test_the_pool_holds_what_was_graded_and_a_text_once():
    first = (rollout(0, 0, [0.5], text="A"), rollout(0, 1, [FAILED]), rollout(0, 2, [0.0, FAILED]))
    second = (
        rollout(1, 0, [1.0], text="A"),
        Rollout(iteration=1, index=1, mode="exploit", solution=FAILED),
        rollout(1, 2, [0.5]),
    )
    assert [(r.iteration, r.index) for r in pool_of([first, second])] == [(0, 0), (0, 2), (1, 2)]


def test_the_best_go_by_mean_grade_and_then_by_their_own_grade():
    pool = [
        rollout(0, 0, [0.5, 0.5], own=0.0),
        rollout(0, 1, [0.5, 0.5]),
        rollout(0, 2, [0.0, 0.0], own=1.0),
        rollout(0, 3, [0.5, 1.0], own=0.0),
        rollout(0, 4, [1.0, 0.0], own=1.0),
    ]
    assert order(pool) == [3, 4, 0, 1, 2]


def test_ties_are_drawn_for_each_round():
    pool = [rollout(0, i, [0.5], own=0.5) for i in range(6)]
    assert order(pool) == order(pool)
    assert len({tuple(order(pool, seed, t)) for seed in range(3) for t in range(3)}) > 5


# --- the analyses


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, FAILED]), min_size=1, max_size=64), st.integers(0, 9))
def test_at_most_8_analyses_those_with_faults_first_and_4_of_a_grade(grades: list[Any], seed: int):
    chosen = pairing(grades, seed)
    shown = [v.grade for v in chosen]
    counts = Counter(g for g in grades if not isinstance(g, Failure))
    most = 8 if len(counts) == 1 else 4
    expected = [g for g in sorted(counts) for _ in range(min(counts[g], most))][:8]
    assert shown == expected
    assert len({v.index for v in chosen}) == len(chosen)
    assert all(grades[v.index] == v.grade for v in chosen)


def test_the_numbers_of_analyses_are_settings():
    grades = [0.0, 0.5, 1.0] * 5
    assert Counter(v.grade for v in pairing(grades)) == {0.0: 4, 0.5: 4}
    assert Counter(v.grade for v in pairing(grades, limits=(12, 4))) == {0.0: 4, 0.5: 4, 1.0: 4}
    assert Counter(v.grade for v in pairing(grades, limits=(3, 2))) == {0.0: 2, 0.5: 1}


async def test_a_rewrite_is_shown_as_many_analyses_as_the_settings_say():
    graded = Prover({}, default=["0", "0.5", "0.5", "1"])
    limits = {"n_analyses": 2, "n_analyses_of_a_grade": 1}
    _, requests = await solve(graded, n_verifications=4, max_iterations=2, **limits)
    shown = [re.findall(r"Analysis (\d) of try", prompt) for prompt in rewrites(requests)]
    assert [(first, second in "12") for first, second in shown] == [("0", True)] * 3


def test_which_analyses_of_a_grade_is_drawn_anew_each_round():
    sixteen = [0.5] * 16
    drawn = {tuple(v.index for v in pairing(sixteen, t=t)) for t in range(5)}
    assert len(drawn) == 5
    assert pairing(sixteen) == pairing(sixteen)


# --- a run


def candidate(n: int, own: str = "0.5") -> str:
    return f"Try {n}: \\boxed{{{n}}}.\n\n# Self-evaluation\nIt looks sound.\nThe final grade is: \\boxed{{{own}}}"


class Prover:
    """Candidates are "Try 0", "Try 1", ... in order of arrival; ``grades`` are those of each."""

    def __init__(self, grades: dict[int, list[str]], default: Sequence[str] = ("0", "0.5")) -> None:
        self.grades, self.default, self.written = grades, default, 0

    def __call__(self, body: Body) -> list[str]:
        if team.role_of(body) == "verification":
            [n] = [n for n in range(99) if f"Try {n}:" in team.prompt(body)]
            grades = self.grades.get(n, self.default)
            return [f"Analysis {m} of try {n}.\nGrade: {grade}" for m, grade in enumerate(grades)]
        self.written += 1
        return [candidate(self.written - 1)]


async def solve(reply: Any, **method: Any) -> tuple[Result, list[Body]]:
    async with ScriptedServer(reply) as server:
        settings = team.small("verify_refine", **method)
        result = await asolve(PROBLEM, team.model(server.base_url), settings, concurrency=1)
    return result, server.requests


def rewrites(requests: Sequence[Body]) -> list[str]:
    return [team.prompt(body) for body in requests if "# Analyses of the candidate" in team.prompt(body)]


async def test_the_best_of_the_pool_are_rewritten_in_turn_with_their_analyses():
    """Of tries 0, 1, 2 the last two are the best. Of their rewrites 3, 4, 5 only 4 is better than they are."""
    grades = {0: ["0", "0"], 1: ["0.5", "0.5"], 2: ["0", "0.5"], 4: ["0.5", "1"]}
    result, requests = await solve(Prover(grades, default=["0", "0"]))
    sources = [[n for n in range(9) if f"Try {n}:" in prompt] for prompt in rewrites(requests)]
    assert sources == [[1], [2], [1], [4], [1], [4]]
    assert "Analysis 0 of try 1.\nGrade: 0.5" in rewrites(requests)[0]
    assert "Analysis 1 of try 1.\nGrade: 0.5" in rewrites(requests)[0]
    parents = [[r.parents for r in iteration.rollouts] for iteration in result.trajectory.iterations]
    assert parents == [[()] * 3, [((0, 1),), ((0, 2),), ((0, 1),)], [((1, 1),), ((0, 1),), ((1, 1),)]]
    assert (result.trajectory.stop, result.answer) == ("max_iterations", "4")


async def test_analyses_with_faults_come_first_in_the_prompt():
    _, requests = await solve(Prover({}, default=["1", "0.5", "1", "0"]), n_candidates=1, n_verifications=4)
    prompt = rewrites(requests)[0]
    places = [prompt.index(f"Analysis {m} of try 0") for m in (3, 1)]
    assert places == sorted(places)
    assert prompt.index("Analysis 1 of try 0") < min(prompt.index(f"Analysis {m} of try 0") for m in (0, 2))


async def test_it_stops_when_one_passes_every_analysis():
    result, _ = await solve(Prover({4: ["1", "1"]}))
    assert (result.trajectory.stop, len(result.trajectory.iterations), result.answer) == ("early_stop", 2, "4")


async def test_an_analysis_is_shown_with_its_grade_where_it_was_written_as_json():
    def reply(body: Body) -> list[str]:
        if team.role_of(body) == "verification":
            return ['{"critique": "A gap.", "grade": "0.5"}'] * body.get("n", 1)
        return [candidate(0)]

    _, requests = await solve(reply, agents={"structured_verification": True})
    assert "A gap.\nGrade: 0.5" in rewrites(requests)[0]


async def test_an_analysis_that_failed_is_no_pass():
    result, _ = await solve(Prover({}, default=["1", "I cannot say."]), agents={"parse_attempts": 1})
    assert result.trajectory.stop == "max_iterations"


async def test_every_candidate_is_asked_to_grade_itself_and_verifiers_do_not_see_it():
    result, requests = await solve(Prover({}))
    for body in requests:
        if team.role_of(body) == "verification":
            assert "It looks sound" not in team.prompt(body)
        else:
            assert team.prompt(body).count("# Self-evaluation") == 1
    rollouts = [r for iteration in result.trajectory.iterations for r in iteration.rollouts]
    assert {r.solution.own_grade for r in rollouts if isinstance(r.solution, Solution)} == {0.5}
    assert [r.answer for r in rollouts] == [str(n) for n in range(9)]  # not the grade in the last box


GRADED = "Based on my evaluation, the final grade is: \\boxed{1}"


@pytest.mark.parametrize(
    "heading",
    [
        "# Self-evaluation",
        "### 3. Self-evaluation",
        "Self\u2011evaluation",
        "<self-evaluation>",
        "My self-evaluation:",
        "# Evaluation",
        "# Self-assessment",
        "## Evaluation of the solution",
        "---",
        "",
    ],
)
async def test_its_own_grade_is_never_its_answer(heading: str):
    def reply(body: Body) -> list[str]:
        verified = team.role_of(body) == "verification"
        return ["A gap.\nGrade: 0"] * 2 if verified else [f"So \\boxed{{42}}.\n\n{heading}\nIt holds.\n{GRADED}"]

    result, _ = await solve(reply, n_candidates=1, max_iterations=1)
    [found] = result.trajectory.iterations[0].rollouts
    assert isinstance(found.solution, Solution)
    assert (found.solution.answer, found.solution.own_grade) == ("42", 1.0)
    assert "final grade" not in found.solution.text


@pytest.mark.parametrize(
    ("said", "text", "own_grade"),
    [
        ("The final score is \\boxed{1}.", "The final score is \\boxed{1}.", None),
        ("Proof.\n\n**Self-evaluation:** All of it holds.\nFinal grade: 1", "Proof.", 1.0),
        ("Proof.\n## Self-Evaluation\nWho knows.", "Proof.", None),
        ("Proof.\n\nIt holds. My evaluation: the final grade is\n$$\n\\boxed{1}\n$$", "Proof.", 1.0),
        ("Proof.\n**Final grade:** \\boxed{0}", "Proof.", 0.0),
        ("Proof.\nBased on my evaluation, the final grade is: \\(\\mathbf{\\boxed{1}}\\)", "Proof.", 1.0),
        ("Proof.\n# Self-evaluation\nFine.\n**Final Assessment:** it holds.\nGrade: 1", "Proof.", 1.0),
        ("Proof.\n# Self-evaluation\nAll fine.\nSelf-evaluation grade: \\boxed{1}", "Proof.", 1.0),
        ("Proof.\n# Self-evaluation\nFine.\nGrade: 1\n\nSelf-check complete.", "Proof.", 1.0),
        ("Self-check: 1 = 1.\nSo it is \\boxed{1}.", "Self-check: 1 = 1.\nSo it is \\boxed{1}.", None),
        ("## Evaluation of the integral\nProof.", "## Evaluation of the integral\nProof.", None),
        (
            "**Self-evaluation:** comes last.\nProof.\n# Self-evaluation\nFine.\nGrade: 1",
            "**Self-evaluation:** comes last.\nProof.",
            1.0,
        ),
        ("Proof.\n## Self-Evaluation\nIt holds.\nGrade: 0.7", "Proof.", None),
        ("Proof without any self-evaluation.", "Proof without any self-evaluation.", None),
    ],
)
async def test_a_candidate_stands_without_its_self_evaluation(said: str, text: str, own_grade: float | None):
    def reply(body: Body) -> list[str]:
        return ["A gap.\nGrade: 0"] * 2 if team.role_of(body) == "verification" else [said]

    result, _ = await solve(reply, n_candidates=1, max_iterations=1)
    [found] = result.trajectory.iterations[0].rollouts
    assert isinstance(found.solution, Solution)
    assert (found.solution.text, found.solution.own_grade) == (text, own_grade)


async def test_a_self_evaluation_alone_is_no_candidate():
    result, requests = await solve(lambda _: ["# Self-evaluation\nNothing to grade.\nGrade: 0"], max_iterations=2)
    assert {f.reason for f in result.failures} == {FailureReason.UNPARSABLE}
    assert len(requests) == 6  # the bare problem again, and nothing to verify
    assert rewrites(requests) == []


async def test_while_the_pool_is_empty_the_bare_problem_is_sampled_again():
    def reply(body: Body) -> list[str] | Script:
        if len(seen) < 3:
            seen.append(body)
            return Script(("So",), finish_reason="length")
        return prover(body)

    seen: list[Body] = []
    prover = Prover({})
    result, requests = await solve(reply)
    assert {r.mode for r in result.trajectory.iterations[1].rollouts} == {"initial"}
    assert {team.prompt(body) for body in requests[:3]} == {team.prompt(requests[3])}
    assert {r.mode for r in result.trajectory.iterations[2].rollouts} == {"exploit"}


async def test_a_rewrite_too_long_for_the_context_loses_its_last_analyses_first():
    def reply(body: Body) -> list[str]:
        if team.role_of(body) == "verification":
            return [f"Fault {m}{' again' * 150}.\nGrade: {grade}" for m, grade in enumerate(("1", "0", "0.5"))]
        return [candidate(0)]

    async with ScriptedServer(reply) as server:
        settings = team.small("verify_refine", n_candidates=1, n_verifications=3, max_iterations=2)
        result = await asolve(PROBLEM, team.model(server.base_url, context_length=1064 + 1600), settings)
    [prompt] = rewrites(server.requests)
    assert [f"Fault {m}" in prompt for m in range(3)] == [False, True, True]
    assert result.packed_prompts == 1
