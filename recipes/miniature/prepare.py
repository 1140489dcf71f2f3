"""Write the miniature's problem files: ``python -m recipes.miniature.prepare FOLDER`` writes one for each split.

Training problems have the fields that ``tmas distill`` and ``tmas build`` need. Validation and test problems are for
``tmas solve``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from recipes.miniature.language import answer, question
from recipes.miniature.task import Split, Task
from tmas.files import write_lines
from tmas.records import Problem
from tmas.training.contexts import TrainingProblem

SIZES: dict[Split, int] = {"train": 1500, "validation": 100, "test": 150}


def prepare(folder: Path, task: Task, sizes: dict[Split, int], seed: int = 0) -> None:
    """Write ``FOLDER/SPLIT.jsonl`` for each split. The same arguments give the same files."""
    for split, size in sizes.items():
        write_lines(folder / f"{split}.jsonl", islice(_problems(task, split, seed), size))


def _problems(task: Task, split: Split, seed: int) -> Iterator[Problem]:
    for number, (blocks, solution) in enumerate(task.problems(split, seed)):
        problem = Problem(problem_id=f"{split}-{number}", question=question(blocks), answer=answer(solution))
        if split == "train":
            source = {"origin": "recipes/miniature", "licence": "Apache-2.0"}
            yield TrainingProblem.model_validate(problem.model_dump() | source)
        else:
            yield problem


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, number in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=number, help=f"{name} problems (%(default)s)")
    parser.add_argument(
        "--blocks", type=int, default=Task().blocks, help="blocks in a problem, at most 4 (%(default)s)"
    )
    given = parser.parse_args()
    prepare(given.folder, Task(blocks=given.blocks), {name: getattr(given, name) for name in SIZES})
