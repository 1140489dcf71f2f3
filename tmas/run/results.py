"""Turns results into the records of ``predictions.jsonl`` and ``failures.jsonl``.

What the models wrote stays in the trace, except for the selected solution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tmas.answers.checker import AnswerChecker
from tmas.records import Failure, Iteration, Result, Rollout, Selection, Solution
from tmas.records.run_files import (
    Correctness,
    FailedCall,
    FailureLine,
    PredictedCandidate,
    PredictedIteration,
    Prediction,
    Terms,
)

Verdicts = Mapping[str, Correctness]
"""Each answer compared with the gold answer."""


async def verdicts(result: Result, checker: AnswerChecker) -> Verdicts:
    """Compare every distinct answer of the problem with its gold answer; empty if there is none."""
    gold = result.problem.answer
    answers = {r.answer for i in result.trajectory.iterations for r in i.rollouts if r.answer is not None}
    if gold is None:
        return {}
    return {answer: (await checker.compare(gold, answer)).equivalence.value for answer in sorted(answers)}


def prediction_line(result: Result, terms: Mapping[str, Any], correct: Verdicts) -> Prediction:
    """The record of one problem. ``terms``: the settings that it was finished under, see :class:`Terms`."""
    selected = result.trajectory.selected
    return Prediction(
        problem_id=result.problem.problem_id,
        question=result.problem.question,
        gold=result.problem.answer,
        method=result.method,
        answer=result.answer,
        correct=_verdict(selected, correct),
        solution=result.solution,
        selected=selected,
        stop=result.trajectory.stop,
        iterations=tuple(_iteration(i, correct) for i in result.trajectory.iterations),
        usage=result.usage,
        failures=len(result.failures),
        packed_prompts=result.packed_prompts,
        replies=result.replies,
        terms=Terms.model_validate(terms),
    )


def _iteration(iteration: Iteration, correct: Verdicts) -> PredictedIteration:
    return PredictedIteration(
        iteration=iteration.index,
        candidates=tuple(_candidate(r, correct) for r in iteration.rollouts),
        experience_bank=iteration.experiences,
        experience_change=iteration.experience_change,
        guideline_change=iteration.guideline_change,
        guideline_bank=iteration.guidelines,
        selected=iteration.selected,
        selected_correct=_verdict(iteration.selected, correct),
    )


def _candidate(rollout: Rollout, correct: Verdicts) -> PredictedCandidate:
    return PredictedCandidate(
        candidate=rollout.index,
        mode=rollout.mode,
        parents=rollout.parents,
        shown=rollout.shown,
        answer=rollout.answer,
        correct=_verdict(rollout, correct),
        grades=tuple(rollout.grades),
        mean_grade=rollout.mean_grade,
        own_grade=rollout.solution.own_grade if isinstance(rollout.solution, Solution) else None,
        failure=rollout.solution.reason if isinstance(rollout.solution, Failure) else None,
    )


def _verdict(answered: Selection | Rollout | None, correct: Verdicts) -> Correctness | None:
    return None if answered is None or answered.answer is None else correct.get(answered.answer)


def failure_lines(result: Result) -> Iterator[FailureLine]:
    """Each failure of the problem, with the call that it comes from."""
    for failure in result.failures:
        call = failure.key and FailedCall.model_validate(failure.key.model_dump(exclude={"problem_id"}))
        yield FailureLine(
            problem_id=result.problem.problem_id, reason=failure.reason, call=call, message=failure.message
        )
