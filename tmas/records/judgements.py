"""Records of verdicts: the lines of ``judgements.jsonl``, and the counts and agreement of verdicts in
``evaluation.json``.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import AliasChoices, ConfigDict, Field

from tmas.records.calls import SCHEMA_VERSION, FailureReason, Record
from tmas.records.reading import Version


class JudgementFailure(Record):
    """Why a judge gave no verdict."""

    reason: FailureReason
    message: str


class JudgementLine(Record):
    """A line of ``judgements.jsonl``: one pass of a judge on an answer, with either a verdict or a failure.

    ``judge``: hash of the judge's settings that verdicts depend on. ``model``: its model. ``prompt``: hash of the
    prompt as it was sent. ``number`` (on disk: ``pass``): the number of the pass, from 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    remedy: ClassVar[str] = (
        "Run tmas evaluate with the same judge again. It sets damaged lines aside and asks the judge again."
    )

    v: Version = SCHEMA_VERSION
    gold: str
    answer: str
    judge: str
    model: str
    prompt: str
    number: int = Field(validation_alias=AliasChoices("pass", "number"), serialization_alias="pass")
    verdict: Literal["equivalent", "different"] | None
    reasoning: str | None
    failure: JudgementFailure | None


class RuleCounts(Record):
    """Number of distinct answers by verdict of the rule. ``reasons``: number of undecided ones by reason."""

    equal: int
    different: int
    undecided: int
    reasons: dict[str, int]


class JudgeCounts(Record):
    """Number of passes by verdict of the judge; ``failed`` by reason. ``not_asked``: answers that needed no judge."""

    equivalent: int
    different: int
    failed: dict[str, int]
    not_asked: int


class VerdictCounts(Record):
    """Verdicts of the rule and of the judge. ``judge`` is None if there is no judge."""

    rule: RuleCounts
    judge: JudgeCounts | None


class PassAgreement(Record):
    """Agreement between the passes of the judge. ``pairs``: number of (gold, answer) with at least two verdicts."""

    pairs: int
    unanimous: float | None
    pairwise: float | None
    kappa: float | None


class Disagreement(Record):
    """An answer on which rule and judge disagree. ``judge``: share of the verdicts that found it equivalent."""

    gold: str
    answer: str
    rule: str
    judge: float | None


class RuleAndJudge(Record):
    """The rule's verdicts compared with the majority of the judge's passes. ``table``: rule -> judge -> count."""

    table: dict[str, dict[str, int]]
    agreement: float | None
    disagreements: tuple[Disagreement, ...]


class Agreement(Record):
    """Agreement between the passes of the judge, and between the rule and the judge."""

    passes: PassAgreement
    rule_and_judge: RuleAndJudge
