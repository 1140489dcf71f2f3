"""``tmas evaluate``: evaluates run directories and writes ``evaluation.json`` and ``judgements.jsonl`` into each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from tmas.answers.checker import AnswerChecker
from tmas.concurrency import gather_all
from tmas.evaluation.boundary import BoundarySettings
from tmas.evaluation.compare import group_members
from tmas.evaluation.correctness import (
    agreement_between_passes,
    agreement_of_rule_and_judge,
    answer_classes,
    judge_counts,
    rule_counts,
)
from tmas.evaluation.estimators import BootstrapSettings
from tmas.evaluation.naming import own_settings
from tmas.evaluation.paired import with_group_analyses
from tmas.evaluation.runs import RunData, read_run
from tmas.evaluation.scores import Classes
from tmas.evaluation.scoring import ScoringSettings, StepProgressCallback, Verdicts, find_verdicts
from tmas.evaluation.summary import summary
from tmas.files import write_json
from tmas.records.evaluation_files import BootstrapUsed, BoundaryUsed, EvaluatedRun, Evaluation, JudgeUsed, SettingsUsed
from tmas.records.judgements import Agreement, VerdictCounts
from tmas.records.prices import Price


class EvaluateSettings(ScoringSettings):
    """All settings of ``tmas evaluate``."""

    bootstrap: BootstrapSettings = Field(default=BootstrapSettings(), description="The confidence intervals.")
    boundary: BoundarySettings = Field(default=BoundarySettings(), description="The boundary analysis.")
    baseline: str | None = Field(
        default=None,
        description="The method that all others are compared with. Give the name of a method such as tmas, its label in"
        " the tables, or one of its run directories. null: the method of the first run.",
    )
    price: Price = Field(
        default=Price(),
        description="One price for all models, from which costs are computed. If input and output are null, the prices"
        " that each run recorded are used.",
    )
    budgets: tuple[int, ...] = Field(
        default=(),
        description="Tokens per problem at which several methods are compared. Empty: up to four budgets in equal"
        " steps, from the smallest budget at which every method has a value to the smallest budget at which one of the"
        " methods has finished all problems.",
    )
    money_budgets: tuple[float, ...] = Field(
        default=(),
        description="Costs per problem at which several methods are compared, in the currency of the prices. Empty:"
        " up to four costs, chosen like budgets. Without prices there is no such comparison.",
    )
    details: bool | None = Field(
        default=None,
        description="Print the tables of each method, too: iterations, verifier, tokens by role, difficulty, and"
        " differences by iteration. null: only for up to three methods.",
    )
    output: Path | None = Field(
        default=None, description="JSON file for the comparison of several runs. null: none is written."
    )
    dry_run: bool = Field(
        default=False,
        description="Check the settings and the judge's key, then stop. The run directories need not exist yet.",
    )


async def evaluate(settings: EvaluateSettings, on_progress: StepProgressCallback = lambda *_: None) -> list[Evaluation]:
    """Evaluate every run, write its ``evaluation.json``, and return the evaluations in the order of the runs.

    Raises ``UserError`` if a run directory or its judgements cannot be read.
    """
    evaluations = await evaluations_of(settings, on_progress)
    for path, evaluation in zip(settings.runs, evaluations, strict=True):
        write_json(path / "evaluation.json", evaluation.model_dump(mode="json"))
    return evaluations


async def evaluations_of(
    settings: EvaluateSettings, on_progress: StepProgressCallback = lambda *_: None
) -> list[Evaluation]:
    """Like :func:`evaluate`, but no ``evaluation.json`` is written."""
    runs = [read_run(path) for path in settings.runs]
    described = [_run_description(run, {}) for run in runs]  # prices do not matter for the groups
    group_members(settings.runs, described, settings.baseline)  # refuses a wrong baseline early
    checker = AnswerChecker(settings.timeout, settings.workers, approximation_digits=settings.approximation_digits)
    async with checker:
        verdicts = await find_verdicts(runs, settings, checker, on_progress)
        classes = [await _answer_classes(run, checker) for run in runs]
    evaluations = [_evaluation(run, verdicts.of(run), c, settings) for run, c in zip(runs, classes, strict=True)]
    return with_group_analyses(settings.runs, evaluations, settings.boundary, settings.bootstrap, settings.baseline)


async def _answer_classes(run: RunData, checker: AnswerChecker) -> dict[str, Classes]:
    """For each problem with a gold answer, the classes of equivalent answers among its candidates."""
    golden = [line for line in run.lines if line.gold is not None]
    found = await gather_all(answer_classes(line, checker) for line in golden)
    return {line.problem_id: classes for line, classes in zip(golden, found, strict=True)}


def _run_description(run: RunData, prices: Mapping[str, Price]) -> EvaluatedRun:
    return EvaluatedRun(
        method=run.manifest.method,
        benchmark=run.benchmark,
        seed=run.manifest.seed,
        group=run.group,
        models=run.manifest.models,
        settings=own_settings(run.manifest.settings),
        prices=dict(prices),
    )


def _prices(run: RunData, settings: EvaluateSettings) -> Mapping[str, Price]:
    """The known prices of each role's model."""
    if not settings.price.is_known:
        return run.manifest.prices or {}
    return {entry.role: settings.price for line in run.lines for entry in line.usage}


def _evaluation(
    run: RunData, verdicts: Verdicts, classes: Mapping[str, Classes], settings: EvaluateSettings
) -> Evaluation:
    judged = verdicts.judged
    prices = _prices(run, settings)
    return Evaluation(
        run=_run_description(run, prices),
        settings=SettingsUsed(
            judge=_judge_used(settings),
            bootstrap=BootstrapUsed.model_validate(settings.bootstrap.model_dump()),
            boundary=BoundaryUsed.model_validate(settings.boundary.model_dump()),
        ),
        verdicts=VerdictCounts(
            rule=rule_counts(verdicts.rule),
            judge=None if judged is None else judge_counts(judged, len(verdicts.rule) - len(judged)),
        ),
        agreement=None
        if judged is None
        else Agreement(
            passes=agreement_between_passes(judged),
            rule_and_judge=agreement_of_rule_and_judge(judged, verdicts.rule),
        ),
        **summary(run, verdicts.scorings, classes, settings.bootstrap, settings.boundary.accept_grade, prices),
    )


def _judge_used(settings: ScoringSettings) -> JudgeUsed | None:
    if settings.judge is None:
        return None
    judge, judge_prompt_files = settings.judge, settings.prompts.files_of("judge_equivalence")
    return JudgeUsed(
        name=judge.name,
        identity=judge.identity,
        sampling=judge.sampling.model_dump(),
        passes=judge.passes,
        scope=settings.judge_scope,
        prompts=settings.prompts.judge_hashes("judge_equivalence"),
        replaced={name: text for name, text in settings.prompts.replaced.items() if name in judge_prompt_files},
    )
