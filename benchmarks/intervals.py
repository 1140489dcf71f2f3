"""Shows how often each kind of interval holds the true mean, by number of problems.

``python -m benchmarks.intervals`` draws evaluations of P problems with eight samples each, whose true accuracies follow
a Beta distribution. It prints the share of the evaluations whose 95 % interval holds the true mean.
"""

from __future__ import annotations

from typing import get_args

import numpy as np

from tmas.evaluation.estimators import BootstrapSettings, estimates

EVALUATIONS = 2000
SAMPLES = 8
ACCURACIES = {"half right, unequal problems": (0.5, 0.5), "a tenth right": (0.3, 2.7)}
KINDS = get_args(BootstrapSettings.model_fields["interval"].annotation)


def coverage(kind: str, problems: int, alpha: float, beta: float) -> float:
    rng = np.random.default_rng(problems)
    values = rng.binomial(SAMPLES, rng.beta(alpha, beta, (problems, EVALUATIONS))) / SAMPLES
    settings = BootstrapSettings.model_validate({"interval": kind, "resamples": 1000})
    found = estimates(values.tolist(), settings)
    truth = alpha / (alpha + beta)
    return float(
        np.mean([e.low - 1e-12 <= truth <= e.high + 1e-12 for e in found if e.low is not None and e.high is not None])
    )


def main() -> None:
    print("| true accuracies | problems |", *(f"{kind} |" for kind in KINDS))
    print("| --- | --- |", *("--- |" for _ in KINDS))
    for name, (alpha, beta) in ACCURACIES.items():
        for problems in (3, 5, 7, 10, 15, 20, 30, 50, 100):
            cells = (f"{100 * coverage(kind, problems, alpha, beta):.1f} |" for kind in KINDS)
            print(f"| {name} | {problems} |", *cells, flush=True)


if __name__ == "__main__":
    main()
