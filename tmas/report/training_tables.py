"""Tables of training runs: progress, samples that could not be scored, and time by part."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from statistics import fmean, median

from tmas.report.items import Bars, Cell, Note, Parts, Table
from tmas.report.training_runs import TrainingRun

ENDS = 5
"""The scores at first and at last are means over this many steps."""
COUNT = re.compile(r"(val-)?reward/all/\w+_masked")
REASON = re.compile(r"(?P<prefix>reward|val-reward)/all/(?P<component>\w+)_masked/(?P<reason>.+)")
PHASES = {"reward": "training", "val-reward": "validation"}
OUTSIDE_STEP = ("testing", "dump_rollout_generations")
"""Parts that verl runs after the timing of a step has ended. All other timed parts belong to the step."""
MAX_PARTS = 7
"""Maximum number of parts that a bar shows separately. The others are combined into one."""
NONE = "–"


def summary(runs: Sequence[TrainingRun]) -> Table:
    """Return a table of each run's progress."""
    return Table(
        title="Training runs",
        columns=["Run", "Steps", "Score at first", "at last", "Accuracy in validation at first", "at last", "at best",
                 "Seconds a step", "Hours"],
        rows=[[run.name, f"{len(run.trained):,}", *_scores(run), *_accuracies(run), *_time(run)] for run in runs],
        note=f"Score: of all rows in training, mean over the first and the last {ENDS} steps. Seconds: the median. "
        "Hours: of all steps and validations shown.",
    )  # fmt: skip


def _scores(run: TrainingRun) -> list[str]:
    values = list(run.values("reward/all/score").values())
    return [f"{fmean(end):.3f}" if end else NONE for end in (values[:ENDS], values[-ENDS:])]


def _accuracies(run: TrainingRun) -> list[str | Cell]:
    values = run.values("val-reward/all/acc")
    if not values:
        return [NONE] * 3
    steps = list(values)
    return [Cell(f"{values[s]:.1%}", f"step {s}") for s in (steps[0], steps[-1], max(steps, key=values.__getitem__))]


def _time(run: TrainingRun) -> list[str]:
    steps, tests = (list(run.values(f"timing_s/{name}").values()) for name in ("step", "testing"))
    return [f"{median(steps):.1f}", f"{(sum(steps) + sum(tests)) / 3600:.2f}"] if steps else [NONE, NONE]


def non_finite_values(runs: Sequence[TrainingRun]) -> Iterator[Table]:
    """Yield a table of the logged values that are NaN or infinite, if any.

    A gradient that is NaN or infinite usually ends a training. ``val-aux/`` is not shown.
    """
    rows = [
        [run.name, name, f"{len(steps):,}", str(steps[0]), str(steps[-1])]
        for run in runs
        for name, steps in run.non_finite_steps.items()
        if not name.startswith("val-aux/")
    ]
    if rows:
        columns = ["Run", "Value", "Times", "first at step", "last at step"]
        yield Table("Values that were NaN or infinite", columns, rows, text_columns=2)


def masked(runs: Sequence[TrainingRun]) -> Iterator[Table | Note]:
    """Yield a table of masked samples by reason, over all steps. Yields nothing if masked samples were not counted."""
    rows = [row for run in runs for row in _masked(run)]
    if rows:
        columns = ["Run", "Phase", "Component", "Reason", "Samples", "of all"]
        yield Table("Samples with a masked component", columns, rows, text_columns=4)
    elif any(COUNT.fullmatch(name) for run in runs for name in run.names):
        yield Note("Nothing was masked: every judge and checker gave a verdict on every sample.")


def _masked(run: TrainingRun) -> Iterator[list[str]]:
    for match in filter(None, map(REASON.fullmatch, sorted(run.names))):
        count = sum(run.values(match[0]).values())
        samples = sum(run.values(f"{match['prefix']}/all/samples").values())
        share = f"{count / samples:.2%}" if samples else NONE
        yield [run.name, PHASES[match["prefix"]], match["component"], match["reason"], f"{count:,.0f}", share]


def parts(runs: Sequence[TrainingRun]) -> list[str]:
    """Return the parts that verl timed, including validation, in the order of a step."""
    names = dict.fromkeys(name for run in runs for name in run.names if name.startswith("timing_s/"))
    return [part for name in names if (part := name.removeprefix("timing_s/")) != "step"]


def seconds_by_part(runs: Sequence[TrainingRun]) -> Iterator[Bars]:
    """Yield bars of each timed run's mean step, plus the parts outside the step. Small parts are combined."""
    timed = [run for run in runs if run.values("timing_s/step")]
    if not timed:
        return
    means = {part: [_mean(run, part) for run in timed] for part in ("step", *parts(runs))}
    widest = sorted(parts(runs), key=lambda part: sum(means[part]))[-MAX_PARTS:]
    series = [Parts(part, color, means[part]) for color, part in enumerate(p for p in parts(runs) if p in widest)]
    wholes = map(sum, zip(means["step"], *(means[part] for part in OUTSIDE_STEP if part in means), strict=True))
    rest = [max(0.0, whole - sum(one.values[i] for one in series)) for i, whole in enumerate(wholes)]
    names = [run.name for run in timed]
    yield Bars("Mean seconds a step, by part", "seconds", names, [*series, Parts("other", MAX_PARTS, rest)])


def _mean(run: TrainingRun, part: str) -> float:
    """Return the mean over all steps, including those without the part (a validation, a checkpoint)."""
    return sum(run.values(f"timing_s/{part}").values()) / len(run.values("timing_s/step"))
