"""Computes how many samples a baseline can take for the tokens of a finished TMAS run.

``python -m tmas.evaluation.equal_tokens RUN METHOD`` prints ``method.n_candidates=N`` if METHOD is ``majority_vote`` or
``best_of_n``, and nothing for other methods. It counts prompt tokens and generated tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tmas.errors import UserError
from tmas.records import UsageEntry
from tmas.records.reading import read_records
from tmas.records.run_files import Prediction


@dataclass(frozen=True)
class Costs:
    """Mean numbers of tokens in a TMAS run.

    ``problem``: for a whole problem. ``solution``: for writing a candidate of iteration 0. ``verification``: for all M
    verifications of such a candidate. Iteration 0 has no memory yet, so its prompts are those of the baselines. A
    candidate of majority vote costs ``solution``, and a candidate of best of N costs ``solution`` + ``verification``.
    """

    problem: float
    solution: float
    verification: float

    @classmethod
    def measured(cls, lines: Iterable[Prediction], *, prompts: bool = False) -> Costs:
        """Compute the costs from the usage in ``lines``, the lines of the run's predictions.jsonl.

        Counts generated tokens, and with ``prompts`` the prompt tokens, too. Raises ``UserError`` if iteration 0 has no
        candidates, or if no tokens are recorded for its solutions.
        """
        lines = list(lines)

        def tokens(entries: Iterable[UsageEntry]) -> int:
            return sum(e.usage.total_tokens if prompts else e.usage.completion_tokens for e in entries)

        first = [entry for line in lines for entry in line.usage if entry.iteration == 0]
        candidates = sum(len(iteration.candidates) for line in lines for iteration in line.iterations[:1])
        solution = tokens(entry for entry in first if entry.role == "solution")
        if not candidates or not solution:
            raise UserError("no tokens are recorded for solutions of iteration 0: a baseline's sample size is unknown")
        return cls(
            problem=tokens(entry for line in lines for entry in line.usage) / len(lines),
            solution=solution / candidates,
            verification=tokens(entry for entry in first if entry.role == "verification") / candidates,
        )

    def __str__(self) -> str:
        return (
            f"TMAS generated {self.problem:,.0f} tokens per problem. In its first iteration a candidate took "
            f"{self.solution:.0f} and its verification {self.verification:.0f}. The same number of tokens pays for "
            f"best of N with N = {self.best_of_n}, or for a majority vote of {self.majority_vote}."
        )

    @property
    def majority_vote(self) -> int:
        """Number of candidates of a majority vote that takes as many tokens."""
        return max(1, round(self.problem / self.solution))

    @property
    def best_of_n(self) -> int:
        """N of a best of N that takes as many tokens."""
        return max(1, round(self.problem / (self.solution + self.verification)))


def main(run: str, method: str) -> None:
    """Print the setting with which ``method`` takes as many tokens as ``run``, the directory of a TMAS run."""
    costs = Costs.measured(read_records(Path(run) / "predictions.jsonl", Prediction), prompts=True)
    sizes = {"majority_vote": costs.majority_vote, "best_of_n": costs.best_of_n}
    if method in sizes:
        print(f"method.n_candidates={sizes[method]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
