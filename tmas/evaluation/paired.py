"""Compares groups of runs at equal iterations, paired by problem: a trained policy with the untrained one, or with the
control; or methods, as in the paper's Table 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tmas.evaluation.boundary import BoundarySettings, boundary
from tmas.evaluation.compare import Group, by_benchmark, group_runs, scoring_of
from tmas.evaluation.compute import Measure, paired_differences, values_after
from tmas.evaluation.estimators import BootstrapSettings, estimate
from tmas.evaluation.intervals import DIFFERENCE, sign_flip_p
from tmas.records.evaluation_files import DifferencesByIteration, Evaluation, PairedDifference

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


def difference_after(
    ours: Sequence[Evaluation],
    theirs: Sequence[Evaluation],
    iteration: int,
    measure: Measure,
    settings: BootstrapSettings,
) -> PairedDifference:
    """Subtract a metric of ``theirs`` from that of ``ours`` after an iteration, paired by problem.

    The value of a problem is its mean over the seeds of a side, so the sides may have different numbers of seeds. Only
    problems that occur on both sides are used; those that have no value on one side are left out. A problem that
    stopped early keeps the value of its last iteration.
    """
    left, right = (values_after(side, iteration, measure) for side in (ours, theirs))
    differences = paired_differences(left, right)
    known = [difference for difference in differences if difference is not None]
    return PairedDifference(
        iteration=iteration,
        difference=estimate(differences, settings, DIFFERENCE),
        p=sign_flip_p(known, settings.resamples, settings.seed),
    )


def with_group_analyses(
    runs: Sequence[Path],
    evaluations: Sequence[Evaluation],
    boundary_settings: BoundarySettings,
    settings: BootstrapSettings,
) -> list[Evaluation]:
    """Fill in ``differences`` and ``boundary``, which depend on the other runs that are evaluated together.

    On each benchmark, the first group is the one that all others are compared with.
    """
    by_run: dict[Path, Evaluation] = {}
    for groups in by_benchmark(group_runs(runs, evaluations)).values():
        for group in groups:
            differences = None if group is groups[0] else differences_by_iteration(group, groups[0], settings)
            scorings = group.evaluations[0].calibration
            found = {name: boundary(group.evaluations, name, boundary_settings, settings) for name in scorings}
            for run, evaluation in zip(group.runs, group.evaluations, strict=True):
                by_run[run] = evaluation.model_copy(update={"differences": differences, "boundary": found})
    return [by_run[run] for run in runs]
