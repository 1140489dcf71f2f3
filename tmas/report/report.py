"""``tmas report``: creates one HTML file, and figures for papers, from run directories."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tmas.errors import UserError
from tmas.report.about import about
from tmas.report.boundary import boundary_section
from tmas.report.costs import costs
from tmas.report.figures import draw_all
from tmas.report.items import Section
from tmas.report.memory import memory
from tmas.report.page import write_page
from tmas.report.problems import Browser, TextBudget
from tmas.report.results import results
from tmas.report.runs import ReportedRuns, read_runs
from tmas.report.training import training
from tmas.report.training_runs import TrainingRun, read_training
from tmas.report.verifier import verifier
from tmas.settings import Paths

MEGABYTE = 10**6
NAMED = 3
"""Maximum number of methods and training runs that the page's title names."""


class ReportSettings(BaseModel):
    """All settings of ``tmas report``."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    runs: Paths = Field(
        default=(), description="Run directories of tmas solve. Runs that differ only in the seed are pooled."
    )
    training: Paths = Field(default=(), description="Run directories of tmas train.")
    output: Path | None = Field(
        default=None,
        description="The HTML file. null: report.html in the run directory, or in the current folder for several runs.",
    )
    problems: tuple[str, ...] | None = Field(
        default=None, description="Ids of the problems that can be opened in the page. null: all."
    )
    max_mb: float = Field(
        default=100.0,
        ge=0,
        description="Megabytes of the page for prompts, replies and reasoning; everything else is always included.",
    )
    smooth: int = Field(
        default=5,
        ge=1,
        description="Training steps that the line of a curve averages over, an odd number. 1: no smoothing.",
    )
    figures: Path | None = Field(
        default=None, description="Folder for the charts as PNG and SVG files. null: none are written."
    )

    @field_validator("runs", "training")
    @classmethod
    def _are_different(cls, runs: tuple[Path, ...]) -> tuple[Path, ...]:
        if len({run.resolve() for run in runs}) < len(runs):
            raise ValueError("a run directory is given twice")
        return runs

    @field_validator("smooth")
    @classmethod
    def _has_a_middle(cls, steps: int) -> int:
        if steps % 2 == 0:
            raise ValueError("has to be odd: as many steps before as after")
        return steps

    @model_validator(mode="after")
    def _have_something_to_show(self) -> Self:
        if not self.runs and not self.training:
            raise ValueError("give runs=[DIR,...], training=[DIR,...], or both")
        return self

    @property
    def page(self) -> Path:
        directories = (*self.runs, *self.training)
        return self.output or (directories[0] if len(directories) == 1 else Path()) / "report.html"


def make_report(settings: ReportSettings, say: Callable[[str], None] = lambda _: None) -> Path:
    """Write the page and, if requested, the figures. Returns the page. ``say`` is called with progress messages.

    Raises ``UserError`` if a directory is not a run, was resumed after its evaluation, or lacks a requested problem.
    Also raises it if a line of a training run cannot be read.
    """
    runs = read_runs(settings.runs, say)
    trainings = read_training(settings.training, first_color=len(runs.groups))
    sections = _sections(runs, trainings, settings.smooth)
    browsers = [Browser(run, number, runs.scoring, settings.problems) for number, run in enumerate(runs.runs)]
    budget = TextBudget(round(settings.max_mb * MEGABYTE), _count(runs, settings.problems))
    settings.page.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile("w+", encoding="ascii", dir=settings.page.parent) as blocks:
        for browser in browsers:
            for block_id, lines in browser.blocks(budget):
                _write_block(blocks, block_id, lines)
        blocks.seek(0)
        problems = [Section("problems", "Problems")] if browsers else []
        data = _data([*sections, *problems, about(runs, trainings, budget)], browsers)
        write_page(
            settings.page, title([*(g.label for g in runs.groups), *(run.name for run in trainings)]), data, blocks
        )
    if settings.figures:
        draw_all(sections, settings.figures)
    return settings.page


def title(names: Sequence[str]) -> str:
    """Return the page's title. It names the first methods and training runs."""
    shown, more = names[:NAMED], len(names) - NAMED
    return f"TMAS report: {', '.join(shown)}{f' and {more} more' if more > 0 else ''}"


def _sections(runs: ReportedRuns, trainings: Sequence[TrainingRun], smooth: int) -> list[Section]:
    of_runs = (
        [results(runs), costs(runs.runs), verifier(runs), boundary_section(runs), memory(runs)] if runs.runs else []
    )
    return [section for section in (*of_runs, training(trainings, smooth)) if section]


def _write_block(blocks: IO[str], block_id: str, lines: Sequence[str]) -> None:
    blocks.write(f'<script type="text/plain" id="{block_id}">\n')
    blocks.writelines(f"{line}\n" for line in lines)
    blocks.write("</script>\n")


def _data(sections: Sequence[Section], browsers: Sequence[Browser]) -> dict[str, Any]:
    entries = [{"name": b.run.name, "path": str(b.run.path), "problems": b.entries} for b in browsers]
    return {"sections": sections, "runs": entries}


def _count(runs: ReportedRuns, wanted: Sequence[str] | None) -> int:
    """Return the number of problems that can be opened, over all runs."""
    present = [line.problem_id for run in runs.runs for line in run.predictions()]
    if missing := set(wanted or ()) - set(present):
        raise UserError(f"no run holds the problem {', '.join(sorted(missing))}", where="problems")
    return sum(wanted is None or problem in wanted for problem in present)
