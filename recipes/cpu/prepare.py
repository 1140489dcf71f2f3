"""Writes a task that a tiny policy can learn in minutes: sums of two digits, with the project's own prompts.

``python -m recipes.cpu.prepare FOLDER`` writes to FOLDER:

- ``policy/``: an untrained model (recipes/cpu/tiny_policy.py);
- ``sft.parquet``: chats that teach the form of a reply. Only the share ``SKILL`` of them has the right sum, so that
  reinforcement learning has something to improve;
- ``train.parquet`` and ``val.parquet``: rows with and without memory in the published proportions. Code in this file
  writes the memory: an experience states the sum with its terms exchanged, a guideline describes how to count;
- ``problems.jsonl``: the validation problems, for ``tmas solve``.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow
from pyarrow import parquet

from recipes.cpu.tiny_policy import CONTEXT, build
from tmas.files import write_lines
from tmas.llm.tokens import ContextWindow, token_counter
from tmas.records import Experience, Failure, Guideline
from tmas.training.contexts import MemorySnapshot, TrainingProblem, experience_row, guideline_row, normal_row
from tmas.training.rows import Source, TrainingRow, write_rows

SKILL = 0.4
"""Share of the chats whose reply has the right sum."""
REPLY_TOKENS = 48
"""Tokens of the context that are reserved for the reply."""
SOURCE_WEIGHTS: dict[Source, float] = {"normal": 2200, "experience": 1600, "guideline": 600}
"""Weights of the sources: the numbers of rows in the paper's training set."""


def prepare(
    folder: Path, n_train: int = 512, n_val: int = 32, n_sft: int = 4096, seed: int = 0, terms: int = 10
) -> None:
    """Write all files to ``folder``: sums of two numbers below ``terms``. The same arguments give the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    estimated = ContextWindow(token_counter("estimate"), 100 * CONTEXT, REPLY_TOKENS)
    texts = [_row(draw, estimated, "train", i, terms).prompt[0].content for i in range(256)]
    build(folder / "policy", [*texts, *(_reply(3, b, 3 + b) for b in range(10))], seed)
    window = ContextWindow(token_counter(str(folder / "policy")), CONTEXT, REPLY_TOKENS)
    write_rows(folder / "train.parquet", (_row(draw, window, "train", i, terms) for i in range(n_train)))
    write_rows(folder / "val.parquet", (_row(draw, window, "validation", i, terms) for i in range(n_val)))
    chats = list(_chats(draw, window, n_sft, terms))
    parquet.write_table(pyarrow.Table.from_pylist([{"messages": chat} for chat in chats]), folder / "sft.parquet")
    problems = [_problem(draw.randrange(terms), draw.randrange(terms), "validation", i) for i in range(n_val)]
    lines = [p.model_dump(include={"problem_id", "question", "answer"}) for p in problems]
    write_lines(folder / "problems.jsonl", lines)


def _row(draw: random.Random, window: ContextWindow, split: str, index: int, terms: int) -> TrainingRow:
    a, b = draw.randrange(terms), draw.randrange(terms)
    problem = _problem(a, b, split, index)
    [source] = draw.choices(list(SOURCE_WEIGHTS), list(SOURCE_WEIGHTS.values()))
    if source == "normal":
        row = normal_row(problem, window)
    elif source == "experience":
        row = experience_row(problem, MemorySnapshot(iteration=1, experiences=(_experience(a, b),)), window)
    else:
        row = guideline_row(problem, MemorySnapshot(iteration=1, guidelines=(_guideline(),)), window)
    if isinstance(row, Failure):
        raise ValueError(row.message)
    info = row.extra_info.model_copy(update={"index": index})
    return row.model_copy(update={"extra_info": info})


def _problem(a: int, b: int, split: str, index: int) -> TrainingProblem:
    return TrainingProblem(
        problem_id=f"{split}-{index}",
        question=f"What is {a} + {b}?",
        answer=str(a + b),
        split=split,  # type: ignore[arg-type]
        origin="recipes/cpu",
        licence="Apache-2.0",
        baseline_pass_rate=SKILL,
    )


def _experience(a: int, b: int) -> Experience:
    return Experience(
        item_id="e1", kind="conclusion", statement=f"{b} + {a} = {a + b}", created=0, last_seen=0, rollouts=((0, 0),)
    )


def _guideline() -> Guideline:
    described = "start at the first number and count up one by one"
    return Guideline(item_id="g1", name="Counting on", description=described, created=0, last_seen=0)


def _chats(draw: random.Random, window: ContextWindow, n: int, terms: int) -> Iterator[list[dict[str, str]]]:
    for index in range(n):
        row = _row(draw, window, "train", index, terms)
        a, b = (int(term) for term in row.extra_info.question.removeprefix("What is ").removesuffix("?").split(" + "))
        stated = a + b if draw.random() < SKILL else draw.randrange(2 * terms - 1)
        yield [row.prompt[0].model_dump(), {"role": "assistant", "content": _reply(a, b, stated)}]


def _reply(a: int, b: int, stated: int) -> str:
    return f"Adding {b} to {a} gives \\boxed{{{stated}}}."


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
