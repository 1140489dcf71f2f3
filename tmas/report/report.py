"""``tmas report``: creates one HTML file, and figures for papers, from run directories."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from tmas.errors import UserError
from tmas.evaluation.runs import matching_runs
from tmas.report.about import about_section
from tmas.report.boundary import boundary_section
from tmas.report.costs import costs_section
from tmas.report.figures import draw_all
from tmas.report.inspect_logs import write_logs
from tmas.report.items import Section
from tmas.report.memory import memory_section
from tmas.report.page import write_page
from tmas.report.problems import Browser, TextBudget
from tmas.report.results import results_section
from tmas.report.runs import ReportedRuns, read_runs
from tmas.report.training import training_section
from tmas.report.training_runs import TrainingRun, read_training
from tmas.report.verifier import verifier_section
from tmas.settings import Paths

MEGABYTE = 10**6
NAMED = 3
"""Maximum number of methods and training runs that the page's title names."""


class ReportSettings(BaseModel):
    """All settings of ``tmas report``."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    runs: Paths = Field(
        default=(),
        description="Run directories of tmas solve. * stands for any characters. Runs that differ only in the seed are"
        " pooled.",
    )
    baseline: str | None = Field(
        default=None,
        description="Method that all others are compared with: a method, its name in the tables, or one of its run"
        " directories. null: the method of the first run.",
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
        description="Maximum size of prompts, replies and reasoning in the page, in megabytes; everything else is"
        " always included.",
    )
    bank_items: int = Field(
        default=20,
        ge=0,
        description="Number of bank items that the tab 'Memory and modes' lists for each run, starting with those shown"
        " to the most candidates. A problem in the tab 'Problems' lists all its items.",
    )
    smooth: int = Field(
        default=5,
        ge=1,
        description="Number of training steps that each point of a smoothed curve averages; must be odd. 1: no"
        " smoothing.",
    )
    figures: Path | None = Field(
        default=None, description="Folder for the charts as PNG and SVG files. null: none are written."
    )
    inspect: Path | None = Field(
        default=None,
        description="Folder for .eval logs, one per run of tmas solve. The command `inspect view` opens them. null:"
        " none are written.",
    )

    @field_validator("runs", "training")
    @classmethod
    def _are_different(cls, runs: tuple[Path, ...], info: ValidationInfo) -> tuple[Path, ...]:
        runs = matching_runs(runs) if info.field_name == "runs" else runs
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
    """Write the page and, if requested, figures and logs. Returns the page. ``say`` is called with progress messages.

    Raises ``UserError`` if a directory is not a run or was resumed after its evaluation, or if no run has a requested
    problem. Also raises it if a line of a training run cannot be read, or if a package is missing that a setting needs.
    """
    if settings.inspect and find_spec("inspect_ai") is None:
        raise UserError("logs for inspect need inspect_ai", where="inspect", remedy="Run pip install 'tmas[inspect]'.")
    if settings.page.is_dir():
        remedy = f"Give a file, such as output={settings.page / 'report.html'}."
        raise UserError("is a folder", where=f"output={settings.page}", remedy=remedy)
    runs = read_runs(settings.runs, say, settings.baseline)
    trainings = read_training(settings.training, first_color=len(runs.groups))
    sections = _sections(runs, trainings, settings)
    browsers = [Browser(run, number, runs.scoring, settings.problems) for number, run in enumerate(runs.runs)]
    budget = TextBudget(round(settings.max_mb * MEGABYTE), _check_and_count_problems(runs, settings.problems))
    settings.page.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile("w+", encoding="ascii", dir=settings.page.parent) as blocks:
        for browser in browsers:
            for block_id, lines in browser.blocks(budget):
                _write_block(blocks, block_id, lines)
        blocks.seek(0)
        problems = [Section("problems", "Problems")] if browsers else []
        data = _data([*sections, *problems, about_section(runs, trainings, budget)], browsers)
        write_page(
            settings.page,
            title([*(g.label for g in runs.groups), *(run.name for run in trainings)]),
            data,
            blocks,
        )
    if settings.figures:
        draw_all(sections, settings.figures)
    if settings.inspect:
        write_logs(runs.runs, runs.scoring, settings.inspect, settings.problems)
    return settings.page


def title(names: Sequence[str]) -> str:
    """Return the page's title. It names the first methods and training runs."""
    distinct = list(dict.fromkeys(names))  # a method may be run on several benchmarks
    shown, more = distinct[:NAMED], len(distinct) - NAMED
    return f"TMAS report: {', '.join(shown)}{f' and {more} more' if more > 0 else ''}"


def _sections(runs: ReportedRuns, trainings: Sequence[TrainingRun], settings: ReportSettings) -> list[Section]:
    of_runs = run_sections(runs, settings.bank_items) if runs.runs else []
    return [section for section in (*of_runs, training_section(trainings, settings.smooth)) if section]


def run_sections(runs: ReportedRuns, bank_items: int = 20) -> list[Section]:
    """Return the tabs about runs of ``tmas solve``. ``bank_items``: see :class:`ReportSettings`."""
    found = (
        results_section(runs),
        costs_section(runs.runs),
        verifier_section(runs),
        boundary_section(runs),
        memory_section(runs, bank_items),
    )
    return [section for section in found if section]


def _write_block(blocks: IO[str], block_id: str, lines: Sequence[str]) -> None:
    blocks.write(f'<script type="text/plain" id="{block_id}">\n')
    blocks.writelines(f"{line}\n" for line in lines)
    blocks.write("</script>\n")


def _data(sections: Sequence[Section], browsers: Sequence[Browser]) -> dict[str, Any]:
    entries = [{"name": b.run.name, "path": str(b.run.path), "problems": b.entries} for b in browsers]
    return {"sections": sections, "runs": entries}


def _check_and_count_problems(runs: ReportedRuns, wanted: Sequence[str] | None) -> int:
    """Return the number of problems that can be opened, over all runs.

    Raises ``UserError`` if no run has one of the ``wanted`` problems.
    """
    present = [line.problem_id for run in runs.runs for line in run.predictions()]
    if missing := set(wanted or ()) - set(present):
        raise UserError(f"no run has these problems: {', '.join(sorted(missing))}", where="problems")
    return sum(wanted is None or problem in wanted for problem in present)
