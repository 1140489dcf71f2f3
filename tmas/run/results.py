"""Results as lines of ``predictions.jsonl`` and ``failures.jsonl``; what the models wrote stays in the trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tmas.answers.checker import AnswerChecker
from tmas.records import NOT_SAMPLED, SCHEMA_VERSION, Failure, Iteration, Result, Rollout, Solution, Usage

Line = dict[str, Any]
Verdicts = Mapping[str, str]
"""Answer -> equal | different | undecided, against the gold answer."""


async def verdicts(result: Result, checker: AnswerChecker) -> Verdicts:
    """Every distinct answer of the problem against its gold answer; empty where there is none."""
    gold = result.problem.answer
    answers = {r.answer for i in result.trajectory.iterations for r in i.rollouts if r.answer is not None}
    if gold is None:
        return {}
    return {answer: (await checker.compare(gold, answer)).equivalence for answer in sorted(answers)}


def prediction_line(result: Result, terms: dict[str, Any], correct: Verdicts) -> Line:
    """One problem. ``terms``: the settings it was finished under, by which a resumed run sees whether it stands."""
    selected = result.trajectory.selected
    return {
        "v": SCHEMA_VERSION,
        "problem_id": result.problem.problem_id,
        "question": result.problem.question,
        "gold": result.problem.answer,
        "method": result.method,
        "answer": result.answer,
        "correct": _verdict(result.answer, correct),
        "solution": result.solution,
        "selected": selected.model_dump() if selected else None,
        "stop": result.trajectory.stop,
        "iterations": [_iteration(i, correct) for i in result.trajectory.iterations],
        "usage": [entry.model_dump() for entry in result.usage],
        "failures": len(result.failures),
        "packed_prompts": result.packed_prompts,
        "terms": terms,
    }


def _iteration(iteration: Iteration, correct: Verdicts) -> Line:
    selected = iteration.selected
    return {
        "iteration": iteration.index,
        "candidates": [_candidate(r, correct) for r in iteration.rollouts],
        "experience_bank": [item.model_dump() for item in iteration.experiences],
        "experience_change": iteration.experience_change.model_dump() if iteration.experience_change else None,
        "guideline_change": iteration.guideline_change.model_dump() if iteration.guideline_change else None,
        "guideline_bank": [item.model_dump() for item in iteration.guidelines],
        "selected": selected.model_dump() if selected else None,
        "selected_correct": _verdict(selected.answer, correct) if selected else None,
    }


def _candidate(rollout: Rollout, correct: Verdicts) -> Line:
    return {
        "candidate": rollout.index,
        "mode": rollout.mode,
        "parents": rollout.parents,
        "answer": rollout.answer,
        "correct": _verdict(rollout.answer, correct),
        "grades": rollout.grades,
        "mean_grade": rollout.mean_grade,
        "own_grade": rollout.solution.own_grade if isinstance(rollout.solution, Solution) else None,
        "failure": rollout.solution.reason if isinstance(rollout.solution, Failure) else None,
    }


def _verdict(answer: str | None, correct: Verdicts) -> str | None:
    return None if answer is None else correct.get(answer)


def failure_lines(result: Result) -> Iterator[Line]:
    """Each failure of the problem, with the call it came from."""
    for failure in result.failures:
        yield {
            "problem_id": result.problem.problem_id,
            "reason": failure.reason,
            "call": failure.key.model_dump(exclude={"problem_id"}) if failure.key else None,
            "message": failure.message,
        }


def usage_of_line(line: Line) -> Usage:
    """All that one prediction cost."""
    return sum((Usage(**entry["usage"]) for entry in line["usage"]), Usage())


def samples(round_: Line) -> list[Line]:
    """The candidates of an iteration that the model was asked for and answered, however badly."""
    return [c for c in round_["candidates"] if c["failure"] not in NOT_SAMPLED]


def rounds(line: Line) -> list[Line]:
    """The iterations of a prediction, less those at the end of which no candidate could be asked for."""
    found = line["iterations"]
    while found and not samples(found[-1]):
        found = found[:-1]
    return found
