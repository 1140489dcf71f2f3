"""The commands ``tmas evaluate``, ``tmas subset`` and ``tmas gold-check``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvloop
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from tmas.answers.checker import AnswerChecker
from tmas.cli.composing import validated
from tmas.cli.exits import NOT_PASSED, STOPPED, fail
from tmas.evaluation.compare import METRICS, Group, by_benchmark, comparison, group_runs, scoring_of
from tmas.evaluation.evaluate import EvaluateSettings, evaluate
from tmas.evaluation.gold_check import GoldCheckSettings, gold_check, is_passed
from tmas.evaluation.group_tables import print_boundary, print_differences, print_overview
from tmas.evaluation.paired import PAIRED_METRICS
from tmas.evaluation.scoring import StepProgressCallback
from tmas.evaluation.subset import SubsetSettings, select, solved_counts, write_subset
from tmas.evaluation.tables import print_comparison, print_evaluation, print_gold_check
from tmas.files import write_json
from tmas.judge import Judge
from tmas.problems.loader import LoadedProblems, load_problems
from tmas.records.comparison_files import GoldCheck
from tmas.records.evaluation_files import Evaluation

MAX_DETAILED_METHODS = 3
"""With more methods than this, the tables of the single methods are not printed by default."""


def evaluate_command(config: dict[str, Any], console: Console) -> None:
    """``tmas evaluate``: evaluate runs, print tables, and compare methods on the same benchmark."""
    settings = validated(EvaluateSettings.model_validate, config)
    if settings.dry_run:
        if settings.judge is not None:
            Judge(settings.judge)  # raises UserError if the API key is missing
        console.print("The settings of the evaluation are valid.")
        return
    with _progress(console) as on_progress:
        evaluations = uvloop.run(evaluate(settings, on_progress))
    groups = group_runs(settings.runs, evaluations, settings.baseline)
    is_detailed = len(groups) <= MAX_DETAILED_METHODS if settings.details is None else settings.details
    for group in groups if is_detailed else []:
        print_evaluation(console, group, settings.bootstrap)
        found = group.evaluations[0].boundary.get(scoring_of(group.evaluations))
        if found is not None:
            print_boundary(console, group.label, found)
    _compare(groups, settings, is_detailed, console)
    _exit_if_judge_failed(evaluations)


def _compare(groups: Sequence[Group], settings: EvaluateSettings, is_detailed: bool, console: Console) -> None:
    """Compare the groups on each benchmark, and write the list of comparisons to ``settings.output``."""
    compared = []
    for benchmark, members in by_benchmark(groups).items():
        result = comparison(members, settings.budgets, settings.bootstrap) if len(members) > 1 else None
        if result is not None:
            print_overview(console, result, settings.bootstrap.confidence)
            print_comparison(console, result, METRICS if is_detailed else PAIRED_METRICS)
            for member in members[1:] if is_detailed else []:
                if member.evaluations[0].differences is not None:
                    print_differences(console, member.evaluations[0].differences)
            compared.append(result.model_dump(mode="json"))
            in_money = result.currency and comparison(members, settings.money_budgets, settings.bootstrap, "money")
            if in_money:
                print_comparison(console, in_money, METRICS if is_detailed else PAIRED_METRICS)
                compared.append(in_money.model_dump(mode="json"))
        elif len(members) > 1:
            console.print(Text(f"The runs on {benchmark} have no problem in common: they are not compared."))
    if settings.output and compared:
        write_json(settings.output, compared)


def subset_command(config: dict[str, Any], console: Console) -> None:
    """``tmas subset``: write the problems that a model seldom solves."""
    settings = validated(SubsetSettings.model_validate, config)
    problems = _problems(settings, console).problems

    async def counted() -> Any:
        digits = settings.approximation_digits
        async with AnswerChecker(settings.timeout, settings.workers, approximation_digits=digits) as checker:
            with _progress(console) as on_progress:
                return await solved_counts(problems, settings, checker, on_progress)

    subset = select(uvloop.run(counted()), settings)
    write_subset(settings.output, subset, settings)
    console.print(f"{len(subset)} of {len(problems)} problems were solved at most {settings.max_solved} times in "
                  f"{settings.samples}: {settings.output}", markup=False, soft_wrap=True)  # fmt: skip


def gold_check_command(config: dict[str, Any], console: Console) -> None:
    """``tmas gold-check``: pass a benchmark's gold answers through the answer checker. Exit code 1 if one fails."""
    settings = validated(GoldCheckSettings.model_validate, config)
    problems = _problems(settings, console).problems

    async def checked() -> GoldCheck:
        async with AnswerChecker(settings.timeout, settings.workers) as checker:
            return await gold_check(problems, checker)

    result = uvloop.run(checked())
    print_gold_check(console, result)
    if settings.output:
        write_json(settings.output, result.model_dump(mode="json"))
    if not is_passed(result):
        fail("the check failed: a gold answer is not judged as right", NOT_PASSED)


def _problems(settings: SubsetSettings | GoldCheckSettings, console: Console) -> LoadedProblems:
    loaded = load_problems(settings.problems, settings.data, settings.on_bad_problem)
    for message in loaded.skipped:
        console.print(f"skipped {message}", markup=False)
    return loaded


def _exit_if_judge_failed(evaluations: Sequence[Evaluation]) -> None:
    failed = sum(sum(e.verdicts.judge.failed.values()) for e in evaluations if e.verdicts.judge)
    if failed:
        fail(f"{failed} verdicts of the judge failed. Run the same command again to ask for them again.", STOPPED)


@contextmanager
def _progress(console: Console) -> Iterator[StepProgressCallback]:
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("")
        yield lambda doing, done, of: progress.update(task, description=doing, completed=done, total=of)
