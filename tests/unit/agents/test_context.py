"""agents/context.py: rollouts and banks as pieces of a prompt, and what is given up first."""

from __future__ import annotations

from typing import Any

import pytest

from tmas.agents.context import Attempts, all_items, attempts_of, fewer_items, least_valuable_first
from tmas.agents.packing import Shorten
from tmas.memory.experience import ExperienceBank
from tmas.memory.guidelines import GuidelineBank
from tmas.prompts import BUILT_IN
from tmas.records import Experience, Failure, FailureReason, Rollout, Solution, Verification

FAILED = Failure(reason=FailureReason.TRUNCATED, message="")


def rollout(i: int, *grades: float, summary: Any = "SUMMARY", answer: str | None = "7") -> Rollout:
    solution = Solution(iteration=2, index=i, mode="exploit", text=f"SOLUTION {i}", answer=answer)
    checks = tuple(Verification(index=m, grade=g, critique="CRITIQUE") for m, g in enumerate(grades))
    return Rollout(iteration=2, index=i, mode="exploit", solution=solution, verifications=checks, summary=summary)


def failed(i: int) -> Rollout:
    return Rollout(iteration=2, index=i, mode="exploit", solution=FAILED)


def names(steps: list[tuple[str, Shorten]]) -> list[str]:
    return [name for name, _ in steps]


def after(attempts: Attempts, steps: list[tuple[str, Shorten]]) -> dict[str, str]:
    return attempts.full | {name: shorten(lambda _: True) for name, shorten in steps}


def test_an_attempt_shows_its_solution_answer_grade_and_summary_but_no_critique():
    [text] = attempts_of([rollout(3, 1.0, 0.5)], BUILT_IN).full.values()
    assert '<attempt id="3" final_answer="7" grade="0.75">' in text
    assert "SOLUTION 3" in text
    assert "SUMMARY" in text
    assert "CRITIQUE" not in text


def test_what_is_missing_is_said():
    [text] = attempts_of([rollout(0, answer=None, summary=FAILED)], BUILT_IN).full.values()
    assert 'final_answer="none given" grade="not graded"' in text
    assert "no summary is available" in text


def test_failed_candidates_have_nothing_to_show():
    attempts = attempts_of([failed(0), rollout(1, 1.0), failed(2)], BUILT_IN)
    assert list(attempts.full) == names(attempts.shorten) == names(attempts.drop) == ["attempt 1"]
    assert attempts_of([failed(0)], BUILT_IN).texts({}) == []


def test_attempts_stand_in_order_and_are_given_up_worst_first_then_last_first():
    grades = [[0.5], [1.0], [], [0.0], [0.5]]
    attempts = attempts_of([rollout(i, *given) for i, given in enumerate(grades)], BUILT_IN)
    assert list(attempts.full) == [f"attempt {i}" for i in range(5)]
    assert names(attempts.shorten) == names(attempts.drop) == [f"attempt {i}" for i in (3, 2, 4, 0, 1)]


def order(*attempts: tuple[str | None, list[float]]) -> list[int]:
    """The indices of attempts, given by answer and grades, in the order in which they are given up."""
    given = [rollout(i, *grades, answer=answer) for i, (answer, grades) in enumerate(attempts)]
    return [r.index for r in least_valuable_first(given)]


def test_the_best_attempt_of_each_answer_is_given_up_last():
    """Three attempts share a wrong answer and have the best grades; the right one is alone."""
    assert order(("17", [1.0]), ("17", [1.0]), ("12", [0.5]), ("17", [0.5])) == [3, 1, 2, 0]
    assert order(("\\frac12", [1.0]), ("\\frac{1}{2}", [0.5]), ("$2$", [0.0]), ("2", [0.5])) == [2, 1, 3, 0]


def test_attempts_without_an_answer_are_ordered_by_grade_alone():
    assert order((None, [1.0]), ("3", [0.0]), (None, [0.5])) == [2, 0, 1]
    assert order((None, [0.5]), (None, [1.0]), (None, [0.0])) == [2, 0, 1]


def test_an_ungraded_attempt_is_worth_more_than_a_0_and_less_than_any_other():
    assert order(("1", []), ("2", [0.0]), ("3", [0.0] * 7 + [0.5])) == [1, 0, 2]
    assert order(("1", []), ("1", [0.0]), ("1", [0.0, 0.5])) == [1, 0, 2]


def test_a_shortened_attempt_keeps_its_summary_and_a_dropped_one_leaves_no_gap():
    attempts = attempts_of([rollout(0, 0.0), rollout(1, 1.0)], BUILT_IN)
    short, whole = attempts.texts(after(attempts, attempts.shorten[:1]))
    assert "SOLUTION" not in short
    assert 'id="0" final_answer="7" grade="0.00"' in short
    assert "SUMMARY" in short
    assert attempts.texts(after(attempts, attempts.drop[:1])) == [whole]


@pytest.mark.parametrize("bank", [None, ExperienceBank(), GuidelineBank()])
def test_no_bank_and_an_empty_one_show_nothing(bank: ExperienceBank | GuidelineBank | None):
    assert all_items(bank) == ""


def test_a_bank_is_shortened_by_its_least_supported_items():
    items = tuple(
        Experience(item_id=f"E{i}", kind="conclusion", statement=f"fact {i}", created=0, last_seen=0, support=support)
        for i, support in enumerate([2, 1, 3])
    )
    bank = ExperienceBank(items=items)
    assert [f"fact {i}" in all_items(bank) for i in range(3)] == [True, True, True]
    fewer = fewer_items(bank)(lambda text: text.count("fact") <= 2)
    assert [f"fact {i}" in fewer for i in range(3)] == [True, False, True]
    assert fewer_items(bank)(lambda _: False) == ""
