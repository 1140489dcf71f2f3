"""``tmas whatif``: the figures that a finished run would have had with other settings of its method.

:mod:`tmas.run.whatif` replays the recorded calls of each problem, once with the recorded settings and once with the
other ones. This module compares the two, paired by problem, and says of each figure how well it is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from tmas.answers.checker import AnswerChecker
from tmas.errors import UserError
from tmas.evaluation.estimators import BootstrapSettings
from tmas.evaluation.judgements import recorded_majorities
from tmas.evaluation.runs import Pair, no_finished_problem
from tmas.evaluation.whatif_rows import Figures, ReplayedPair, figures, whatif_rows
from tmas.methods import AnyMethodSettings
from tmas.methods.allocation import AllocationSettings
from tmas.methods.base import MethodSettings
from tmas.methods.stopping import VerificationSettings
from tmas.records.run_files import Correctness, Prediction
from tmas.records.whatif_files import WhatIf
from tmas.run.replay import RecordedRun
from tmas.run.whatif import Gaps, RecordedProblem, ReplayedProblem, replay
from tmas.settings import Settings, flatten

ProgressCallback = Callable[[int, int], None]
"""Progress callback: number of finished problems, and of all."""


class SelectionChanges(Settings):
    """Another selection of the final answer."""

    rule: Literal["grade", "vote", "random"] | None = Field(
        default=None, description="Another rule (see method.selection.rule of tmas solve). null: as in the run."
    )
    scope: Literal["all", "last"] | None = Field(
        default=None, description="Another scope (see method.selection.scope of tmas solve). null: as in the run."
    )


class MethodChanges(Settings):
    """The settings of the method that can be changed, because recorded calls are enough to replay them."""

    n_candidates: int | None = Field(
        default=None, ge=1, description="Fewer candidates: the first ones of each iteration. null: as in the run."
    )
    n_verifications: int | None = Field(
        default=None, ge=1, description="Fewer verifications of each candidate; see subsets. null: as in the run."
    )
    max_iterations: int | None = Field(
        default=None, ge=1, description="Fewer iterations: the first ones. null: as in the run."
    )
    early_stop: Literal["none", "unanimous", "accepted"] | None = Field(
        default=None, description="Another rule that ends a problem early (only for TMAS). null: as in the run."
    )
    selection: SelectionChanges = Field(
        default=SelectionChanges(), description="Another selection of the final answer."
    )
    verification: VerificationSettings | Literal["none"] | None = Field(
        default=None,
        description="Verification in rounds (docs/adaptive.md): {} for its defaults, or {KEY: VALUE}. none: not in"
        " rounds. null: as in the run.",
    )
    allocation: AllocationSettings | Literal["none"] | None = Field(
        default=None,
        description="Number of candidates by the progress of the problem (docs/adaptive.md): {} for its defaults, or"
        " {KEY: VALUE}. none: N in each iteration. null: as in the run.",
    )

    def given(self) -> dict[str, Any]:
        """The settings that are changed."""
        found = self.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        off = {name: None for name in ("verification", "allocation") if found.get(name) == "none"}
        return {name: value for name, value in (found | off).items() if value != {} or name != "selection"}

    def of(self, recorded: MethodSettings, max_iterations: int) -> MethodSettings:
        """The recorded settings with the changes. ``max_iterations``: used if the changes do not set it.

        Raises ``UserError`` for a setting that the method does not have.
        """
        selection = {**recorded.selection.model_dump(), **self.selection.model_dump(exclude_none=True)}
        values = {**recorded.model_dump(mode="json"), "max_iterations": max_iterations, **self.given()}
        try:
            return TypeAdapter(AnyMethodSettings).validate_python({**values, "selection": selection})
        except ValidationError as error:
            found = error.errors(include_url=False)[0]
            key = ".".join(["method", *map(str, found["loc"])])
            message = found["msg"].removeprefix("Value error, ")
            raise UserError(f"{message} (the run's method is {recorded.name})", where=key) from None


class WhatIfSettings(Settings):
    """The settings of ``tmas whatif``."""

    run: Path = Field(description="Run directory of tmas solve. Its finished problems are used.")
    method: MethodChanges = Field(default=MethodChanges(), description="The changed settings of the method.")
    subsets: int | None = Field(
        default=None,
        ge=1,
        description="With fewer verifications: average over this many random subsets of the recorded ones. null: take"
        " the first ones, which the run itself would have had.",
    )
    scoring: Literal["rule", "judge"] = Field(
        default="rule",
        description="rule: answers are right or wrong as in predictions.jsonl. judge: by the majority of the verdicts"
        " in judgements.jsonl where there are any.",
    )
    bootstrap: BootstrapSettings = Field(default=BootstrapSettings(), description="The confidence intervals.")
    timeout: float = Field(default=5.0, gt=0, description="Seconds of CPU time per comparison of two answers.")
    workers: int = Field(default=2, ge=1, description="Processes that compare answers.")
    output: Path | None = Field(default=None, description="JSON file for the table. null: none is written.")


async def whatif(settings: WhatIfSettings, on_progress: ProgressCallback = lambda *_: None) -> WhatIf:
    """Replay the finished problems of a run with other settings of its method, and compare.

    Raises ``UserError`` if the run cannot be read or has no finished problem, if its method does not have a setting, or
    if the recorded calls are not enough to replay any problem.
    """
    run = RecordedRun(settings.run)
    if not run.problem_ids:
        raise no_finished_problem(settings.run)
    majorities = recorded_majorities(settings.run / "judgements.jsonl") if settings.scoring == "judge" else {}
    pairs: list[ReplayedPair] = []
    not_replayed: list[str] = []
    async with AnswerChecker(settings.timeout, settings.workers) as checker:
        for done, problem_id in enumerate(run.problem_ids):
            on_progress(done, len(run.problem_ids))
            prediction = run.prediction(problem_id)
            recorded = RecordedProblem.read(run, prediction, _correct(prediction, majorities))
            baseline = await replay(recorded, recorded.settings, checker)
            if baseline.line is None or not _is_same(baseline.line, prediction):
                not_replayed.append(problem_id)
                continue
            pairs.append(await _pair(recorded, baseline, settings, checker))
    known = [pair for pair in pairs if pair.is_known]
    if not known:
        raise UserError(_nothing_is_known(pairs), where=settings.run)
    return WhatIf(
        run=str(settings.run),
        changes=flatten(settings.method.given()),
        scoring=settings.scoring,
        subsets=settings.subsets,
        problems=len(known),
        not_replayed=tuple(not_replayed),
        not_recorded=tuple(pair.problem_id for pair in pairs if not pair.is_known),
        rows=tuple(whatif_rows(known, settings.bootstrap)),
    )


async def _pair(
    recorded: RecordedProblem, baseline: ReplayedProblem, settings: WhatIfSettings, checker: AnswerChecker
) -> ReplayedPair:
    """Replay a problem with the other settings, once for each subset of its verifications.

    A problem that the budget or dead workers ended gets no more iterations than it had.
    """
    assert baseline.line
    stop, depth = recorded.prediction.stop, len(recorded.prediction.iterations)
    ended_by = stop if stop in ("budget", "worker") else None
    limit = recorded.prediction.terms.method.get("max_iterations")
    max_iterations = depth if ended_by or not isinstance(limit, int) else limit
    other = settings.method.of(recorded.settings, max_iterations)
    if ended_by:
        other = other.model_copy(update={"max_iterations": min(depth, other.max_iterations)})
    subsets = [None] if settings.subsets is None else range(settings.subsets)
    others: list[Figures | None] = []
    gaps: list[Gaps] = []
    for subset in subsets:
        replayed = await replay(recorded, other, checker, baseline.prompts, subset)
        others.append(replayed.line and figures(replayed.line))
        gaps.append(replayed.gaps)
        if replayed.line and replayed.line.usage == baseline.line.usage:
            ended_by = None
    problem_id = recorded.prediction.problem_id
    return ReplayedPair(problem_id, figures(baseline.line), tuple(others), Gaps.of_all(gaps), ended_by)


def _correct(prediction: Prediction, majorities: Mapping[Pair, bool | None]) -> dict[str, Correctness]:
    """Whether each answer of a problem is right."""
    names: dict[bool | None, Correctness] = {True: "equal", False: "different", None: "undecided"}
    found: dict[str, Correctness] = {}
    for candidate in (c for iteration in prediction.iterations for c in iteration.candidates):
        if candidate.answer is not None and candidate.correct is not None:
            pair = (prediction.gold or "", candidate.answer)
            found[candidate.answer] = names[majorities[pair]] if pair in majorities else candidate.correct
    return found


def _is_same(replayed: Prediction, recorded: Prediction) -> bool:
    def outcome(line: Prediction) -> list[Any]:
        return [(i.selected, [(c.answer, c.grades) for c in i.candidates]) for i in line.iterations]

    return outcome(replayed) == outcome(recorded)


def _nothing_is_known(pairs: Sequence[ReplayedPair]) -> str:
    first = next((key for pair in pairs if (key := pair.gaps.not_recorded)), None)
    if first is None:
        return "this version of tmas cannot reproduce the recorded result of any problem"
    return (
        f"the recorded calls are not enough: the {first.role} agent would have been asked for more in iteration"
        f" {first.iteration} than it was in the run"
    )
