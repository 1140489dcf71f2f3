"""Compares runs: pools the seeds of one method, and compares methods at equal compute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Literal

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
MONEY = Measure(unit="money")
Unit = Literal["tokens", "money"]
"""The unit of the budgets at which methods are compared."""


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
    def currency(self) -> str | None:
        """Currency of the costs. None if the cost of a problem is not known, as after a reply without token counts."""
        if any(problem.cost is None for evaluation in self.evaluations for problem in evaluation.by_problem):
            return None
        costs = [evaluation.cost for evaluation in self.evaluations]
        currencies = {cost.currency if cost and cost.total is not None else None for cost in costs}
        return currencies.pop() if len(currencies) == 1 else None

    @property
    def cost(self) -> float | None:
        """Mean cost per problem in :attr:`currency`. None if it is not known."""
        return None if self.currency is None else tokens_in_all(self.evaluations, MONEY)

    def largest_spent(self, measure: Measure) -> float:
        """What the most expensive problem took up to the end of its last iteration, in the unit of ``measure``."""
        ends = [problem.iterations[-1] for evaluation in self.evaluations for problem in evaluation.by_problem]
        return max(map(measure.spent, ends))

    def first_spent(self, measure: Measure) -> float:
        """Smallest budget at which every problem has a value, in the unit of ``measure``.

        It covers the first iteration of each problem, or, for a method with one round, its first sample.
        """
        return max(
            min(measure.spent(problem.iterations[0]), measure.spent(problem) / (samples or 1))
            for evaluation in self.evaluations
            for problem in evaluation.by_problem
            for samples in [max((len(s) for by in problem.by_samples.values() for s in by.values()), default=0)]
        )


def group_runs(runs: Sequence[Path], evaluations: Sequence[Evaluation], baseline: str | None = None) -> list[Group]:
    """Group runs that differ only by seed, named by :func:`~tmas.evaluation.naming.group_names`.

    A name is unique on its benchmark. The groups are in the order in which they first appear in ``runs``, except that
    the ``baseline`` is the first group of each benchmark that has it. It is a method, the name of a group, or a run
    directory of the group. Raises ``UserError`` if no group is the baseline.
    """
    found = group_members(runs, [evaluation.run for evaluation in evaluations], baseline)
    return [
        Group(label, tuple(runs[i] for i in members), tuple(evaluations[i] for i in members))
        for label, members in found
    ]


def group_members(
    runs: Sequence[Path], described: Sequence[EvaluatedRun], baseline: str | None = None
) -> list[tuple[str, list[int]]]:
    """Return the label and the members of each group; members are indices of ``runs``. See :func:`group_runs`."""
    members: dict[str, list[int]] = {}
    for i, run in enumerate(described):
        members.setdefault(run.group, []).append(i)
    groups = _named(list(members.values()), described, distinct_names(runs))
    if baseline is None:
        return groups
    chosen = [group for group in groups if _is_named(baseline, group[0], [runs[i] for i in group[1]])]
    chosen = chosen or [group for group in groups if described[group[1][0]].method == baseline]
    benchmarks = [described[indices[0]].benchmark for _, indices in chosen]
    if not chosen or len(set(benchmarks)) < len(benchmarks):
        what = "no method has this name" if not chosen else "several methods have this name"
        labels = dict.fromkeys(label for label, _ in groups)
        raise UserError(f"{what}: {baseline}", where="baseline", remedy=f"Give one of: {', '.join(labels)}.")
    return [*chosen, *(group for group in groups if group not in chosen)]


def _named(
    groups: Sequence[list[int]], described: Sequence[EvaluatedRun], names: Sequence[str]
) -> list[tuple[str, list[int]]]:
    """Name the groups of each benchmark. Returns them in their order."""
    labels: dict[int, str] = {}
    firsts = [group[0] for group in groups]
    for benchmark in dict.fromkeys(described[i].benchmark for i in firsts):
        own = [i for i in firsts if described[i].benchmark == benchmark]
        runs = [described[i] for i in own]
        found = group_names([run.method for run in runs], [run.settings for run in runs], [names[i] for i in own])
        labels |= dict(zip(own, found, strict=True))
    return [(labels[group[0]], group) for group in groups]


def _is_named(baseline: str, label: str, runs: Sequence[Path]) -> bool:
    return baseline == label or Path(baseline).resolve() in {run.resolve() for run in runs}


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return the last parts of each path: the smallest number of parts that makes different paths distinct."""
    parts = {path.resolve().parts for path in paths}
    depth = next(n for n in range(1, 1 + max(map(len, parts), default=1)) if len({p[-n:] for p in parts}) == len(parts))
    return ["/".join(path.resolve().parts[-depth:]) for path in paths]


def by_benchmark(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Collect the groups of each benchmark. Only groups of the same benchmark can be compared."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.benchmark, []).append(group)
    return found


def scoring_of(evaluations: Sequence[Evaluation]) -> str:
    """Return ``judge`` if every evaluation used a judge, otherwise ``rule``."""
    return "judge" if all(evaluation.settings.judge for evaluation in evaluations) else "rule"


def comparison(
    groups: Sequence[Group], budgets: Sequence[float], settings: BootstrapSettings, unit: Unit = "tokens"
) -> MethodComparison | None:
    """Compare the groups of one benchmark: after the last iteration, and at each of ``budgets``.

    Only problems that all groups have are compared. Returns None if there is no such problem. Differences are those to
    the first group, paired by problem. ``budgets``: tokens per problem, prompt and completion, or money per problem; if
    it is empty, those of :func:`default_budgets`. A comparison in money needs :func:`shared_currency`.
    """
    common = set.intersection(*(group.problems for group in groups))
    if not common:
        return None
    kept = [group.only(common) for group in groups]
    scoring = scoring_of([evaluation for group in groups for evaluation in group.evaluations])
    chosen = list(budgets) or default_budgets(kept, unit)
    return MethodComparison(
        benchmark=groups[0].benchmark,
        scoring=scoring,
        problems=len(common),
        unit=unit,
        currency=shared_currency(groups),
        budgets=tuple(chosen),
        groups=tuple(_group(group, kept[0], chosen, scoring, settings, unit) for group in kept),
    )


def shared_currency(groups: Sequence[Group]) -> str | None:
    """Return the currency of the costs of all groups. None if a cost is not known, or currencies differ."""
    currencies = {group.currency for group in groups}
    return currencies.pop() if len(currencies) == 1 else None


def default_budgets(groups: Sequence[Group], unit: Unit = "tokens") -> list[float]:
    """Return up to four budgets at which every method has a value, in tokens or money per problem.

    They range from the largest :meth:`Group.first_spent` to the smallest :meth:`Group.largest_spent`, in equal steps,
    and are rounded up to two digits. If the first iteration of a method takes more than another method in total, that
    first iteration is the only budget.
    """
    measure = Measure(unit=unit)
    low = max(group.first_spent(measure) for group in groups)
    high = max(low, min(group.largest_spent(measure) for group in groups))
    rounded = rounded_up if unit == "tokens" else rounded_up_money
    return sorted({rounded(low + (high - low) * step / 3) for step in range(4)})


def rounded_up(tokens: float) -> int:
    """Round up to two significant digits and to a whole number."""
    return math.ceil(rounded_up_money(tokens))


def rounded_up_money(amount: float) -> float:
    """Round up to two significant digits, also below 1."""
    exact = Decimal(str(amount))  # 0.56 * 100 is more than 56 in binary
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 1), rounding=ROUND_CEILING))


def final_results(
    group: Group, first: Group, scoring: str, settings: BootstrapSettings
) -> tuple[dict[str, Estimate], dict[str, PairedDifference]]:
    """Estimate each metric after the last iteration, and its difference to ``first``.

    The methods may end after different numbers of iterations and tokens. The differences are empty if ``group`` is
    ``first``; a metric is missing in them if one of the two groups does not have it.
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
    group: Group, first: Group, budgets: Sequence[float], scoring: str, settings: BootstrapSettings, unit: Unit
) -> ComparedGroup:
    measures = {metric: Measure(metric, scoring, unit) for metric in METRICS}
    final, final_difference = final_results(group, first, scoring, settings)
    return ComparedGroup(
        label=group.label,
        runs=tuple(str(run) for run in group.runs),
        seeds=tuple(group.seeds),
        tokens_per_problem=group.tokens,
        cost_per_problem=group.cost,
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
