"""The default policy: how many candidates an iteration has, how many explore, and when a problem is given up."""

from __future__ import annotations

from typing import NamedTuple

from tmas.methods.allocation import AllocationSettings, NextIteration, iterations_without_progress, progress


class Seen(NamedTuple):
    answer: str | None
    mean_grade: float | None


def iteration(*answers: str, grade: float | None = 0.0) -> list[Seen]:
    return [Seen(answer, grade) for answer in answers]


SAME = iteration("7", "7")
SETTINGS = AllocationSettings(least_candidates=2, stalled_after=2, epsilon_step=0.3, most_epsilon=0.5)


def test_progress_is_a_better_grade_or_a_new_answer():
    assert iterations_without_progress([SAME]) == 0
    assert iterations_without_progress([SAME, iteration("7", grade=0.5), SAME, SAME]) == 2
    new_answer = [SAME, SAME, iteration(r"\frac{1}{2}"), SAME]
    assert iterations_without_progress(new_answer) == 3
    assert iterations_without_progress(new_answer, "grade_or_answer") == 1


def test_there_is_one_candidate_more_than_answers_between_the_bounds():
    assert progress([], 8, 0.2, SETTINGS) == NextIteration(8, 0.2)
    for last, candidates in [("77", 2), ("789", 4), ("12345678", 8)]:
        plan = progress([iteration(*last)], 8, 0.2, SETTINGS)
        assert plan == NextIteration(candidates, 0.2)
    proofs = [Seen(None, 0.5)] * 3
    assert progress([proofs], 8, 0.2, SETTINGS) == NextIteration(8, 0.2)


def test_a_stalled_problem_explores_more_and_is_given_up_last():
    gives_up = SETTINGS.model_copy(update={"give_up_after": 4})
    plans = [progress([SAME] * n, 8, 0.2, gives_up) for n in range(1, 6)]
    assert [plan and (plan.epsilon, plan.iterations_without_progress) for plan in plans] == [
        (0.2, 0), (0.2, 1), (0.5, 2), (0.5, 3), None
    ]  # fmt: skip
    assert progress([SAME] * 9, 8, 0.7, SETTINGS) == NextIteration(
        2, 0.7, 8
    )  # never less exploration than the method's
