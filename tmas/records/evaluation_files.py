"""Records of ``evaluation.json``, which an evaluation writes into a run directory.

docs/evaluation.md explains every field. Accuracies are given for each scoring: ``rule``, and ``judge`` if there is one.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from tmas.records.calls import SCHEMA_VERSION, Record, Usage
from tmas.records.judgements import Agreement, VerdictCounts
from tmas.records.prices import Cost, Price
from tmas.records.reading import Version
from tmas.records.values import StopReason

ROUNDING = 1e-9
"""Two means that differ by less count as equal: sums in another order differ by rounding."""


class Estimate(Record):
    """A mean over problems (``value``) with its confidence interval (``low``, ``high``).

    These three are None if no problem has a value. ``value`` is a lower bound: undecided answers count as wrong. In
    ``upper`` they count as right; None if it was not computed. ``problems``: number of problems in the mean.
    ``left_out``: number of problems without a value.

    If ``value`` is the difference of two means, undecided answers count as wrong in both. ``lower`` and ``upper`` are
    then the lowest and the highest difference that undecided answers allow; None if there are none.
    """

    value: float | None
    low: float | None
    high: float | None
    problems: int
    left_out: int
    upper: float | None = None
    lower: float | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def bound(self) -> float | None:
        """``upper`` if it differs from ``value``, otherwise None."""
        if self.value is None or self.upper is None or self.upper - self.value < ROUNDING:
            return None
        return self.upper


NO_ESTIMATE = Estimate(value=None, low=None, high=None, problems=0, left_out=0)


class EvaluatedRun(Record):
    """The run that was evaluated. ``group`` is the same for runs that differ only by their seed.

    ``settings``: those of the manifest by dotted key, without the seed and without repetitions, such as settings of a
    role's model that equal the solver's. Evaluations of older versions have none. ``prices``: the price of each role's
    model that the costs were computed with.
    """

    method: str
    benchmark: str | None
    seed: int
    group: str
    models: dict[str, str]
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    prices: dict[str, Price] = Field(default_factory=dict, exclude_if=lambda value: not value)


class JudgeUsed(Record):
    """The judge of an evaluation. ``replaced``: texts of the prompts that a user replaced."""

    name: str
    identity: str
    sampling: dict[str, JsonValue]
    passes: int
    scope: str
    prompts: dict[str, str]
    replaced: dict[str, str] = Field(default_factory=dict)


class BootstrapUsed(Record):
    """The settings of an evaluation's confidence intervals. The defaults hold for evaluations of older versions."""

    resamples: int
    confidence: float
    seed: int
    subsets: int = 100
    interval: Literal["auto", "t", "bca", "percentile"] = "percentile"
    few_problems: int = 10


class BoundaryUsed(Record):
    """The settings of an evaluation's boundary analysis."""

    edges: tuple[float, ...] = (0.125, 0.375, 0.625, 0.875)
    accept_grade: float = 0.75


class SettingsUsed(Record):
    """The settings that an evaluation depends on."""

    judge: JudgeUsed | None
    bootstrap: BootstrapUsed
    boundary: BoundaryUsed = BoundaryUsed()


class ProblemCounts(Record):
    """Numbers of problems. ``stops``: finished problems by the reason why they stopped."""

    finished: int
    unfinished: int
    without_gold: int
    stops: dict[str, int]


class BankFacts(Record):
    """Means over problems for one bank in one iteration. ``size`` and ``turnover`` do not count refuted items."""

    size: float | None
    turnover: float | None
    added: float | None
    merged: float | None
    confirmed: float | None
    corrected: float | None
    contradicted: float | None = Field(default=None, exclude_if=lambda value: not value)
    dropped: float | None
    refused: float | None = Field(default=None, exclude_if=lambda value: not value)
    evicted: float | None


class ModeCounts(Record):
    """Candidates of one mode, and the share of correct ones. Undecided ones count as wrong, in ``upper`` as right."""

    candidates: float
    accuracy: float | None
    upper: float | None = None


class MeanTokens(Record):
    """Mean tokens of a problem up to the end of an iteration. ``cost``: their mean cost, if the prices are known."""

    prompt_tokens: float
    cached_prompt_tokens: float
    completion_tokens: float
    cost: float | None = Field(default=None, exclude_if=lambda value: value is None)


class EvaluatedIteration(Record):
    """One iteration over all problems: counts, banks, tokens, and accuracies by scoring and metric."""

    iteration: int
    running: int
    candidates: int
    failed: dict[str, int]
    no_answer: int
    mean_grade: float | None
    explore_share: float | None
    banks: dict[str, BankFacts]
    usage: dict[str, Usage]
    cumulative: MeanTokens
    scores: dict[str, dict[str, Estimate]]
    undecided: dict[str, float]
    modes: dict[str, dict[str, ModeCounts]]


class CalibrationBin(Record):
    """Candidates whose mean grade is in one interval."""

    low: float
    high: float
    count: int
    mean_grade: float | None
    accuracy: float | None


class GradeCounts(Record):
    """Single grades of one value, and the share of correct candidates among them."""

    count: int
    accuracy: float | None


class Calibration(Record):
    """The grades of the verifier compared with the correctness of the candidates.

    ``pairs``: number of graded candidates, each counted once for each pass of the judge that decided about it.
    ``false_accept``: share of a problem's wrong candidates that the verifier accepted. ``false_reject``: share of the
    right ones that it did not accept. ``within_problems``: the AUROC within a problem. Each of the three is a mean over
    the problems for which it is defined. ``auroc`` is pooled over problems: it also rewards grades that only separate
    easy problems from hard ones. ``graded``: candidates with a grade. ``ungraded``: candidates that were written and
    have no grade, because every verification of them failed. ``unwritten``: candidates that failed themselves.
    ``graded``, ``ungraded`` and ``unwritten`` are None in evaluations of older versions.
    """

    pairs: int
    graded: int | None = None
    ungraded: int | None = None
    unwritten: int | None = None
    accuracy: float | None
    brier: float | None
    ece: float | None
    auroc: float | None
    false_accept: Estimate = NO_ESTIMATE
    false_reject: Estimate = NO_ESTIMATE
    within_problems: Estimate = NO_ESTIMATE
    bins: tuple[CalibrationBin, ...]
    grades: dict[str, GradeCounts]


class GradeOutcomes(Record):
    """The candidates of one mean grade: how many of them are right and wrong."""

    grade: float
    right: int
    wrong: int


class EvaluatedStep(Record):
    """A problem after one iteration: tokens so far, their cost if the prices are known, and its metrics by scoring.

    ``scores`` are lower bounds; ``upper`` has the upper bounds that differ from them. ``graded``: scoring -> the graded
    and decided candidates of this iteration by mean grade.
    """

    prompt_tokens: int
    completion_tokens: int
    cost: float | None = Field(default=None, exclude_if=lambda value: value is None)
    scores: dict[str, dict[str, float | None]]
    upper: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    graded: dict[str, tuple[GradeOutcomes, ...]] = Field(default_factory=dict)


class EvaluatedProblem(Record):
    """A problem with a gold answer. ``limit``: its token budget. ``money_limit``: its budget in money.

    ``by_samples``: scoring -> metric -> value with k of the samples, at index k - 1, if the method has one round.
    ``upper_by_samples``: the upper bounds that differ from these values.
    """

    problem_id: str
    digest: str
    stop: StopReason
    limit: int | None = None
    money_limit: float | None = Field(default=None, exclude_if=lambda value: value is None)
    prompt_tokens: int
    completion_tokens: int
    cost: float | None = Field(default=None, exclude_if=lambda value: value is None)
    iterations: tuple[EvaluatedStep, ...]
    by_samples: dict[str, dict[str, tuple[float, ...]]] = Field(default_factory=dict)
    upper_by_samples: dict[str, dict[str, tuple[float, ...]]] = Field(
        default_factory=dict, exclude_if=lambda value: not value
    )


class PairedDifference(Record):
    """A difference after one iteration, paired by problem. ``p``: two-sided p-value of the paired permutation test."""

    iteration: int
    difference: Estimate
    p: float | None


class DifferencesByIteration(Record):
    """A group of runs minus the group ``other`` on the problems that both have, after equal numbers of iterations.

    ``differences``: metric -> one entry for each iteration that both groups reached.
    """

    label: str
    seeds: tuple[int, ...]
    other: str
    other_seeds: tuple[int, ...]
    scoring: str
    differences: dict[str, tuple[PairedDifference, ...]]


class BoundaryBin(Record):
    """The problems of one range of difficulty. ``difficulty``: their mean Pass@1, in samples that no other field uses.

    ``false_accept``: share of the wrong candidates that the verifier accepted. ``false_reject``: share of the right
    ones that it did not accept. ``auroc``: within problems. Each is a mean over the problems for which it is defined.
    """

    low: float
    high: float
    problems: int
    difficulty: float | None
    accuracy: Estimate
    false_accept: Estimate
    false_reject: Estimate
    auroc: Estimate


class Boundary(Record):
    """How well a group of runs solves and verifies, by difficulty of the problem.

    ``difficulty_from``: the samples that give the difficulty of a problem. ``other_seeds``: those of iteration 0 of the
    runs with other seeds. ``iteration_0``: those of iteration 0 of the only run; the bins then measure its later
    iterations. ``left_out``: number of problems without samples for the difficulty or without samples to measure.
    """

    difficulty_from: Literal["other_seeds", "iteration_0"]
    seeds: tuple[int, ...]
    left_out: int
    bins: tuple[BoundaryBin, ...]


class Evaluation(Record):
    """The content of ``evaluation.json``.

    ``differences`` and ``boundary`` (by scoring) pool the run with those runs of the same ``tmas evaluate`` that differ
    only by seed. ``differences`` is None if there is nothing to compare. An entry of ``boundary`` is None if the
    verifier graded no candidate that could be measured. ``cost``: the cost of ``roles``; absent if no price is known.
    """

    v: Version = SCHEMA_VERSION
    run: EvaluatedRun
    settings: SettingsUsed
    verdicts: VerdictCounts
    agreement: Agreement | None
    problems: ProblemCounts
    iterations: tuple[EvaluatedIteration, ...]
    calibration: dict[str, Calibration]
    roles: dict[str, Usage]
    cost: Cost | None = Field(default=None, exclude_if=lambda value: value is None)
    by_problem: tuple[EvaluatedProblem, ...]
    differences: DifferencesByIteration | None = None
    boundary: dict[str, Boundary | None] = Field(default_factory=dict)
