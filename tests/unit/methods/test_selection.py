"""methods/selection.py: which candidate's answer is given, and why that one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tmas.answers.equivalence import Comparison, Equivalence
from tmas.methods.selection import SelectionSettings, fingerprint, select
from tmas.records import Failure, FailureReason, Rollout, Selection, Solution, Verification

FAILED = Failure(reason=FailureReason.TRUNCATED, message="")
Candidate = tuple[str | None, Sequence[float]]
"""An answer and the grades that it got."""


class Halves:
    """A checker that knows one thing: 1/2 is 0.5."""

    async def compare(self, gold: str, answer: str) -> Comparison:
        same = gold == answer or {gold, answer} == {"1/2", "0.5"}
        return Comparison(equivalence=Equivalence.EQUAL if same else Equivalence.DIFFERENT)


def rollout(t: int, i: int, answer: str | None, grades: Sequence[float]) -> Rollout:
    checks = tuple(Verification(index=m, grade=grade, critique="") for m, grade in enumerate(grades))
    solution = Solution(iteration=t, index=i, mode="initial", text="...", answer=answer)
    return Rollout(iteration=t, index=i, mode="initial", solution=solution, verifications=checks)


def rounds_of(*rounds: Sequence[Candidate]) -> list[list[Rollout]]:
    return [[rollout(t, i, *candidate) for i, candidate in enumerate(r)] for t, r in enumerate(rounds)]


def failed(t: int, i: int) -> Rollout:
    return Rollout(iteration=t, index=i, mode="initial", solution=FAILED)


async def selected(rounds: Sequence[Sequence[Rollout]], **settings: Any) -> Selection | None:
    return (await select(rounds, SelectionSettings(**settings), Halves())).selection  # type: ignore[arg-type]


async def place(*rounds: Sequence[Candidate], **settings: Any) -> tuple[int, int]:
    """Iteration and index of the selected candidate."""
    found = await selected(rounds_of(*rounds), **settings)
    assert found is not None
    return found.iteration, found.candidate


async def test_a_last_iteration_that_a_budget_cut_off_leaves_the_one_before_it():
    cut = Rollout(iteration=1, index=0, mode="initial", solution=Failure(reason=FailureReason.BUDGET, message=""))
    rounds = rounds_of([("7", [])])
    found = await selected([*rounds, [cut]], scope="last")
    assert found is not None
    assert found.answer == "7"
    assert await selected([*rounds, [failed(1, 0)]], scope="last") is None  # the model was asked, and gave nothing


TWO_AGREE: Sequence[Candidate] = [("7", [1.0, 0.5]), ("1/2", [0.5]), ("0.5", [0.5, 0.5])]


async def test_by_grade_the_best_mean_grade_wins():
    assert await place(TWO_AGREE, rule="grade") == (0, 0)


async def test_by_vote_the_largest_class_of_equal_answers_wins():
    assert await place(TWO_AGREE, rule="vote") == (0, 1)


async def test_the_selection_says_what_it_rests_on():
    assert await selected(rounds_of(TWO_AGREE), rule="vote") == Selection(
        iteration=0, candidate=1, answer="1/2", mean_grade=0.5, votes=2, rule="vote"
    )


@pytest.mark.parametrize(
    ("rule", "candidates", "expected"),
    [
        ("grade", [("7", [0.5]), ("8", [0.5]), ("8", [0.5])], 1),
        ("vote", [("7", [0.5]), ("8", [1.0]), ("7", [0.5]), ("8", [0.0])], 1),
        ("grade", [("7", [1.0]), ("8", [1.0])], 0),
        ("vote", [("7", [1.0]), ("8", [1.0])], 0),
    ],
    ids=["grade: votes", "vote: grades", "grade: the earliest", "vote: the earliest"],
)
async def test_ties_go_to_the_other_measure_and_then_to_the_earliest(
    rule: str, candidates: Sequence[Candidate], expected: int
):
    assert await place(candidates, rule=rule) == (0, expected)


async def test_all_iterations_count_or_only_the_last():
    rounds = [[("7", [1.0])], [("8", [0.5]), ("9", [0.0])]]
    assert await place(*rounds, scope="all") == (0, 0)
    assert await place(*rounds, scope="last") == (1, 0)
    votes = [[("7", []), ("7", [])], [("8", []), ("7", [])]]
    assert await place(*votes, rule="vote", scope="all") == (0, 0)
    assert await place(*votes, rule="vote", scope="last") == (1, 0)


async def test_an_ungraded_candidate_stands_behind_a_grade_of_zero():
    assert await place([("7", []), ("8", [0.0])]) == (0, 1)


async def test_without_an_answer_a_candidate_stands_only_where_none_has_one():
    assert await place([(None, [1.0]), ("8", [0.0])]) == (0, 1)
    assert await place([(None, [0.0]), (None, [1.0])]) == (0, 1)


async def test_at_random_the_draw_decides_among_the_candidates_with_an_answer():
    rounds = rounds_of([("7", []), (None, []), ("8", []), ("9", [])])
    checker: Any = Halves()
    settings = SelectionSettings(rule="random")
    found = [(await select(rounds, settings, checker, draw)).selection for draw in (0.0, 0.34, 0.99)]
    assert [selection.candidate for selection in found if selection] == [0, 2, 3]


@pytest.mark.parametrize("rule", ["grade", "vote"])
async def test_proofs_go_by_grade_under_either_rule(rule: str):
    found = await selected(rounds_of([(None, [0.5]), (None, [1.0]), (None, [])]), rule=rule)
    assert found is not None
    assert (found.candidate, found.answer, found.votes) == (1, None, 1)


async def test_failed_candidates_never_stand():
    assert await selected([[failed(0, 0), rollout(0, 1, "7", [])]], rule="vote") == Selection(
        iteration=0, candidate=1, answer="7", mean_grade=None, votes=1, rule="vote"
    )
    assert await selected([[failed(0, 0)], [failed(1, 0)]]) is None
    assert await selected([[rollout(0, 0, "7", [])], [failed(1, 0)]], scope="last") is None


def test_the_fingerprint_changes_with_whatever_a_selection_depends_on():
    variants = [
        rounds_of([("7", [1.0])]),
        rounds_of([("8", [1.0])]),
        rounds_of([("7", [0.5])]),
        rounds_of([(None, [1.0])]),
        rounds_of([("7", [])]),
        rounds_of([("7", [1.0])], [("7", [1.0])]),
        rounds_of([("7", [1.0]), ("7", [1.0])]),
        rounds_of([(None, [])]),
        [[failed(0, 0)]],
    ]
    assert len({fingerprint(rounds) for rounds in variants}) == len(variants)
    assert fingerprint(rounds_of([("7", [1.0, 0.0])])) == fingerprint(rounds_of([("7", [0.5])]))
