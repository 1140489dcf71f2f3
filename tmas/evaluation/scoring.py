"""Decides whether the answers of runs are correct. Used by ``tmas evaluate`` and ``tmas subset``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tmas.answers.checker import AnswerChecker
from tmas.answers.equivalence import Comparison, Equivalence
from tmas.evaluation.correctness import Scoring, by_judge, by_rule, is_identical, rule_verdicts
from tmas.evaluation.judgements import Judgements, Outcome, judge_pairs
from tmas.evaluation.runs import Pair, RunData, matching_runs, questions_of
from tmas.judge import Judge, JudgeSettings
from tmas.prompts import BUILT_IN, PromptsSetting
from tmas.settings import Paths

MAX_ANSWER = 4000
"""Maximum length of a judged answer, in characters. Longer texts are no final answers; only the rule scores them."""
StepProgressCallback = Callable[[str, int, int], None]
"""Progress callback: called with the name of the current step, the number of finished items, and their total."""


class ScoringSettings(BaseModel):
    """How answers are judged correct."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    runs: Paths = Field(
        min_length=1,
        description="Run directories of tmas solve. * stands for any characters. Runs that differ only in the seed are"
        " pooled.",
    )
    judge: JudgeSettings | None = Field(
        default=None, description="LLM judge that compares answers. null: math-verify alone (the rule)."
    )
    prompts: PromptsSetting = Field(
        default=BUILT_IN,
        description="Folder whose judge_equivalence.jinja replaces the judge's prompt (docs/prompts.md). null: the"
        " built-in prompt.",
    )
    judge_scope: Literal["all", "undecided"] = Field(
        default="all",
        description="all: the judge compares every answer whose text differs from the gold answer's, apart from"
        " typesetting. undecided: only answers that the rule cannot decide.",
    )
    timeout: float = Field(default=5.0, gt=0, description="Seconds of CPU time per comparison by rule.")
    workers: int = Field(default=2, ge=1, description="Processes that compare answers by rule.")
    approximation_digits: int | None = Field(
        default=None,
        ge=2,
        description="Minimum number of significant digits of a decimal that is accepted for an exact value which rounds"
        " to it (with 3, 0.333 equals 1/3). null: an approximation is never accepted. The judge follows the same"
        " policy.",
    )

    @field_validator("runs")
    @classmethod
    def _are_different(cls, runs: tuple[Path, ...]) -> tuple[Path, ...]:
        runs = matching_runs(runs)
        if len({run.resolve() for run in runs}) < len(runs):
            raise ValueError("a run directory is given twice")
        return runs


@dataclass(frozen=True)
class Verdicts:
    """Verdicts on every answer of some runs. ``judged`` is None if there is no judge."""

    rule: Mapping[Pair, Comparison]
    judged: Mapping[Pair, Sequence[Outcome]] | None

    def of(self, run: RunData) -> Verdicts:
        """Return the verdicts on the answers of one run."""
        judged = None if self.judged is None else {p: o for p, o in self.judged.items() if p in run.pairs}
        return Verdicts({pair: self.rule[pair] for pair in run.pairs}, judged)

    @property
    def scorings(self) -> dict[str, Scoring]:
        judge = {} if self.judged is None else {"judge": by_judge(self.judged, self.rule)}
        return {"rule": by_rule(self.rule), **judge}


async def find_verdicts(
    runs: Sequence[RunData],
    settings: ScoringSettings,
    checker: AnswerChecker,
    on_progress: StepProgressCallback = lambda *_: None,
) -> Verdicts:
    """Compare every answer of ``runs`` with its gold answer, by rule and, if there is one, by judge.

    Verdicts in ``judgements.jsonl`` are reused. Raises ``UserError`` if such a file has another schema version.
    """
    pairs = frozenset(pair for run in runs for pair in run.pairs)
    on_progress("comparing answers", 0, len(pairs))
    rule = await rule_verdicts(pairs, checker)
    if settings.judge is None:
        return Verdicts(rule, None)
    wanted = {pair for pair in pairs if _is_judged(pair, rule[pair], settings)}
    files = [(Judgements(run.path / "judgements.jsonl"), run.pairs) for run in runs]
    done = 0

    def on_judged() -> None:
        nonlocal done
        done += 1
        on_progress("judging answers", done, len(wanted))

    async with Judge(settings.judge, settings.prompts, settings.approximation_digits) as judge:
        judged = await judge_pairs(sorted(wanted), files, judge, on_judged, questions_of(runs))
    return Verdicts(rule, judged)


def _is_judged(pair: Pair, verdict: Comparison, settings: ScoringSettings) -> bool:
    decided = verdict.equivalence is not Equivalence.UNDECIDED
    needless = is_identical(pair) or (settings.judge_scope == "undecided" and decided)
    return not needless and len(pair[1]) <= MAX_ANSWER
