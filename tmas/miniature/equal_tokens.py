"""Computes sample sizes with which a baseline generates as many tokens as a finished TMAS run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tmas.records import UsageEntry
from tmas.records.run_files import Prediction


@dataclass(frozen=True)
class Costs:
    """Mean number of generated tokens in a TMAS run: per problem, and per candidate and verification of iteration 0.

    Iteration 0 has no memory yet, so its prompts are those of the baselines. A candidate of majority vote costs one
    ``solution``. A candidate of best of N costs one ``solution`` and one ``verification``.
    """

    problem: float
    solution: float
    verification: float

    @classmethod
    def measured(cls, lines: Iterable[Prediction]) -> Costs:
        """Compute the costs from the lines of the run's predictions.jsonl: usage by role and iteration."""
        lines = list(lines)
        first = [entry for line in lines for entry in line.usage if entry.iteration == 0]
        candidates = sum(len(line.iterations[0].candidates) for line in lines)
        return cls(
            problem=_generated(entry for line in lines for entry in line.usage) / len(lines),
            solution=_generated(entry for entry in first if entry.role == "solution") / candidates,
            verification=_generated(entry for entry in first if entry.role == "verification") / candidates,
        )

    def __str__(self) -> str:
        return (
            f"TMAS generated {self.problem:,.0f} tokens per problem. In its first iteration a candidate took "
            f"{self.solution:.0f} and its verification {self.verification:.0f}. The same number of tokens pays for "
            f"best of N with N = {self.best_of_n}, or for a majority vote of {self.majority_vote}."
        )

    @property
    def majority_vote(self) -> int:
        """Number of candidates of a majority vote."""
        return max(1, round(self.problem / self.solution))

    @property
    def best_of_n(self) -> int:
        """Number of candidates of best of N."""
        return max(1, round(self.problem / (self.solution + self.verification)))


def _generated(entries: Iterable[UsageEntry]) -> int:
    return sum(entry.usage.completion_tokens for entry in entries)
