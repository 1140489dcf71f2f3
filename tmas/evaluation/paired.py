"""Compares groups of runs at equal iterations, paired by problem: a trained policy with the untrained one, or with the
control; or methods, as in the paper's Table 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tmas.evaluation.boundary import BoundarySettings, boundary
from tmas.evaluation.compare import Group, by_benchmark, group_runs, scoring_of
from tmas.evaluation.compute import Measure, difference_after
from tmas.evaluation.estimators import BootstrapSettings
from tmas.records.evaluation_files import DifferencesByIteration, Evaluation

PAIRED_METRICS = ("pass_at_1", "selected")


def differences_by_iteration(ours: Group, theirs: Group, settings: BootstrapSettings) -> DifferencesByIteration:
    """Subtract the metrics of ``theirs`` from those of ``ours`` after each iteration that both groups reached."""
    scoring = scoring_of([*ours.evaluations, *theirs.evaluations])
    return DifferencesByIteration(
        label=ours.label,
        seeds=tuple(ours.seeds),
        other=theirs.label,
        other_seeds=tuple(theirs.seeds),
        scoring=scoring,
        differences={
            metric: tuple(
                difference_after(ours.evaluations, theirs.evaluations, t, Measure(metric, scoring), settings)
                for t in range(min(ours.depth, theirs.depth))
            )
            for metric in PAIRED_METRICS
        },
    )


def with_group_analyses(
    runs: Sequence[Path],
    evaluations: Sequence[Evaluation],
    boundary_settings: BoundarySettings,
    settings: BootstrapSettings,
    baseline: str | None = None,
) -> list[Evaluation]:
    """Fill in ``differences`` and ``boundary``, which depend on the other runs that are evaluated together.

    On each benchmark, all groups are compared with the ``baseline`` (None: the first group).
    """
    by_run: dict[Path, Evaluation] = {}
    for groups in by_benchmark(group_runs(runs, evaluations, baseline)).values():
        for group in groups:
            differences = None if group is groups[0] else differences_by_iteration(group, groups[0], settings)
            scorings = group.evaluations[0].calibration
            found = {name: boundary(group.evaluations, name, boundary_settings, settings) for name in scorings}
            for run, evaluation in zip(group.runs, group.evaluations, strict=True):
                by_run[run] = evaluation.model_copy(update={"differences": differences, "boundary": found})
    return [by_run[run] for run in runs]
