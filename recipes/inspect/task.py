"""An inspect_ai task: solve the problems of a file. Final answers are compared by the rule of ``tmas evaluate``.

``inspect eval recipes/inspect/task.py --model openai-api/tmas/tmas -T problems=FILE``; run.sh compares two models.
"""

from __future__ import annotations

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import CORRECT, INCORRECT, NOANSWER, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState, generate, prompt_template

from tmas.answers.checker import AnswerChecker
from tmas.answers.extract import extract_boxed
from tmas.problems.loader import load_problems

FORM = "{prompt}\n\nReason step by step, and put your final answer within \\boxed{{}}."
"""Both models get this prompt. TMAS asks its agents for a boxed answer, too."""


@task
def problems(problems: str) -> Task:
    """``problems``: a JSONL, JSON, CSV or parquet file whose problems have answers."""
    samples = [
        Sample(input=problem.question, target=problem.answer, id=problem.problem_id)
        for problem in load_problems(problems).problems
        if problem.answer is not None
    ]
    return Task(dataset=MemoryDataset(samples), solver=[prompt_template(FORM), generate()], scorer=equivalent())


@scorer(metrics=[accuracy(), stderr()])
def equivalent() -> Scorer:
    """Whether the boxed answer is equivalent to the gold answer. An undecided comparison counts as incorrect."""

    async def score(state: TaskState, target: Target) -> Score:
        answer = extract_boxed(state.output.completion)
        if answer is None:
            return Score(value=NOANSWER, explanation="there is no boxed answer")
        async with AnswerChecker() as checker:
            comparison = await checker.compare(target.text, answer)
        return Score(value=CORRECT if comparison.equal else INCORRECT, answer=answer, explanation=comparison.reason)

    return score
