"""Compares runs: pools the seeds of one method, and compares methods at equal compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tmas.evaluation.compute import Key, Measure, accuracy_at, difference_at, key, tokens_in_all
from tmas.evaluation.estimators import BootstrapSettings
from tmas.records.comparison_files import ComparedGroup, MethodComparison
from tmas.records.evaluation_files import Evaluation

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


def group_runs(runs: Sequence[Path], evaluations: Sequence[Evaluation]) -> list[Group]:
    """Group runs that differ only by seed, in the order in which the groups first appear in ``runs``.

    The label of a group is its method. If several groups have the same method, the name of the first run is added.
    """
    names = dict(zip(runs, distinct_names(runs), strict=True))
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
    """Compare the groups of one benchmark at each of ``budgets``, in tokens per problem (prompt and completion).

    Only problems that all groups have are compared. Returns None if there is no such problem. ``difference`` is the
    difference to the first group, paired by problem. If ``budgets`` is empty, the budgets are 25, 50, 75 and 100 % of
    the lowest :attr:`Group.largest_cost`.
    """
    common = set.intersection(*(group.problems for group in groups))
    if not common:
        return None
    kept = [group.only(common) for group in groups]
    scoring = scoring_of([evaluation for group in groups for evaluation in group.evaluations])
    least = min(group.largest_cost for group in kept)
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
