"""run/results.py and run/metrics.py: from results to lines to totals, on cases done by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from tmas.answers.equivalence import EQUAL, Comparison, Equivalence, undecided
from tmas.records import (
    CallKey,
    Experience,
    Failure,
    FailureReason,
    Iteration,
    Problem,
    Result,
    Rollout,
    Selection,
    Solution,
    StopReason,
    Trajectory,
    Usage,
    UsageEntry,
    Verification,
)
from tmas.records.run_files import FailureLine, Prediction
from tmas.run.metrics import metrics
from tmas.run.results import failure_lines, prediction_line, verdicts

TERMS = {"method": {"name": "tmas"}, "limits": {}}
KEY = CallKey(problem_id="p", iteration=0, role="solution", index=1)
FAILED = Failure(reason=FailureReason.TRUNCATED, message="too long", key=KEY)
ITEM = Experience(item_id="E1", kind="pitfall", statement="s", created=0, last_seen=0)
COST = Usage(calls=1, prompt_tokens=10, cached_prompt_tokens=4, completion_tokens=5, seconds=0.5)


class Checker:
    """Equal where the answer is the gold one; undecided where it is "?"."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def compare(self, gold: str, answer: str) -> Comparison:
        self.asked.append(answer)
        if answer == "?":
            return undecided("cannot be parsed")
        return EQUAL if answer == gold else Comparison(equivalence=Equivalence.DIFFERENT)


def rollout(t: int, i: int, answer: str | Failure | None, *grades: float) -> Rollout:
    checks = tuple(Verification(index=m, grade=g, critique="") for m, g in enumerate(grades))
    mode = "explore" if t and i == 0 else "initial"
    if isinstance(answer, Failure):
        return Rollout(iteration=t, index=i, mode=mode, solution=answer)
    solution = Solution(iteration=t, index=i, mode=mode, text=f"text {t}/{i}", answer=answer)
    return Rollout(iteration=t, index=i, mode=mode, solution=solution, verifications=checks)


def iteration(*rollouts: Rollout, selected: int | None = 0, items: int = 0) -> Iteration:
    t = rollouts[0].iteration
    chosen = None
    if selected is not None:
        r = rollouts[selected]
        chosen = Selection(
            iteration=t, candidate=selected, answer=r.answer, mean_grade=r.mean_grade, votes=1, rule="grade"
        )
    return Iteration(index=t, rollouts=rollouts, experiences=(ITEM,) * items, selected=chosen)


def result(*iterations: Iteration, gold: str | None = "7", stop: StopReason = "max_iterations", **more: Any) -> Result:
    usage = tuple(
        UsageEntry(role=role, iteration=i.index, usage=COST)
        for i in iterations
        for role in ("solution", "verification")
    )
    problem = Problem(problem_id="p", question="?", answer=gold)
    trajectory = Trajectory(iterations=iterations, stop=stop)
    return Result(problem=problem, method="tmas", trajectory=trajectory, usage=usage, **more)


async def line(found: Result) -> dict[str, Any]:
    """The prediction line as it is read back from disk."""
    return orjson.loads(prediction_line(found, TERMS, await verdicts(found, Checker())).model_dump_json())  # type: ignore[arg-type]


async def totals(*results: Result, failures: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    lines = [Prediction.model_validate(await line(r)) for r in results]
    failed = [FailureLine.model_validate({"problem_id": "p", "call": None, "message": "", **f}) for f in failures]
    return metrics(lines, failed).model_dump(mode="json", exclude={"v"})


# --- lines


async def test_a_line_tells_the_answer_its_verdict_and_where_it_came_from():
    found = await line(
        result(
            iteration(rollout(0, 0, "8", 0.0), rollout(0, 1, FAILED)),
            iteration(rollout(1, 0, "?"), rollout(1, 1, "7", 1.0, 0.5), selected=1, items=2),
            failures=(FAILED,),
            packed_prompts=3,
        )
    )
    assert (found["answer"], found["correct"], found["gold"], found["solution"]) == ("7", "equal", "7", "text 1/1")
    assert (found["stop"], found["failures"], found["packed_prompts"]) == ("max_iterations", 1, 3)
    assert found["terms"] == TERMS
    first, second = found["iterations"]
    assert [c["correct"] for c in first["candidates"]] == ["different", None]
    assert [c["failure"] for c in first["candidates"]] == [None, "truncated"]
    assert [c["correct"] for c in second["candidates"]] == ["undecided", "equal"]
    assert second["candidates"][1]["grades"] == [1.0, 0.5]
    assert (first["selected_correct"], second["selected_correct"]) == ("different", "equal")
    assert [item["item_id"] for item in second["experience_bank"]] == ["E1", "E1"]
    assert Prediction.model_validate(found).total_usage == COST + COST + COST + COST


async def test_each_distinct_answer_is_compared_once_and_none_without_a_gold_answer():
    checker = Checker()
    rounds = iteration(rollout(0, 0, "7"), rollout(0, 1, "7"), rollout(0, 2, "8"), rollout(0, 3, None))
    assert await verdicts(result(rounds), checker) == {"7": "equal", "8": "different"}  # type: ignore[arg-type]
    assert checker.asked == ["7", "8"]
    assert await verdicts(result(rounds, gold=None), checker) == {}  # type: ignore[arg-type]
    assert len(checker.asked) == 2


async def test_a_problem_on_which_everything_failed_still_has_its_line():
    found = await line(result(iteration(rollout(0, 0, FAILED), selected=None), stop="budget"))
    assert [found[name] for name in ("answer", "correct", "solution", "selected")] == [None] * 4
    assert found["iterations"][0]["selected_correct"] is None


def test_failure_lines_name_the_call_and_the_reason():
    unsent = Failure(reason=FailureReason.CONTEXT, message="too long")
    lines = failure_lines(result(failures=(FAILED, unsent)))
    assert [line.model_dump(mode="json", exclude={"v"}) for line in lines] == [
        {
            "problem_id": "p",
            "reason": "truncated",
            "call": {"iteration": 0, "role": "solution", "index": 1, "attempt": 0},
            "message": "too long",
        },
        {"problem_id": "p", "reason": "context", "call": None, "message": "too long"},
    ]


# --- totals


async def test_pass_at_1_is_over_candidates_and_failures_and_undecided_ones_are_wrong():
    [row] = (
        await totals(
            result(iteration(rollout(0, 0, "7", 1.0, 1.0), rollout(0, 1, FAILED), rollout(0, 2, None, 0.5))),
            result(iteration(rollout(0, 0, "7"), rollout(0, 1, "?", 0.0), rollout(0, 2, "8"), selected=1)),
        )
    )["iterations"]
    assert (row["pass_at_1"], row["pass_at_1_upper"]) == (2 / 6, 3 / 6)
    assert (row["undecided"], row["failed"], row["candidates"], row["problems"]) == (1, 1, 6, 2)
    assert row["mean_grade"] == (1.0 + 0.5 + 0.0) / 3
    assert row["selected_accuracy"] == 0.5  # the other one is undecided


async def test_totals_are_over_problems():
    found = await totals(
        result(iteration(rollout(0, 0, "7")), packed_prompts=2),
        result(iteration(rollout(0, 0, "8")), packed_prompts=1),
        result(iteration(rollout(0, 0, None)), stop="early_stop"),
        result(iteration(rollout(0, 0, "?"))),
        result(iteration(rollout(0, 0, "7")), gold=None),
        failures=[{"reason": "truncated"}, {"reason": "truncated"}, {"reason": "timeout"}],
    )
    assert found["problems"] == 5
    assert found["selected_accuracy"] == 1 / 4
    assert found["selected_undecided"] == 1
    assert found["answered"] == 4
    assert found["stops"] == {"max_iterations": 4, "early_stop": 1}
    assert found["failures"] == {"truncated": 2, "timeout": 1}
    assert found["packed_prompts"] == 3


async def test_a_problem_that_stopped_keeps_its_last_iteration_in_rates_and_means():
    long = result(
        iteration(rollout(0, 0, "8", 0.0)),
        iteration(rollout(1, 0, "8", 0.0), rollout(1, 1, "?", 0.5), items=3),
        iteration(rollout(2, 0, "7", 1.0), items=4),
    )
    short = result(iteration(rollout(0, 0, "8", 0.0)), iteration(rollout(1, 0, "7", 1.0), items=1), stop="early_stop")
    rows = (await totals(long, short))["iterations"]
    assert [row["pass_at_1"] for row in rows] == [0.0, 1 / 3, 1.0]
    assert [row["selected_accuracy"] for row in rows] == [0.0, 0.5, 1.0]
    assert [row["undecided"] for row in rows] == [0, 1, 0]
    assert [row["mean_grade"] for row in rows] == [0.0, 0.5, 1.0]
    assert [row["experience_items"] for row in rows] == [0.0, 2.0, 2.5]


async def test_a_problem_that_stopped_while_wrong_stays_wrong():
    long = result(*(iteration(rollout(t, 0, "7")) for t in range(3)))
    short = result(iteration(rollout(0, 0, "8")), stop="budget")
    rows = (await totals(long, short))["iterations"]
    assert [row["pass_at_1"] for row in rows] == [row["selected_accuracy"] for row in rows] == [0.5] * 3


@pytest.mark.parametrize("reason", [FailureReason.BUDGET, FailureReason.ENDPOINT, FailureReason.WORKER])
async def test_a_candidate_that_never_came_about_is_in_no_rate(reason: FailureReason):
    never = Failure(reason=reason, message="")
    long = result(*(iteration(rollout(t, 0, "8")) for t in range(4)))
    cut = result(
        iteration(rollout(0, 0, "8", 0.0), rollout(0, 1, "7", 1.0), selected=1),
        iteration(rollout(1, 0, "7", 0.5), rollout(1, 1, never)),
        iteration(rollout(2, 0, never), rollout(2, 1, never), selected=None),
        stop="budget",
    )
    rows = (await totals(long, cut))["iterations"]
    assert [row["pass_at_1"] for row in rows] == [1 / 3, 1 / 2, 1 / 2, 1 / 2]
    assert [row["mean_grade"] for row in rows] == [0.5, 0.5, 0.5, 0.5]
    assert [(row["candidates"], row["failed"]) for row in rows] == [(3, 0), (3, 1), (3, 2), (1, 0)]


async def test_what_an_iteration_counts_is_of_the_problems_that_ran_it():
    long = result(iteration(rollout(0, 0, "8")), iteration(rollout(1, 0, "7"), rollout(1, 1, FAILED)))
    short = result(iteration(rollout(0, 0, "7"), rollout(0, 1, FAILED)), stop="early_stop")
    first, second = (await totals(long, short))["iterations"]
    assert [first[name] for name in ("problems", "candidates", "failed", "explore")] == [2, 3, 1, 0]
    assert [second[name] for name in ("problems", "candidates", "failed", "explore")] == [1, 2, 1, 1]
    assert (first["usage"]["calls"], second["usage"]["calls"]) == (4, 2)


async def test_usage_adds_up_by_iteration_and_by_role():
    found = await totals(
        result(iteration(rollout(0, 0, "7")), iteration(rollout(1, 0, "7"))), result(iteration(rollout(0, 0, "7")))
    )
    assert [row["usage"]["prompt_tokens"] for row in found["iterations"]] == [40, 20]
    assert list(found["usage"]) == ["solution", "verification"]
    assert found["usage"]["solution"] == (COST + COST + COST).model_dump()


@pytest.mark.parametrize("results", [[], [result(iteration(rollout(0, 0, "7")), gold=None)]], ids=["empty", "no gold"])
async def test_rates_are_none_where_nothing_can_be_said(results: list[Result]):
    found = await totals(*results)
    assert found["selected_accuracy"] is None
    assert [(r["pass_at_1"], r["selected_accuracy"], r["mean_grade"]) for r in found["iterations"]] == [
        (None, None, None)
    ] * len(results)
