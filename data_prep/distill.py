"""``tmas distill``: runs a large model, the teacher, with TMAS. ``tmas build`` makes rows and chats from this run.

The agents never see the gold answer. It is only compared with their answers afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from tmas.data_prep.cost import CostEstimate, Expected, estimate_lines, estimate_run
from tmas.data_prep.difficulty import Runner, draw_problems
from tmas.data_prep.pool import Log, WorkspaceFolder, read_problems
from tmas.methods.tmas import TMASSettings
from tmas.records import Problem, Usage
from tmas.records.prices import money
from tmas.run.metrics import metrics
from tmas.run.replay import RecordedRun
from tmas.settings import RunSettings


class DistillSettings(RunSettings):
    """All settings of ``tmas distill``. ``limits.tokens_per_run`` and ``limits.money_per_run`` are the hard budget."""

    workspace: WorkspaceFolder = None
    problems: Path = Field(description="The filtered problems, as tmas filter writes them.")
    output_dir: Path = Field(description="The teacher's run directory. Run the same command again to resume.")
    max_problems: int | None = Field(
        default=None, ge=1, description="Number of problems, drawn by the seed; raise it to add more. null: all."
    )
    expected: Expected = Field(
        default=Expected(), description="Expected lengths in tokens, until the first finished problems replace them."
    )
    dry_run: bool = Field(default=False, description="Print the estimate of tokens and money, and stop.")

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        if not isinstance(self.method, TMASSettings):
            raise ValueError(f"method: must be tmas, not {self.method.name}: tmas build needs the memory of a TMAS run")
        return self


def distill(settings: DistillSettings, run: Runner, log: Log) -> None:
    """Log the estimated cost, then run the teacher. The same call resumes an interrupted run in ``output_dir``."""
    problems = draw_problems(read_problems(settings.problems, "tmas filter"), settings.max_problems, settings.seed)
    estimated = estimate(problems, settings)
    for line in estimate_lines(estimated, settings, "distill"):
        log(line)
    if not settings.dry_run:
        run(problems, settings, settings.output_dir)
        log(summary_line(problems, RecordedRun(settings.output_dir)))


def summary_line(problems: Sequence[Problem], recorded: RecordedRun) -> str:
    """One line for the user: number of problems by the reason why they stopped, calls, tokens, and cost if known."""
    lines = [recorded.prediction(problem.problem_id) for problem in problems]
    totals = metrics(lines, prices=recorded.manifest.prices)
    used = sum(totals.usage.values(), Usage())
    stops = ", ".join(f"{count:,} {stop}" for stop, count in sorted(totals.stops.items()))
    cost = f", {money(totals.cost.total, totals.cost.currency)}" if totals.cost else ""
    return f"{len(lines):,} problems distilled ({stops}): {used.calls:,} calls, {used.total_tokens:,} tokens{cost}"


def estimate(problems: Sequence[Problem], settings: DistillSettings) -> CostEstimate:
    """Estimate for the problems that are not finished in ``output_dir``."""
    found = estimate_run(problems, settings, settings.output_dir, settings.expected)
    assert found is not None  # the method is TMAS
    return found
