"""``tmas filter``: measures how often the policy solves each problem without memory, and filters by this pass rate.

The policy samples its solutions in a run of the method majority vote, in ``output_dir/run``. Resume, budgets and
failures work as in ``tmas solve``. GRPO learns nothing from a problem that is always or never solved, because all
samples of its group get the same reward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from tmas.data_prep.pool import Log, WorkspaceFolder, read_problems
from tmas.data_prep.reports import FilterReport
from tmas.files import write_json, write_lines
from tmas.records.run_files import Prediction
from tmas.run.replay import RecordedRun
from tmas.run.session import keyed_hash
from tmas.settings import RunSettings
from tmas.training.contexts import TrainingProblem

Runner = Callable[[Sequence[TrainingProblem], RunSettings, Path], None]
"""Solves problems with the method of the settings and writes the run directory, as :func:`tmas.api.run` does."""


class FilterSettings(RunSettings):
    """All settings of ``tmas filter``. The number of samples per problem is ``method.n_candidates``."""

    workspace: WorkspaceFolder = None
    problems: Path = Field(description="The collected problems, as tmas collect writes them.")
    output_dir: Path = Field(
        description="Folder for problems.jsonl, removed.jsonl, report.json and run/, the run directory of the samples."
    )
    max_problems: int | None = Field(
        default=None, ge=1, description="Number of problems, drawn by the seed; raise it to add more. null: all."
    )
    min_pass_rate: float = Field(default=0.125, ge=0, le=1, description="Lowest pass rate of a problem that is kept.")
    max_pass_rate: float = Field(default=0.875, ge=0, le=1, description="Highest pass rate of a problem that is kept.")
    on_unjudged: Literal["remove", "keep"] = Field(
        default="remove",
        description="What to do with a problem none of whose samples could be judged, such as math_grm problems.",
    )

    @model_validator(mode="after")
    def _check_settings(self) -> Self:
        if self.problems.resolve() == (self.output_dir / "problems.jsonl").resolve():
            raise ValueError("output_dir: the kept problems would overwrite the input file. Choose another folder")
        if self.method.name != "majority_vote":
            raise ValueError(f"method: pass rates come from majority_vote, not from {self.method.name}")
        if self.min_pass_rate > self.max_pass_rate:
            raise ValueError("min_pass_rate is above max_pass_rate")
        return self


def filter_by_difficulty(settings: FilterSettings, run: Runner, log: Log) -> None:
    """Measure the pass rates and filter by them. Writes ``problems.jsonl``, ``removed.jsonl`` and ``report.json``."""
    problems = draw_problems(read_problems(settings.problems, "tmas collect"), settings.max_problems, settings.seed)
    directory = settings.output_dir / "run"
    run(problems, settings, directory)
    rates = pass_rates(RecordedRun(directory))
    reasons = {p.problem_id: _reason(rates.get(p.problem_id), settings) for p in problems}
    kept = [_with_rate(p, rates) for p in problems if reasons[p.problem_id] is None]
    write_lines(settings.output_dir / "problems.jsonl", kept)
    removed = [_with_rate(p, rates).model_dump() | {"reason": reasons[p.problem_id]} for p in problems]
    write_lines(settings.output_dir / "removed.jsonl", [line for line in removed if line["reason"]])
    report = FilterReport(
        problems=len(problems),
        kept=len(kept),
        removed=dict(Counter(reason for reason in reasons.values() if reason)),
        window=(settings.min_pass_rate, settings.max_pass_rate),
        samples=settings.method.model_dump()["n_candidates"],
        policy=settings.model.for_role("solution").name,
        histogram=histogram(rates.get(problem.problem_id) for problem in problems),
    )
    write_json(settings.output_dir / "report.json", report)
    log(f"{len(kept):,} of {len(problems):,} problems kept; removed: {report.removed}")
    for rate, count in report.histogram.items():
        log(f"  pass rate {rate}: {count:,}")


def draw_problems(problems: Iterable[TrainingProblem], count: int | None, seed: int) -> list[TrainingProblem]:
    """Draw ``count`` problems with ``seed``, and return them in their original order. None: all problems.

    A larger count adds problems and keeps those of a smaller count.
    """
    found = list(problems)
    if count is None:
        return found
    chosen = sorted(found, key=lambda p: keyed_hash(seed, p.problem_id, "drawn"))[:count]
    names = {problem.problem_id for problem in chosen}
    return [problem for problem in found if problem.problem_id in names]


def pass_rates(run: RecordedRun) -> dict[str, float | None]:
    """The pass rate of each finished problem: the share of its samples that are right. None if it is unknown.

    A sample that was truncated or has no answer is wrong. A sample that was never made, or whose answer is undecided,
    does not count. The rate is unknown if no sample counts, or if some answers are undecided and no answer was decided.
    """
    return {problem_id: _pass_rate(run.prediction(problem_id)) for problem_id in run.problem_ids}


def _pass_rate(prediction: Prediction) -> float | None:
    made = [sample for iteration in prediction.iterations for sample in iteration.samples]
    judged = [sample.correct for sample in made if sample.correct != "undecided"]
    decided = any(judged) or len(judged) == len(made)
    return judged.count("equal") / len(judged) if judged and decided else None


def histogram(rates: Iterable[float | None]) -> dict[str, int]:
    """Number of problems by pass rate, in ascending order. ``unjudged`` comes last."""
    counts = Counter("unjudged" if rate is None else f"{rate:.3f}" for rate in rates)
    return dict(sorted(counts.items()))


def _reason(rate: float | None, settings: FilterSettings) -> str | None:
    if rate is None:
        return "unjudged" if settings.on_unjudged == "remove" else None
    if rate < settings.min_pass_rate:
        return "too hard"
    return "too easy" if rate > settings.max_pass_rate else None


def _with_rate(problem: TrainingProblem, rates: Mapping[str, float | None]) -> TrainingProblem:
    rate = rates.get(problem.problem_id)
    return problem if rate is None else problem.model_copy(update={"baseline_pass_rate": rate})
