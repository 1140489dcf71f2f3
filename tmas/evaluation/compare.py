"""Compares runs: pools the seeds of one method, and compares methods at equal compute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tmas.errors import UserError
from tmas.evaluation.compute import (
    Key,
    Measure,
    accuracy_after,
    accuracy_at,
    difference_after,
    difference_at,
    key,
    tokens_in_all,
)
from tmas.evaluation.estimators import BootstrapSettings
from tmas.evaluation.naming import group_names
from tmas.records.comparison_files import ComparedGroup, MethodComparison
from tmas.records.evaluation_files import Estimate, EvaluatedRun, Evaluation, PairedDifference

METRICS = ("selected", "pass_at_1", "vote", "best_of")


@dataclass(frozen=True)
class Group:
    """Runs of one method on one benchmark that differ only by seed."""

    label: str
    runs: tuple[Path, ...]
    evaluations: tuple[Evaluation, ...]

    @property
    def depth(self) -> int:
        """Number of iterations of the longest run."""
        return max(len(evaluation.iterations) for evaluation in self.evaluations)

    @property
    def seeds(self) -> list[int]:
        return [evaluation.run.seed for evaluation in self.evaluations]

    @property
    def benchmark(self) -> str:
        return self.evaluations[0].run.benchmark or "problems"

    @property
    def problems(self) -> set[Key]:
        """Keys of the problems with a gold answer in any of the runs."""
        return {key(problem) for evaluation in self.evaluations for problem in evaluation.by_problem}

    def only(self, problems: set[Key]) -> Group:
        """Return a copy whose ``by_problem`` holds only ``problems``. Other fields are unchanged."""
        return replace(
            self,
            evaluations=tuple(
                e.model_copy(update={"by_problem": tuple(p for p in e.by_problem if key(p) in problems)})
                for e in self.evaluations
            ),
        )

    @property
    def tokens(self) -> float:
        """Mean tokens per problem, prompt and completion."""
        return tokens_in_all(self.evaluations)

    @property
    def largest_cost(self) -> int:
        """Tokens of the most expensive problem up to the end of its last iteration, prompt and completion."""
        ends = [problem.iterations[-1] for evaluation in self.evaluations for problem in evaluation.by_problem]
        return max(map(Measure().spent, ends))

    @property
    def first_cost(self) -> int:
        """Smallest budget at which every problem has a value, in tokens, prompt and completion.

        It covers the first iteration of each problem, or, for a method with one round, its first sample.
        """
        return max(
            min(Measure().spent(problem.iterations[0]), math.ceil(Measure().spent(problem) / (samples or 1)))
            for evaluation in self.evaluations
            for problem in evaluation.by_problem
            for samples in [max((len(s) for by in problem.by_samples.values() for s in by.values()), default=0)]
        )


def group_runs(runs: Sequence[Path], evaluations: Sequence[Evaluation], baseline: str | None = None) -> list[Group]:
    """Group runs that differ only by seed, named by :func:`~tmas.evaluation.naming.group_names`.

    The groups are in the order in which they first appear in ``runs``, except that the ``baseline`` is the first group
    of each benchmark that has it. It is a method, the name of a group, or a run directory of the group. Raises
    ``UserError`` if no group is the baseline.
    """
    found = group_members(runs, [evaluation.run for evaluation in evaluations], baseline)
    return [
        Group(label, tuple(runs[i] for i in members), tuple(evaluations[i] for i in members))
        for label, members in found.items()
    ]


def group_members(
    runs: Sequence[Path], described: Sequence[EvaluatedRun], baseline: str | None = None
) -> dict[str, list[int]]:
    """Return the members of each group as indices of ``runs``, by the group's label. See :func:`group_runs`."""
    members: dict[str, list[int]] = {}
    for i, run in enumerate(described):
        members.setdefault(run.group, []).append(i)
    groups = list(members.values())
    firsts = [described[group[0]] for group in groups]
    settings = [run.settings and {"benchmark": run.benchmark, **run.settings} for run in firsts]
    names = distinct_names(runs)
    labels = group_names([run.method for run in firsts], settings, [names[group[0]] for group in groups])
    order = range(len(groups))
    if baseline is not None:
        chosen = [i for i in order if _is_named(baseline, labels[i], [runs[member] for member in groups[i]])]
        chosen = chosen or [i for i in order if firsts[i].method == baseline]
        places = [firsts[i].benchmark for i in chosen]
        if not chosen or len(set(places)) < len(places):
            what = "no method has this name" if not chosen else "several methods have this name"
            raise UserError(f"{what}: {baseline}", where="baseline", remedy=f"Give one of: {', '.join(labels)}.")
        order = sorted(order, key=lambda i: i not in chosen)
    return {labels[i]: groups[i] for i in order}


def _is_named(baseline: str, label: str, runs: Sequence[Path]) -> bool:
    return baseline == label or Path(baseline).resolve() in {run.resolve() for run in runs}


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return the last parts of each path: the smallest number of parts that makes different paths distinct."""
    parts = {path.resolve().parts for path in paths}
    depth = next(n for n in range(1, 1 + max(map(len, parts), default=1)) if len({p[-n:] for p in parts}) == len(parts))
    return ["/".join(path.resolve().parts[-depth:]) for path in paths]


def by_benchmark(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Sort groups by benchmark. Only groups of the same benchmark can be compared."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.benchmark, []).append(group)
    return found


def scoring_of(evaluations: Sequence[Evaluation]) -> str:
    """Return ``judge`` if every evaluation used a judge, otherwise ``rule``."""
    return "judge" if all(evaluation.settings.judge for evaluation in evaluations) else "rule"


def comparison(groups: Sequence[Group], budgets: Sequence[int], settings: BootstrapSettings) -> MethodComparison | None:
    """Compare the groups of one benchmark: at their ends, and at each of ``budgets``.

    Only problems that all groups have are compared. Returns None if there is no such problem. Differences are those to
    the first group, paired by problem. ``budgets``: tokens per problem, prompt and completion; if it is empty, those of
    :func:`default_budgets`.
    """
    common = set.intersection(*(group.problems for group in groups))
    if not common:
        return None
    kept = [group.only(common) for group in groups]
    scoring = scoring_of([evaluation for group in groups for evaluation in group.evaluations])
    chosen = list(budgets) or default_budgets(kept)
    return MethodComparison(
        benchmark=groups[0].benchmark,
        scoring=scoring,
        problems=len(common),
        budgets=tuple(chosen),
        groups=tuple(_group(group, kept[0], chosen, scoring, settings) for group in kept),
    )


def default_budgets(groups: Sequence[Group]) -> list[int]:
    """Return up to four budgets at which every method has a value, in tokens per problem.

    They range from the largest :attr:`Group.first_cost` to the smallest :attr:`Group.largest_cost`, in equal steps, and
    are rounded up to two digits. If the first iteration of a method takes more than another method in all, that first
    iteration is the only budget.
    """
    low = max(group.first_cost for group in groups)
    high = max(low, min(group.largest_cost for group in groups))
    return sorted({rounded_up(low + (high - low) * step / 3) for step in range(4)})


def rounded_up(tokens: float) -> int:
    """Round up to two significant digits."""
    unit = 10 ** max(0, math.floor(math.log10(max(tokens, 1))) - 1)
    return math.ceil(tokens / unit) * unit


def final_results(
    group: Group, first: Group, scoring: str, settings: BootstrapSettings
) -> tuple[dict[str, Estimate], dict[str, PairedDifference]]:
    """Estimate each metric after the last iteration, and its difference to ``first``.

    The methods may end after different numbers of iterations and tokens. The differences are empty if ``group`` is
    ``first``; a metric is missing in them if one of both does not have it.
    """
    last = max(group.depth, first.depth) - 1
    measures = {metric: Measure(metric, scoring) for metric in METRICS}
    final = {name: accuracy_after(group.evaluations, last, measure, settings) for name, measure in measures.items()}
    if group.runs == first.runs:
        return final, {}
    differences = {
        name: difference_after(group.evaluations, first.evaluations, last, measure, settings)
        for name, measure in measures.items()
    }
    return final, {name: found for name, found in differences.items() if found.difference.value is not None}


def _group(
    group: Group, first: Group, budgets: Sequence[int], scoring: str, settings: BootstrapSettings
) -> ComparedGroup:
    measures = {metric: Measure(metric, scoring) for metric in METRICS}
    final, final_difference = final_results(group, first, scoring, settings)
    return ComparedGroup(
        label=group.label,
        runs=tuple(str(run) for run in group.runs),
        seeds=tuple(group.seeds),
        tokens_per_problem=group.tokens,
        accuracy={
            name: tuple(accuracy_at(group.evaluations, tokens, measure, settings) for tokens in budgets)
            for name, measure in measures.items()
        },
        difference={
            name: tuple(difference_at(group.evaluations, first.evaluations, t, measure, settings) for t in budgets)
            for name, measure in measures.items()
        },
        final=final,
        final_difference=final_difference,
    )
