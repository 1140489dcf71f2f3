"""Prints evaluations as tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tmas.evaluation.cells import budget_text, interval, new_table, points, print_fitting, share, short
from tmas.evaluation.compare import METRICS, MONEY, Group, scoring_of
from tmas.evaluation.compute import Measure, accuracy_after, tokens_after
from tmas.evaluation.estimators import BootstrapSettings, mean
from tmas.records import Usage
from tmas.records.comparison_files import ComparedGroup, GoldCheck, MethodComparison
from tmas.records.evaluation_files import BankFacts, Calibration, Estimate, EvaluatedIteration, Evaluation
from tmas.records.prices import money

MAX_FAILURES = 60
"""Maximum number of failures of a gold check that are printed."""
NAMES: dict[str, str] = {"pass_at_1": "Pass@1", "selected": "selected", "vote": "vote", "best_of": "best of N"}


def print_evaluation(console: Console, group: Group, settings: BootstrapSettings) -> None:
    """Print one method on one benchmark: figures by iteration, verdicts, verifier calibration and tokens by role."""
    scoring = scoring_of(group.evaluations)
    console.print(Text(_headline(group), style="bold"))
    if group.problems:
        title = f"Accuracy by iteration ({scoring}; {settings.confidence:.0%} intervals over problems)"
        print_fitting(console, title, lambda separator: _accuracy(group, scoring, settings, separator))
    title = "Candidates, memory and tokens by iteration (tokens per problem, summed over iterations)"
    print_fitting(console, title, lambda _: _facts(group))
    for evaluation in group.evaluations:
        seed = f"Seed {evaluation.run.seed}. " if len(group.evaluations) > 1 else ""
        console.print(Text(seed + _verdicts(evaluation)))
        if evaluation.calibration[scoring].pairs:
            console.print(Text(_calibration(evaluation.calibration[scoring])))
    print_fitting(console, "Tokens by role", lambda _: _usage(group))


def print_comparison(console: Console, comparison: MethodComparison, metrics: Sequence[str] = METRICS) -> None:
    """Print one table per metric: the methods at equal numbers of tokens, or equal costs, per problem.

    A method that does not have a metric is not in its table. A metric of fewer than two methods has no table.
    """
    first = comparison.groups[0]
    in_money = comparison.unit == "money"
    equal, unit = ("cost", comparison.currency) if in_money else ("compute", "tokens")
    for metric in metrics:
        groups = [group for group in comparison.groups if any(e.value is not None for e in group.accuracy[metric])]
        if len(groups) > 1:
            title = f"{NAMES[metric]} at equal {equal} ({comparison.scoring}; columns: {unit} per problem)"
            print_fitting(console, title, partial(_equal_compute, comparison, metric, groups))
    over = f"Over the {comparison.problems} problems of {comparison.benchmark} that all methods have"
    note = f"{over}; " + ("costs: per problem. " if in_money else "tokens: per problem, prompt and completion. ")
    most = "highest cost" if in_money else "most tokens"
    console.print(Text(f"{note}Gain: over {first.label} at the {most}, paired by problem."))


def _equal_compute(comparison: MethodComparison, metric: str, groups: Sequence[ComparedGroup], separator: str) -> Table:
    budgets = [budget_text(budget, comparison.unit) for budget in comparison.budgets]
    table = new_table(["method", "spent", *budgets, "gain"])
    for group in groups:
        cells = [interval(estimate, separator) for estimate in group.accuracy[metric]]
        is_first = group is comparison.groups[0]
        gain = "-" if is_first else points(group.difference[metric][-1], separator, digits=0)
        spent = short(group.tokens_per_problem) if comparison.unit == "tokens" else money(group.cost_per_problem)
        table.add_row(Text(group.label), spent, *cells, gain)
    return table


def print_gold_check(console: Console, found: GoldCheck) -> None:
    """Print the verdict counts of each check, then the failures."""
    table = new_table(["check", "answers", "equal", "different", "undecided"])
    for name, counts in found.checks.items():
        table.add_row(Text(name), *map(str, (counts.answers, counts.equal, counts.different, counts.undecided)))
    print_fitting(console, "Gold answers, put into a box, extracted and compared", lambda _: table)
    for failure in found.failures[:MAX_FAILURES]:
        told = f"{_line(failure.problem_id)}, {failure.name}: {failure.verdict}"
        reason = f" ({failure.reason})" if failure.reason else ""
        console.print(Text(f"{told}{reason}: {_line(failure.gold)} | {_line(failure.answer)}"), soft_wrap=True)
    if len(found.failures) > MAX_FAILURES:
        console.print(f"... and {len(found.failures) - MAX_FAILURES} more: output=FILE saves all of them")


def _line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _headline(group: Group) -> str:
    run = group.evaluations[0].run
    seeds = ", ".join(map(str, group.seeds))
    problems = [evaluation.problems for evaluation in group.evaluations]
    finished, without_gold = (max(getattr(found, name) for found in problems) for name in ("finished", "without_gold"))
    unfinished = sum(found.unfinished for found in problems)
    return (
        f"{group.label} on {run.benchmark or 'problems'}: {finished} problems, seed {seeds}"
        + (f", {unfinished} not finished" if unfinished else "")
        + (f", {without_gold} without a gold answer" if without_gold else "")
    )


def _accuracy(group: Group, scoring: str, settings: BootstrapSettings, separator: str) -> Table:
    # A seed that has finished no problem with a gold answer has no scores.
    scores = [step.scores[scoring] for e in group.evaluations if e.by_problem for step in e.iterations]
    metrics = [*NAMES, *[name for name in scores[0] if name not in NAMES][-1:]]  # includes pass@k with the largest k
    if not any(found["best_of"].problems for found in scores):
        metrics.remove("best_of")  # the method does not grade its candidates
    names = [NAMES[m] if m in NAMES else m.replace("pass_at_", "Pass@") for m in metrics]
    table = new_table(["it", *names, "undec.", "explore", "tokens", *([group.currency] if group.currency else [])])
    for t in range(group.depth):
        estimates = [accuracy_after(group.evaluations, t, Measure(m, scoring), settings) for m in metrics]
        steps = _steps(group, t)
        explore = mean([_explore_accuracy(step, scoring) for step in steps])
        undecided = sum(step.undecided[scoring] for step in steps)
        tokens = short(tokens_after(group.evaluations, t))
        cost = [money(tokens_after(group.evaluations, t, MONEY))] if group.currency else []
        cells = [interval(estimate, separator) for estimate in estimates]
        table.add_row(str(t), *cells, f"{undecided:g}", share(explore), tokens, *cost)
    return table


def _facts(group: Group) -> Table:
    """Build the table of figures that do not depend on correctness. Counts are summed over runs, means averaged."""
    steps = [step for evaluation in group.evaluations for step in evaluation.iterations]
    banks = [bank for bank in ("experience", "guideline") if any(step.banks[bank].size for step in steps)]
    columns = [name for bank in banks for name in (bank[0].upper(), "turn.")]
    table = new_table(["it", "run.", "cand.", "failed", "no ans.", "grade", "explore", *columns, "in", "out"])
    for t in range(group.depth):
        steps = _steps(group, t)
        spent = [step.cumulative for step in steps]
        tokens = ([one.prompt_tokens for one in spent], [one.completion_tokens for one in spent])
        table.add_row(
            str(t),
            str(sum(step.running for step in steps)),
            str(sum(step.candidates for step in steps)),
            str(sum(sum(step.failed.values()) for step in steps)),
            str(sum(step.no_answer for step in steps)),
            _number(mean([step.mean_grade for step in steps]), ".2f"),
            share(mean([step.explore_share for step in steps])),
            *(text for bank in banks for text in _bank([step.banks[bank] for step in steps])),
            *(short(mean(counted) or 0.0) for counted in tokens),
        )
    return table


def _steps(group: Group, t: int) -> list[EvaluatedIteration]:
    """Return iteration t of the runs that reached it."""
    return [evaluation.iterations[t] for evaluation in group.evaluations if len(evaluation.iterations) > t]


def _explore_accuracy(step: EvaluatedIteration, scoring: str) -> float | None:
    counts = step.modes[scoring].get("explore")
    return counts and counts.accuracy


def _bank(found: Sequence[BankFacts]) -> tuple[str, str]:
    size, turnover = mean([bank.size for bank in found]), mean([bank.turnover for bank in found])
    return _number(size, ".1f"), share(turnover)


def _verdicts(evaluation: Evaluation) -> str:
    rule, judge = evaluation.verdicts.rule, evaluation.verdicts.judge
    kinds = f"{rule.equal} equal, {rule.different} different, {rule.undecided} undecided"
    said = f"Distinct answers by rule: {kinds}."
    if judge is None or evaluation.agreement is None:
        return said
    failed = ", ".join(f"{count} {reason}" for reason, count in judge.failed.items()) or "none"
    passes, both = evaluation.agreement.passes, evaluation.agreement.rule_and_judge
    return (
        f"{said}\nJudge's verdicts: {judge.equivalent} equivalent, {judge.different} different, "
        f"failed: {failed}. It was not asked about {judge.not_asked} answers.\n"
        f"Agreement between passes {_percent(passes.pairwise)} (kappa {_number(passes.kappa, '.2f')}), "
        f"of rule and judge {_percent(both.agreement)}."
    )


def _calibration(found: Calibration) -> str:
    grades = ", ".join(
        f"{grade}: {_percent(of.accuracy)} of {of.count}" for grade, of in found.grades.items() if of.count
    )
    return (
        f"Verifier: false accepts {_rate(found.false_accept)}, false rejects {_rate(found.false_reject)}; "
        f"AUROC within problems {_auroc(found.within_problems)}, pooled over problems "
        f"{_number(found.auroc, '.2f')}; Brier {_number(found.brier, '.2f')}, "
        f"ECE {_number(found.ece, '.2f')}; right by single grade {grades or '-'}.{_ungraded(found)}"
    )


def _ungraded(found: Calibration) -> str:
    if not found.ungraded:
        return ""
    return f" Candidates without a grade, because no verification could be read: {found.ungraded}."


def _rate(found: Estimate) -> str:
    if found.value is None or found.low is None or found.high is None:
        return "-"
    return f"{100 * found.value:.1f} % [{100 * found.low:.1f},{100 * found.high:.1f}]"


def _auroc(found: Estimate) -> str:
    if found.value is None or found.low is None or found.high is None:
        return "- (no problem has right and wrong candidates)"
    return f"{found.value:.2f} [{found.low:.2f},{found.high:.2f}] ({found.problems} with right and wrong candidates)"


def _usage(group: Group) -> Table:
    costs = [evaluation.cost for evaluation in group.evaluations if evaluation.cost]
    currency = costs[0].currency or "cost" if costs else None
    table = new_table(["role", "calls", "prompt", "cached", "completion", "share", *([currency] if currency else [])])
    roles = sorted({role for evaluation in group.evaluations for role in evaluation.roles})
    counts = [_role_counts(group.evaluations, role) for role in roles]
    total = sum(prompt + completion for _, prompt, _, completion in counts) or 1
    for role, (calls, prompt, cached, completion) in zip(roles, counts, strict=True):
        part = _percent((prompt + completion) / total)
        spent = [_cost_of_role(group.evaluations, role)] if currency else []
        table.add_row(role, f"{calls:,}", f"{prompt:,}", f"{cached:,}", f"{completion:,}", part, *spent)
    return table


def _role_counts(evaluations: Sequence[Evaluation], role: str) -> tuple[int, ...]:
    found = [evaluation.roles[role] for evaluation in evaluations if role in evaluation.roles]
    usage = sum(found, Usage())
    return usage.calls, usage.prompt_tokens, usage.cached_prompt_tokens, usage.completion_tokens


def _cost_of_role(evaluations: Sequence[Evaluation], role: str) -> str:
    costs = [e.cost.by_role.get(role) if e.cost else None for e in evaluations if role in e.roles]
    known = [cost for cost in costs if cost is not None]
    return money(sum(known) if len(known) == len(costs) else None)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
