"""Accuracy per token of TMAS and baselines with the miniature's policy on one vLLM server (docs/miniature.md).

``python -m benchmarks.accuracy_per_token FOLDER [--policy DIR] [--problems N]`` solves test problems with all methods.
For each baseline it prints the accuracy of its selected answers, the accuracy of TMAS within the baseline's mean tokens
per problem, and the ratio of the two. It does so for all tokens (prompts and replies) and for generated tokens (replies
alone). Run the same command again to resume.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from recipes.miniature.prepare import prepare
from recipes.miniature.serving import serve
from recipes.miniature.task import Task
from tmas.evaluation.compare import Group, group_runs
from tmas.evaluation.compute import Measure, accuracy_at
from tmas.evaluation.evaluate import EvaluateSettings, evaluate
from tmas.miniature import POLICY, PROMPTS

BASELINES = ("majority_vote", "best_of_n")
"""Baselines that are compared unless others are named.

docs/miniature.md says how well the policy in the package plays the others.
"""
KINDS = {"all tokens": Measure(), "generated tokens": Measure(unit="generated")}


def compare(tmas: Group, baseline: Group, measure: Measure) -> tuple[float, float, float]:
    """The mean tokens of ``baseline`` per problem, the accuracy of ``tmas`` within them, and that of ``baseline``."""
    spent = [measure.spent(problem.iterations[-1]) for e in baseline.evaluations for problem in e.by_problem]
    mean = statistics.fmean(spent)
    tmas_accuracy = accuracy_at(tmas.evaluations, round(mean), measure).value
    baseline_accuracy = accuracy_at(baseline.evaluations, max(spent), measure).value
    assert tmas_accuracy is not None
    assert baseline_accuracy is not None
    return mean, tmas_accuracy, baseline_accuracy


def show(groups: list[Group]) -> None:
    """Print a table for each kind of tokens. The first group is TMAS."""
    tmas, *baselines = groups
    for kind, measure in KINDS.items():
        table = Table("method", kind, "accuracy", "TMAS", "ratio", title=f"Selected answers at equal {kind}")
        for baseline in baselines:
            tokens, tmas_accuracy, accuracy = compare(tmas, baseline, measure)
            ratio = f"{tmas_accuracy / accuracy:.2f}" if accuracy else "-"
            table.add_row(baseline.label, f"{tokens:,.0f}", f"{accuracy:.1%}", f"{tmas_accuracy:.1%}", ratio)
        Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--policy", type=Path, default=POLICY, help="Hugging Face folder; defaults to the one in the package"
    )
    parser.add_argument("--problems", type=int, default=50)
    parser.add_argument("--baselines", nargs="+", default=BASELINES, help="methods of recipes/miniature/solve.sh")
    arguments = parser.parse_args()
    problems = arguments.folder / "task" / "test.jsonl"
    prepare(arguments.folder / "task", Task(), {"test": arguments.problems})
    runs = [f"{method}-0" for method in ("tmas", *arguments.baselines)]
    solve = ["recipes/miniature/solve.sh", str(arguments.policy), str(arguments.folder), str(problems), *runs]
    if arguments.policy == POLICY:
        os.environ["PROMPTS"] = str(PROMPTS)
    if code := asyncio.run(serve(arguments.policy, "miniature", arguments.folder / "vllm.log", solve)):
        return code
    folders = [arguments.folder / run for run in runs]
    show(group_runs(folders, uvloop.run(evaluate(EvaluateSettings(runs=tuple(folders))))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
