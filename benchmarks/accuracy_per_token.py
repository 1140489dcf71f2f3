"""Accuracy per token: TMAS and baselines on the miniature's policy, served by one real vLLM (docs/miniature.md).

``python -m benchmarks.accuracy_per_token FOLDER [--policy DIR] [--problems N]`` solves test problems by all methods and
prints, for each baseline, the accuracy of its selected answers, that of TMAS within the tokens that the baseline spent
on a problem in the mean, and the ratio of the two. Tokens are those of prompts and replies, or of replies alone. The
same command resumes.
"""

from __future__ import annotations

import argparse
import asyncio
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
from tmas.miniature import POLICY

BASELINES = ("majority_vote", "best_of_n")
"""The shipped policy plays these fairly; docs/miniature.md says why not the others."""
KINDS = {"all tokens": Measure(), "generated tokens": Measure(tokens="completion")}


def compared(ours: Group, theirs: Group, measure: Measure) -> tuple[float, float, float]:
    """The mean tokens of ``theirs`` on a problem, the accuracy of ``ours`` within so many, and that of ``theirs``."""
    spent = [measure.spent(problem.iterations[-1]) for e in theirs.evaluations for problem in e.by_problem]
    mean = statistics.fmean(spent)
    of_ours = accuracy_at(ours.evaluations, round(mean), measure).value
    of_theirs = accuracy_at(theirs.evaluations, max(spent), measure).value
    assert of_ours is not None
    assert of_theirs is not None
    return mean, of_ours, of_theirs


def show(groups: list[Group]) -> None:
    ours, *others = groups
    for kind, measure in KINDS.items():
        table = Table("method", kind, "accuracy", "TMAS", "ratio", title=f"Selected answers at equal {kind}")
        for theirs in others:
            tokens, of_ours, of_theirs = compared(ours, theirs, measure)
            ratio = f"{of_ours / of_theirs:.2f}" if of_theirs else "-"
            table.add_row(theirs.label, f"{tokens:,.0f}", f"{of_theirs:.1%}", f"{of_ours:.1%}", ratio)
        Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--policy", type=Path, default=POLICY, help="a Hugging Face folder; the shipped one by default")
    parser.add_argument("--problems", type=int, default=50)
    parser.add_argument("--baselines", nargs="+", default=BASELINES, help="methods of recipes/miniature/solve.sh")
    given = parser.parse_args()
    problems = given.folder / "task" / "test.jsonl"
    prepare(given.folder / "task", Task(), {"test": given.problems})
    runs = [f"{method}-0" for method in ("tmas", *given.baselines)]
    solve = ["recipes/miniature/solve.sh", str(given.policy), str(given.folder), str(problems), *runs]
    if code := asyncio.run(serve(given.policy, "miniature", given.folder / "vllm.log", solve)):
        return code
    folders = [given.folder / run for run in runs]
    show(group_runs(folders, uvloop.run(evaluate(EvaluateSettings(runs=tuple(folders))))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
