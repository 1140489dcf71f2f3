"""``tmas filter``: how often the policy solves each problem without memory, and the window of rates that is kept.

The samples are a run of the project's own majority vote, in ``output_dir/run``: resume, budgets and failures are those
of ``tmas solve``. Problems that are always or never solved teach GRPO nothing: all samples of a group get one reward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from data_prep.pool import WorkspaceFolder, read_problems
from tmas.files import write_json, write_lines
from tmas.records.run_files import Prediction
from tmas.run.replay import RecordedRun
from tmas.run.session import keyed_hash
from tmas.settings import RunSettings
from tmas.training.contexts import TrainingProblem

Runner = Callable[[Sequence[TrainingProblem], RunSettings, Path], None]
"""Runs problems into a run directory and waits: :func:`tmas.api.run`, with whatever is shown meanwhile."""
Say = Callable[[str], None]


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
    def _can_work(self) -> Self:
        if self.problems.resolve() == (self.output_dir / "problems.jsonl").resolve():
            raise ValueError("output_dir: what is kept would be written over problems")
        if self.method.name != "majority_vote":
            raise ValueError(f"method: pass rates come from majority_vote, not from {self.method.name}")
        if self.min_pass_rate > self.max_pass_rate:
            raise ValueError("min_pass_rate is above max_pass_rate")
        return self


def filter_by_difficulty(settings: FilterSettings, run: Runner, say: Say) -> None:
    """Writes ``problems.jsonl``, ``removed.jsonl`` and ``report.json`` into ``output_dir``."""
    problems = drawn(read_problems(settings.problems), settings.max_problems, settings.seed)
    directory = settings.output_dir / "run"
    run(problems, settings, directory)
    rates = pass_rates(RecordedRun(directory))
    reasons = {p.problem_id: _reason(rates.get(p.problem_id), settings) for p in problems}
    kept = [_with_rate(p, rates) for p in problems if reasons[p.problem_id] is None]
    write_lines(settings.output_dir / "problems.jsonl", kept)
    removed = [_with_rate(p, rates).model_dump() | {"reason": reasons[p.problem_id]} for p in problems]
    write_lines(settings.output_dir / "removed.jsonl", [line for line in removed if line["reason"]])
    report = {
        "problems": len(problems),
        "kept": len(kept),
        "removed": dict(Counter(reason for reason in reasons.values() if reason)),
        "window": [settings.min_pass_rate, settings.max_pass_rate],
        "samples": settings.method.model_dump()["n_candidates"],
        "policy": settings.model.for_role("solution").name,
        "histogram": histogram(rates.get(problem.problem_id) for problem in problems),
    }
    write_json(settings.output_dir / "report.json", report)
    say(f"{len(kept):,} of {len(problems):,} problems kept; removed: {report['removed']}")
    for rate, count in report["histogram"].items():
        say(f"  pass rate {rate}: {count:,}")


def drawn(problems: Iterable[TrainingProblem], count: int | None, seed: int) -> list[TrainingProblem]:
    """``count`` of the problems, drawn by ``seed`` and kept in their order; None: all."""
    found = list(problems)
    if count is None:
        return found
    chosen = sorted(found, key=lambda p: keyed_hash(seed, p.problem_id, "drawn"))[:count]
    names = {problem.problem_id for problem in chosen}
    return [problem for problem in found if problem.problem_id in names]


def pass_rates(run: RecordedRun) -> dict[str, float | None]:
    """Of each finished problem, the share of its samples that are right; None where none could be judged.

    A sample that was truncated or gave no answer is not right; one that was never made, or whose answer cannot be
    decided, does not count. Where no answer could be decided, those without one do not tell the rate either.
    """
    return {problem_id: _pass_rate(run.prediction(problem_id)) for problem_id in run.problem_ids}


def _pass_rate(prediction: Prediction) -> float | None:
    made = [sample for iteration in prediction.iterations for sample in iteration.samples]
    judged = [sample.correct for sample in made if sample.correct != "undecided"]
    decided = any(judged) or len(judged) == len(made)
    return judged.count("equal") / len(judged) if judged and decided else None


def histogram(rates: Iterable[float | None]) -> dict[str, int]:
    """How many problems have which rate, in ascending order; ``unjudged`` last."""
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
