"""Runs side by side: seeds of one method pooled, methods at equal compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tmas.evaluation.compute import Key, Measure, accuracy_at, difference_at, key, tokens_in_all
from tmas.evaluation.estimators import BootstrapSettings
from tmas.records.evaluation_files import ComparedGroup, Evaluation, MethodComparison

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
        return max(len(evaluation.iterations) for evaluation in self.evaluations)

    @property
    def seeds(self) -> list[int]:
        return [evaluation.run.seed for evaluation in self.evaluations]

    @property
    def benchmark(self) -> str:
        return self.evaluations[0].run.benchmark or "problems"

    @property
    def problems(self) -> set[Key]:
        """All problems with a gold answer."""
        return {key(problem) for evaluation in self.evaluations for problem in evaluation.by_problem}

    def only(self, problems: set[Key]) -> Group:
        """The group as it would be without the other problems, as far as ``by_problem`` goes."""
        return replace(
            self,
            evaluations=tuple(
                e.model_copy(update={"by_problem": tuple(p for p in e.by_problem if key(p) in problems)})
                for e in self.evaluations
            ),
        )

    @property
    def tokens(self) -> float:
        """What a problem cost, all in: a mean."""
        return tokens_in_all(self.evaluations)

    @property
    def most(self) -> int:
        """Tokens of the problem that took the most."""
        ends = [problem.iterations[-1] for evaluation in self.evaluations for problem in evaluation.by_problem]
        return max(map(Measure().spent, ends))


def group_runs(runs: Sequence[Path], evaluations: Sequence[Evaluation]) -> list[Group]:
    """Groups in order of first sight. A label is the method, with a run's name where the method is there twice."""
    names = dict(zip(runs, told_apart(runs), strict=True))
    members: dict[str, list[tuple[Path, Evaluation]]] = {}
    for run, evaluation in zip(runs, evaluations, strict=True):
        members.setdefault(evaluation.run.group, []).append((run, evaluation))
    methods = Counter(found[0][1].run.method for found in members.values())
    groups = []
    for found in members.values():
        (first, evaluation), *_ = found
        method = evaluation.run.method
        label = method if methods[method] == 1 else f"{method} ({names[first]})"
        groups.append(Group(label, tuple(run for run, _ in found), tuple(evaluation for _, evaluation in found)))
    return groups


def told_apart(paths: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as tell all of them apart."""
    parts = {path.resolve().parts for path in paths}
    depth = next(n for n in range(1, 1 + max(map(len, parts), default=1)) if len({p[-n:] for p in parts}) == len(parts))
    return ["/".join(path.resolve().parts[-depth:]) for path in paths]


def by_benchmark(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Only groups of one benchmark can be compared."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.benchmark, []).append(group)
    return found


def scoring_of(evaluations: Sequence[Evaluation]) -> str:
    """The judge's where all have it, otherwise the rule's."""
    return "judge" if all(evaluation.settings.judge for evaluation in evaluations) else "rule"


def comparison(groups: Sequence[Group], budgets: Sequence[int], settings: BootstrapSettings) -> MethodComparison | None:
    """Every group of a benchmark at each of ``budgets``, tokens a problem; none given: quarters of the cheapest's
    costliest problem.

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
    return MethodComparison(
        benchmark=groups[0].benchmark,
        scoring=scoring,
        problems=len(common),
        budgets=tuple(chosen),
        groups=tuple(_group(group, kept[0], chosen, scoring, settings) for group in kept),
    )


def _group(
    group: Group, first: Group, budgets: Sequence[int], scoring: str, settings: BootstrapSettings
) -> ComparedGroup:
    measures = {metric: Measure(metric, scoring) for metric in METRICS}
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
    )
