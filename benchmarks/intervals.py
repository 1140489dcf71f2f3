"""Shows how often each kind of interval holds the true mean, by number of problems.

``python -m benchmarks.intervals`` draws evaluations with eight samples per problem, and paired differences between two
methods with one answer per problem. It prints the share (in %) of the evaluations whose 95 % interval holds the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np

from tmas.evaluation.estimators import BootstrapSettings, estimates
from tmas.evaluation.intervals import DIFFERENCE, SHARE, Bounds, Floats

EVALUATIONS = 2000
SAMPLES = 8
ACCURACIES = {"half right, unequal": (0.5, 0.5), "a tenth right": (0.3, 2.7)}
"""Parameters of the Beta distribution of the problems' true accuracies."""
DIFFERENCES = {"no difference": (0.1, 0.1), "10 points better": (0.15, 0.05)}
"""Share of the problems that only the first method solves, and that only the second one solves."""
PROBLEMS = (3, 5, 10, 20, 50, 100)
KINDS = get_args(BootstrapSettings.model_fields["interval"].annotation)
Draw = Callable[[np.random.Generator, int], Floats]


def coverage(kind: str, problems: int, draw: Draw, truth: float, bounds: Bounds) -> float:
    """Return the share of the evaluations whose interval holds ``truth``."""
    values = draw(np.random.default_rng(problems), problems)
    settings = BootstrapSettings.model_validate({"interval": kind, "resamples": 1000})
    found = [(e.low, e.high) for e in estimates(values.tolist(), settings, bounds)]
    return float(np.mean([low - 1e-12 <= truth <= high + 1e-12 for low, high in found if None not in (low, high)]))


def accuracies(alpha: float, beta: float) -> Draw:
    return lambda rng, n: rng.binomial(SAMPLES, rng.beta(alpha, beta, (n, EVALUATIONS))) / SAMPLES


def differences(better: float, worse: float) -> Draw:
    return lambda rng, n: rng.choice([1.0, -1.0, 0.0], p=[better, worse, 1 - better - worse], size=(n, EVALUATIONS))


def main() -> None:
    print("| mean of | problems |", *(f"{kind} |" for kind in KINDS))
    print("| --- | --- |", *("--- |" for _ in KINDS))
    cases = [(name, accuracies(a, b), a / (a + b), SHARE) for name, (a, b) in ACCURACIES.items()]
    cases += [(name, differences(a, b), a - b, DIFFERENCE) for name, (a, b) in DIFFERENCES.items()]
    for name, draw, truth, bounds in cases:
        for problems in PROBLEMS:
            cells = (f"{100 * coverage(kind, problems, draw, truth, bounds):.1f} |" for kind in KINDS)
            print(f"| {name} | {problems} |", *cells, flush=True)


if __name__ == "__main__":
    main()
