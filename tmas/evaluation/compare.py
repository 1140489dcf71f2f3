"""Runs side by side: seeds of one method pooled, methods at equal compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tmas.evaluation.compute import Evaluation, Measure, accuracy_at, difference_at, tokens_after
from tmas.evaluation.estimators import BootstrapSettings

METRICS = ("selected", "pass_at_1", "vote", "best_of")


@dataclass(frozen=True)
class Group:
    """Runs of one method on one benchmark that differ only by seed."""

    label: str
    runs: tuple[Path, ...]
    evaluations: tuple[Evaluation, ...]

    @property
    def depth(self) -> int:
        """Iterations of the longest run."""
        return max(len(evaluation["iterations"]) for evaluation in self.evaluations)

    @property
    def seeds(self) -> list[int]:
        return [evaluation["run"]["seed"] for evaluation in self.evaluations]

    @property
    def problems(self) -> set[str]:
        """The ids of all problems with a gold answer."""
        return {problem["problem_id"] for evaluation in self.evaluations for problem in evaluation["by_problem"]}

    def only(self, problems: set[str]) -> Group:
        """The group as it would be without the other problems, as far as ``by_problem`` goes."""
        return replace(
            self,
            evaluations=tuple(
                {**e, "by_problem": [p for p in e["by_problem"] if p["problem_id"] in problems]}
                for e in self.evaluations
            ),
        )

    @property
    def tokens(self) -> float:
        """What a problem cost, all in: a mean."""
        return tokens_after(self.evaluations, self.depth - 1)

    @property
    def most(self) -> int:
        """Tokens of the problem that took the most."""
        ends = [problem["iterations"][-1] for evaluation in self.evaluations for problem in evaluation["by_problem"]]
        return max(map(Measure().spent, ends))


def group_runs(runs: Sequence[Path], evaluations: Sequence[Evaluation]) -> list[Group]:
    """Groups in order of first sight. A label is the method, with a run's name where the method is there twice."""
    members: dict[str, list[tuple[Path, Evaluation]]] = {}
    for run, evaluation in zip(runs, evaluations, strict=True):
        members.setdefault(evaluation["run"]["group"], []).append((run, evaluation))
    methods = Counter(found[0][1]["run"]["method"] for found in members.values())
    return [
        Group(
            label=method if methods[method := found[0][1]["run"]["method"]] == 1 else f"{method} ({found[0][0].name})",
            runs=tuple(run for run, _ in found),
            evaluations=tuple(evaluation for _, evaluation in found),
        )
        for found in members.values()
    ]


def scoring_of(evaluations: Sequence[Evaluation]) -> str:
    """The judge's where all have it, otherwise the rule's."""
    return "judge" if all(evaluation["settings"]["judge"] for evaluation in evaluations) else "rule"


def comparison(groups: Sequence[Group], budgets: Sequence[int], settings: BootstrapSettings) -> dict[str, Any] | None:
    """Every group at each of ``budgets``: tokens a problem; none given: quarters of the cheapest's costliest problem.

    Over the problems that all groups have; None where they have none in common. ``difference`` is to the first group,
    paired by problem.
    """
    common = set.intersection(*(group.problems for group in groups))
    if not common:
        return None
    kept = [group.only(common) for group in groups]
    scoring = scoring_of([evaluation for group in groups for evaluation in group.evaluations])
    least = min(group.most for group in kept)
    chosen = list(budgets) or [round(least * share) for share in (0.25, 0.5, 0.75, 1.0)]
    return {
        "scoring": scoring,
        "problems": len(common),
        "budgets": chosen,
        "groups": [_group(group, kept[0], chosen, scoring, settings) for group in kept],
    }


def _group(
    group: Group, first: Group, budgets: Sequence[int], scoring: str, settings: BootstrapSettings
) -> Mapping[str, Any]:
    measures = {metric: Measure(metric, scoring) for metric in METRICS}
    return {
        "label": group.label,
        "runs": [str(run) for run in group.runs],
        "seeds": group.seeds,
        "tokens_per_problem": group.tokens,
        "accuracy": {
            name: [accuracy_at(group.evaluations, tokens, measure, settings) for tokens in budgets]
            for name, measure in measures.items()
        },
        "difference": {
            name: [difference_at(group.evaluations, first.evaluations, t, measure, settings) for t in budgets]
            for name, measure in measures.items()
        },
    }
