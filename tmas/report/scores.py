"""Accuracies and costs of the groups in a report. The first tab shows them."""

from __future__ import annotations

from tmas.evaluation.compare import Group
from tmas.evaluation.compute import Measure, accuracy_after, accuracy_at, difference_at, tokens_after
from tmas.evaluation.paired import difference_after
from tmas.records.evaluation_files import Estimate, PairedDifference
from tmas.report.runs import ReportedRuns

METRICS = {"pass_at_1": "Pass@1", "selected": "Selected answer", "vote": "Majority vote", "best_of": "Best by grade"}


class Scores:
    """Scores of the groups with gold answers. ``metrics``: the metrics that all of them have, with their titles.

    ``tokens`` and ``costs``: for the runs of each group, the mean per problem up to the end of each iteration. Only
    groups whose prices are known have costs.
    """

    def __init__(self, runs: ReportedRuns) -> None:
        self.groups = [group for group in runs.groups if group.problems]
        self.colors = {group.runs: color for color, group in enumerate(runs.groups)}
        self.scoring, self.bootstrap = runs.scoring, runs.bootstrap
        self.metrics = METRICS | self._pass_at_largest_k()
        self.tokens = {g.runs: [tokens_after(g.evaluations, t) for t in range(g.depth)] for g in self.groups}
        money = Measure(unit="money")
        priced = [group for group in self.groups if _is_priced(group)]
        self.costs = {g.runs: [tokens_after(g.evaluations, t, money) for t in range(g.depth)] for g in priced}

    def accuracy(self, group: Group, metric: str, t: int) -> Estimate:
        """Return the accuracy after iteration ``t``, with seeds pooled."""
        return accuracy_after(group.evaluations, t, Measure(metric, self.scoring), self.bootstrap)

    def accuracy_at(self, group: Group, measure: Measure, budget: float) -> Estimate:
        """Return the accuracy with a budget for every problem, in the unit of ``measure``."""
        return accuracy_at(group.evaluations, budget, measure, self.bootstrap)

    def difference_at(self, group: Group, other: Group, measure: Measure, budget: float) -> Estimate:
        """Return the accuracy of ``group`` minus that of ``other`` with the same budget, paired by problem."""
        return difference_at(group.evaluations, other.evaluations, budget, measure, self.bootstrap)

    def difference_after(self, group: Group, other: Group, metric: str, t: int) -> PairedDifference:
        """Return the accuracy of ``group`` minus that of ``other`` after iteration ``t``, paired by problem."""
        measure = Measure(metric, self.scoring)
        return difference_after(group.evaluations, other.evaluations, t, measure, self.bootstrap)

    def _pass_at_largest_k(self) -> dict[str, str]:
        """Return pass@k for the largest k for which every group has enough candidates."""
        scored = [next(one for one in group.evaluations if one.by_problem) for group in self.groups]
        found = [set(one.iterations[0].scores[self.scoring]) for one in scored]
        common = set.intersection(*found) - METRICS.keys() if found else set()
        width = max((int(name.removeprefix("pass_at_")) for name in common), default=None)
        return {f"pass_at_{width}": f"Pass@{width}"} if width else {}


def _is_priced(group: Group) -> bool:
    """Whether the cost of every iteration is known."""
    problems = [problem for evaluation in group.evaluations for problem in evaluation.by_problem]
    return all(step.cost is not None for problem in problems for step in problem.iterations)
