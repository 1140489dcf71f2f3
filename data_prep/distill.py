"""``tmas distill``: runs a large model, the teacher, with TMAS. ``tmas build`` makes rows and chats from this run.

The agents never see the gold answer. It is only compared with their answers afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from tmas.data_prep.cost import CostEstimate, Expected, Price, expected_estimate, measured_estimate
from tmas.data_prep.difficulty import Runner, draw_problems
from tmas.data_prep.pool import Log, WorkspaceFolder, read_problems
from tmas.llm.tokens import token_counter
from tmas.methods.tmas import TMASSettings
from tmas.records import Problem, Usage
from tmas.run.replay import RecordedRun
from tmas.settings import RunSettings


class DistillSettings(RunSettings):
    """All settings of ``tmas distill``. ``limits.tokens_per_run`` is the hard budget."""

    workspace: WorkspaceFolder = None
    problems: Path = Field(description="The filtered problems, as tmas filter writes them.")
    output_dir: Path = Field(description="The teacher's run directory. Run the same command again to resume.")
    max_problems: int | None = Field(
        default=None, ge=1, description="Number of problems, drawn by the seed; raise it to add more. null: all."
    )
    expected: Expected = Field(
        default=Expected(), description="Expected lengths in tokens, until the first finished problems replace them."
    )
    price: Price = Field(default=Price(), description="Prices for the estimate.")
    dry_run: bool = Field(default=False, description="Print the estimate of tokens and money, and stop.")

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        if not isinstance(self.method, TMASSettings):
            raise ValueError(f"method: must be tmas, not {self.method.name}: tmas build needs the memory of a TMAS run")
        return self


def distill(settings: DistillSettings, run: Runner, log: Log) -> None:
    """Log the estimated cost, then run the teacher. The same call resumes an interrupted run in ``output_dir``."""
    problems = draw_problems(read_problems(settings.problems), settings.max_problems, settings.seed)
    estimated = estimate(problems, settings)
    for line in estimate_lines(estimated, settings):
        log(line)
    if not settings.dry_run:
        run(problems, settings, settings.output_dir)
        log(summary_line(problems, RecordedRun(settings.output_dir)))


def summary_line(problems: Sequence[Problem], recorded: RecordedRun) -> str:
    """One line for the user: number of problems by the reason why they stopped, calls, and tokens."""
    lines = [recorded.prediction(problem.problem_id) for problem in problems]
    used = sum((line.total_usage for line in lines), Usage())
    stops = ", ".join(f"{count:,} {stop}" for stop, count in sorted(Counter(line.stop for line in lines).items()))
    return f"{len(lines):,} problems distilled ({stops}): {used.calls:,} calls, {used.total_tokens:,} tokens"


def estimate(problems: Sequence[Problem], settings: DistillSettings) -> CostEstimate:
    """Estimate for the problems that are not finished in ``output_dir``."""
    finished: list[Usage] = []
    if (settings.output_dir / "manifest.json").exists():
        recorded = RecordedRun(settings.output_dir)
        names = [p.problem_id for p in problems if p.problem_id in recorded.problem_ids]
        finished = [recorded.prediction(name).total_usage for name in names]
    if finished:
        return measured_estimate(len(problems) - len(finished), finished)
    assert isinstance(settings.method, TMASSettings)
    tokenizer = settings.model.tokenizer if settings.model.tokenizer != "auto" else "estimate"
    return expected_estimate(problems, settings.method, settings.expected, token_counter(tokenizer))


def estimate_lines(estimate: CostEstimate, settings: DistillSettings) -> list[str]:
    """The estimate and the budget as lines for the user."""
    money = estimate.money(settings.price)
    lines = [
        f"{estimate.problems:,} problems to distill, about {estimate.calls:,} calls: "
        f"{estimate.prompt_tokens:,} tokens in prompts, {estimate.completion_tokens:,} in replies",
        "measured on the problems already finished" if estimate.measured else "estimated from the expected lengths",
    ]
    if money is not None:
        lines.append(f"at the given prices: {money:,.2f}")
    budget = settings.limits.tokens_per_run
    lines.append(f"hard budget: {'none' if budget is None else f'{budget:,} tokens'}")
    if budget is not None and estimate.tokens > budget:
        lines.append("the budget is below the estimate: problems will stop early. Raise the budget to resume them")
    return lines
