"""Generates the examples of docs/evaluation.md: evaluates the run of :mod:`tests.support.example_run`.

``python -m tests.support.example_evaluation docs/evaluation.md`` generates them and writes them to the page. A scripted
server plays the judge.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support.example_run import BLOCK, _pretty, _short, make
from tests.support.runs import Line, edit_lines
from tmas.files import read_lines
from tmas.testing.chat_server import Body, ScriptedServer, run_in_thread


def reply(body: Body) -> list[str]:
    """The verdict of the scripted judge."""
    verdict = {"reasoning": "Both are the same whole number.", "verdict": "equivalent"}
    return [json.dumps(verdict)] * body.get("n", 1)


def evaluated(folder: Path) -> Path:
    """Run, evaluate, and return the run directory.

    The answers in it are written differently from the gold answer, so that the judge is asked.
    """
    run = make(folder)
    edit_lines(run / "predictions.jsonl", _with_another_answer)
    with run_in_thread(ScriptedServer(reply)) as server:
        given = ("judge=endpoint", "judge.name=scripted", f"judge.base_url={server.base_url}")
        command = [Path(sys.executable).with_name("tmas"), "evaluate", f"runs=[{run}]", *given]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return run


def _with_another_answer(line: Line) -> Line:
    return json.loads(json.dumps(line).replace('"answer": "5050"', '"answer": "5050.0"'))


def examples(run: Path) -> dict[str, Any]:
    """The examples, shortened, by their names on the page."""
    whole = {
        "evaluation.json": json.loads((run / "evaluation.json").read_text()),
        "judgements.jsonl": next(read_lines(run / "judgements.jsonl")),
    }
    return {name: _short(value) for name, value in whole.items()}


def main() -> None:
    page = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        made = examples(evaluated(Path(folder)))
    text = BLOCK.sub(lambda match: match["head"] + _pretty(made[match["name"]]), page.read_text(encoding="utf-8"))
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
