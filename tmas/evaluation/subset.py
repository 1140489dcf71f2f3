"""``tmas subset``: selects the problems that a model seldom solves.

The paper's IMO-AnswerBench-50 are the problems of IMO-AnswerBench that Qwen3-4B-Thinking-2507 solved fewer than 2 times
in 8 runs. What the paper calls a run is one candidate of a first iteration here. The eight candidates may come
from one run directory, or one each from eight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from tmas.answers.checker import AnswerChecker
from tmas.errors import UserError
from tmas.evaluation.correctness import Scoring
from tmas.evaluation.estimators import mean
from tmas.evaluation.runs import RunData, read_run
from tmas.evaluation.scores import correctness_of
from tmas.evaluation.scoring import ScoringSettings, StepProgressCallback, find_verdicts
from tmas.files import digest, write_lines
from tmas.problems.loader import ProblemFields
from tmas.records import Problem
from tmas.records.run_files import PredictedCandidate


class SubsetSettings(ScoringSettings):
    """All settings of ``tmas subset``."""

    problems: Path = Field(
        description="The problem file that the runs were made on. problems=hub loads the Hugging Face data set of the"
        " preset data=NAME."
    )
    data: ProblemFields = Field(default=ProblemFields(), description="Names of the columns in the problem file.")
    on_bad_problem: Literal["refuse", "skip"] = Field(
        default="refuse", description="refuse: stop if a row is invalid. skip: leave invalid rows out and report them."
    )
    samples: int = Field(
        default=8, ge=1, description="Number of first-iteration candidates that each problem must have, over all runs."
    )
    max_solved: int = Field(
        default=1,
        ge=0,
        description="A problem belongs to the subset if at most this many of its candidates are correct.",
    )
    on_undecided: Literal["refuse", "include", "exclude"] = Field(
        default="refuse",
        description="What to do with a problem whose undecided answers decide whether it belongs to the subset: stop,"
        " include it or exclude it.",
    )
    output: Path = Field(description="The file to write: the subset as a JSONL problem file.")


@dataclass(frozen=True)
class Solved:
    """Bounds on how often a problem was solved. ``most`` counts undecided answers as correct, ``least`` does not."""

    problem: Problem
    least: int
    most: int


async def solved_counts(
    problems: Sequence[Problem],
    settings: SubsetSettings,
    checker: AnswerChecker,
    on_progress: StepProgressCallback = lambda *_: None,
) -> list[Solved]:
    """Count how often each problem was solved in first iterations, by the judge if there is one, otherwise by rule.

    Raises ``UserError`` if a run cannot be read, the runs used several models, a problem has no gold answer, its
    question or answer differs in a run, or the number of candidates of a problem is not ``settings.samples``.
    """
    runs = [_first_iteration(read_run(path)) for path in settings.runs]
    _check(runs, problems, settings.samples)
    verdicts = await find_verdicts(runs, settings, checker, on_progress)
    scoring = list(verdicts.scorings.values())[-1]
    return [_solved(problem, _candidates(runs, problem), scoring) for problem in problems]


def select(counts: Sequence[Solved], settings: SubsetSettings) -> list[Solved]:
    """Return the problems of the subset.

    Raises ``UserError`` if undecided answers determine whether a problem belongs to the subset and
    ``settings.on_undecided`` is ``refuse``.
    """
    open_ = [s for s in counts if s.least <= settings.max_solved < s.most]
    if open_ and settings.on_undecided == "refuse":
        names = ", ".join(s.problem.problem_id for s in open_[:10])
        raise UserError(
            f"it depends on undecided answers whether these problems belong to the subset: {names}"
            f"{f' and {len(open_) - 10} more' if len(open_) > 10 else ''}",
            remedy="Give a judge, or on_undecided=include or on_undecided=exclude.",
        )
    times_solved = (lambda s: s.least) if settings.on_undecided == "include" else (lambda s: s.most)
    return [s for s in counts if times_solved(s) <= settings.max_solved]


def write_subset(file: Path, subset: Sequence[Solved], settings: SubsetSettings) -> None:
    """Write the subset as a problem file, which ``data=imo_answerbench_50`` can read.

    Each line says how often the problem was solved.
    """
    rows = [
        {
            "problem_id": s.problem.problem_id,
            "question": s.problem.question,
            "answer": s.problem.answer,
            "solved": s.least,
            "undecided": s.most - s.least,
            "samples": settings.samples,
        }
        for s in subset
    ]
    write_lines(file, rows)


def _first_iteration(run: RunData) -> RunData:
    return replace(run, lines=tuple(line.model_copy(update={"iterations": line.iterations[:1]}) for line in run.lines))


def _check(runs: Sequence[RunData], problems: Sequence[Problem], wanted: int) -> None:
    if len(models := {run.manifest.models["solution"] for run in runs}) > 1:
        raise UserError(f"the runs use several models: {', '.join(sorted(models))}", where="runs")
    for problem in problems:
        if problem.answer is None:
            raise UserError(f"problem {problem.problem_id!r} has no gold answer", where="problems")
        known = digest([problem.question, problem.answer])
        for run in runs:
            if run.manifest.problems.get(problem.problem_id, known) != known:
                raise UserError(
                    f"problem {problem.problem_id!r} had another question or answer",
                    where=run.path,
                    remedy="Give the problem file that the run was made with.",
                )
        if (found := len(_candidates(runs, problem))) != wanted:
            raise UserError(
                f"problem {problem.problem_id!r} has {found} samples in the runs, not {wanted}",
                remedy="Finish the runs, or set samples.",
            )


def _candidates(runs: Sequence[RunData], problem: Problem) -> list[PredictedCandidate]:
    lines = [line for run in runs for line in run.lines if line.problem_id == problem.problem_id]
    return [candidate for line in lines for round_ in line.iterations for candidate in round_.samples]


def _solved(problem: Problem, candidates: Sequence[PredictedCandidate], scoring: Scoring) -> Solved:
    """Count the candidates that a majority of the judge's decided passes found correct.

    Without a judge, the rule's verdicts are the only pass. A candidate is undecided if the passes tie or none of them
    decided.
    """
    assert problem.answer is not None
    by_pass = [correctness_of(problem.answer, candidates, correct) for correct in scoring]
    shares = [mean([one[i] for one in by_pass]) for i in range(len(candidates))]
    return Solved(
        problem,
        least=sum(share is not None and share > 0.5 for share in shares),
        most=sum(share is None or share >= 0.5 for share in shares),
    )
