"""Records of the files that a user names with ``output=FILE``: of ``tmas evaluate`` and of ``tmas gold-check``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tmas.records.calls import SCHEMA_VERSION, Record
from tmas.records.evaluation_files import Estimate, PairedDifference
from tmas.records.reading import Version


class ComparedGroup(Record):
    """One method in a :class:`MethodComparison`.

    ``accuracy`` and ``difference``: metric -> one estimate for each budget. ``final`` and ``final_difference``:
    metric -> the estimate after the last iteration, whatever it cost. They are empty in files of older versions.
    """

    label: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    tokens_per_problem: float
    cost_per_problem: float | None = None
    accuracy: dict[str, tuple[Estimate, ...]]
    difference: dict[str, tuple[Estimate, ...]] = Field(description="to the first group, paired by problem")
    final: dict[str, Estimate] = Field(default_factory=dict)
    final_difference: dict[str, PairedDifference] = Field(
        default_factory=dict, description="to the first group, paired by problem; empty for the first group"
    )


class MethodComparison(Record):
    """Methods on one benchmark, over the problems that all have (``output=FILE`` of ``tmas evaluate``).

    The first group is the baseline. ``budgets`` are in ``unit``, for each problem. ``currency``: that of the costs;
    None if the cost of a problem is not known.
    """

    v: Version = SCHEMA_VERSION
    benchmark: str
    scoring: str
    problems: int
    unit: Literal["tokens", "money"] = "tokens"
    currency: str | None = None
    budgets: tuple[int | float, ...]
    groups: tuple[ComparedGroup, ...]


class AnswerCounts(Record):
    """Answers that a gold check compared, and their verdicts."""

    answers: int
    equal: int
    different: int
    undecided: int


class GoldCheckFailure(Record):
    """A comparison of a gold check with an unexpected verdict. ``name``: the check."""

    name: str
    problem_id: str
    gold: str
    answer: str
    verdict: str
    reason: str | None


class GoldCheck(Record):
    """The result of ``tmas gold-check`` (``output=FILE``). ``checks``: counts by the name of the check."""

    v: Version = SCHEMA_VERSION
    problems: int
    with_answer: int
    checks: dict[str, AnswerCounts]
    failures: tuple[GoldCheckFailure, ...]
