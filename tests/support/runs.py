"""Writes small run directories for tests of the evaluation. The expected figures can be computed by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from tmas.files import digest, read_lines
from tmas.records import SCHEMA_VERSION, Problem, Usage
from tmas.run.budget import recorded_charges

Line = dict[str, Any]
ITEM = {"created": 0, "last_seen": 0}
SELECTED = {"iteration": 0, "candidate": 0, "mean_grade": None, "votes": 1, "rule": "grade"}


def candidate(
    answer: str | None, grades: Sequence[float] = (), mode: str = "initial", failure: str | None = None
) -> Line:
    return {
        "mode": mode,
        "answer": answer,
        "correct": None,
        "grades": [*grades],
        "mean_grade": sum(grades) / len(grades) if grades else None,
        "failure": failure,
    }


def iteration(
    candidates: Sequence[Line], selected: str | None = None, banks: Sequence[Sequence[str]] = ((), ()), **change: Any
) -> Line:
    """An iteration of a prediction.

    ``selected``: the selected answer, None if there is none. ``banks``: item ids of the experience bank and of the
    guideline bank. ``change``: lists of item ids that replace the empty lists of the experience bank's change.
    """
    empty = {"added": [], "merged": [], "confirmed": [], "corrected": [], "dropped": [], "evicted": []}
    return {
        "candidates": [{"candidate": i, **one} for i, one in enumerate(candidates)],
        "experience_bank": [{**ITEM, "item_id": name, "kind": "pitfall", "statement": name} for name in banks[0]],
        "experience_change": empty | change,
        "guideline_bank": [{**ITEM, "item_id": name, "name": name, "description": name} for name in banks[1]],
        "guideline_change": None,
        "selected": None if selected is None else {**SELECTED, "answer": selected},
        "selected_correct": None,
    }


def prediction(
    problem_id: str, gold: str | None, iterations: Sequence[Line], tokens: Sequence[tuple[int, int]] = ()
) -> Line:
    """A line of predictions.jsonl.

    ``tokens``: prompt and completion tokens of each iteration. Solution and verification agent use one half each.
    """
    usage = [
        {
            "role": role,
            "iteration": t,
            "usage": Usage(calls=1, prompt_tokens=prompt // 2, completion_tokens=completion // 2).model_dump(),
        }
        for t, (prompt, completion) in enumerate(tokens)
        for role in ("solution", "verification")
    ]
    return {
        "v": SCHEMA_VERSION,
        "problem_id": problem_id,
        "gold": gold,
        "method": "tmas",
        "answer": None,
        "correct": None,
        "solution": None,
        "selected": None,
        "stop": "max_iterations",
        "iterations": [{"iteration": t, **i} for t, i in enumerate(iterations)],
        "usage": usage,
        "failures": 0,
        "packed_prompts": 0,
        "terms": {"method": {}, "limits": {"tokens_per_problem": None}},
    }


def write_run(path: Path, lines: Sequence[Line], unfinished: Sequence[str] = (), **settings: Any) -> Path:
    """Write a run directory.

    ``unfinished``: ids of problems without a prediction. ``settings``: settings in the manifest; ``__`` stands for a
    dot, as in ``method__name="rse"``.
    """
    path.mkdir(parents=True)
    chosen = {"seed": 0, "method.name": "tmas", "model.solution.name": "small"}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "settings": chosen | {name.replace("__", "."): value for name, value in settings.items()},
        "prompts": {},
        "packages": {},
        "problems": {
            **{line["problem_id"]: digest([question(line["problem_id"]), line["gold"]]) for line in lines},
            **dict.fromkeys(unfinished, "unknown"),
        },
    }
    (path / "manifest.json").write_bytes(orjson.dumps(manifest))
    (path / "predictions.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


def edit_lines(file: Path, change: Callable[[Line], Line]) -> None:
    """Change every line of a file of a run on purpose. The new lines have no checksum, as in older runs."""
    lines = [change({name: value for name, value in line.items() if name != "check"}) for line in read_lines(file)]
    file.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))


def question(problem_id: str) -> str:
    return f"What is {problem_id}?"


def problem(problem_id: str, gold: str) -> Problem:
    return Problem(problem_id=problem_id, question=question(problem_id), answer=gold)


def recorded_tokens(directory: Path) -> int:
    """The tokens that the traces of a run have charged to its budget."""
    return sum(usage.total_tokens for usage in recorded_charges(directory).values())
