"""Records of the files that ``tmas evaluate`` and ``tmas gold-check`` write to ``output=FILE``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tmas.records.calls import SCHEMA_VERSION, Record
from tmas.records.evaluation_files import Estimate, PairedDifference
from tmas.records.reading import Version


class ComparedGroup(Record):
    """One method in a :class:`MethodComparison`.

    ``accuracy`` and ``difference``: metric -> one estimate for each budget. ``final`` and ``final_difference``:
    metric -> the estimate after the last iteration, whatever it cost. Both are empty in files of older versions.
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
    """Methods on one benchmark, over the problems that all of them have (``output=FILE`` of ``tmas evaluate``).

    The first group is the baseline. ``budgets`` are per problem, in ``unit``. ``currency``: that of the costs; None if
    the cost of some problem is not known.
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
    """Number of answers that a gold check compared, in total and by verdict."""

    answers: int
    equal: int
    different: int
    undecided: int


class GoldCheckFailure(Record):
    """A comparison in a gold check that gave an unexpected verdict. ``name``: the check."""

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
