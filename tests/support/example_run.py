"""Generates the examples of docs/run-directory.md with a small run of ``tmas solve`` against a scripted server.

``python -m tests.support.example_run docs/run-directory.md`` repeats the run and writes its examples to the page. The
run has two iterations of two candidates. In the second iteration one candidate explores and is truncated, and one
verification of the other candidate is retried. The first prompts of the memory agents are too long and are shortened.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tmas.testing.chat_server import Body, Script, ScriptedServer, run_in_thread

PROBLEM = {"problem_id": "p1", "question": "What is the sum of the first 100 positive integers?", "answer": "5050"}
FIRST = """\
Pair the first number with the last, the second with the last but one, and so on: there are 50 pairs, and each of them
has the sum 101. The sum of all the numbers is therefore 50 times 101, so the answer is \\boxed{5050}."""
SECOND = "By the formula for triangular numbers the sum is 100 times 101 over 2, so the answer is \\boxed{5050}."
GRADED = "Each step holds.\nBased on my evaluation, the final grade is: \\boxed{1}"
EXPERIENCE = {"kind": "conclusion", "statement": "The numbers form 50 pairs, each of sum 101.", "rollouts": [0]}
GUIDELINE = {"name": "Pairing", "description": "Pair the numbers from both ends.", "rollouts": [0]}
CONFIRMED = {"new": [], "updates": [{"id": "E1", "action": "confirm", "statement": ""}]}
SCRIPTS = {
    "different in substance": Script(("Let us go by induction",), finish_reason="length"),
    "Solve the problem. Build on": Script((SECOND,)),
    "Solve the problem.": Script((FIRST,)),
    "You are a strict verifier": Script((GRADED,)),
    "Summarise for the next round": Script(("It pairs the numbers; the verifications validate the result.",)),
    "[E1, ": Script((json.dumps(CONFIRMED),)),
    "Maintain the experience bank": Script((json.dumps({"new": [EXPERIENCE], "updates": []}),)),
    "Maintain the guideline bank": Script((json.dumps({"new": [GUIDELINE], "updates": []}),)),
}
SETTINGS = {
    "model.name": "scripted",
    "model.context_length": 1500,
    "model.sampling.max_tokens": 300,
    "method.n_candidates": 2,
    "method.n_verifications": 2,
    "method.max_iterations": 2,
    "method.epsilon": 0.5,
    "seed": 1,
}


def reply(body: Body) -> Script:
    """The reply to a prompt, by the role that it is for. The first verification of ``SECOND`` has no grade."""
    prompt = body["messages"][0]["content"]
    if "strict verifier" in prompt and SECOND in prompt and body.get("n") == 2:
        return Script(("I cannot say.", GRADED))
    return next(script for words, script in SCRIPTS.items() if words in prompt)


def make(folder: Path) -> Path:
    """Run ``tmas solve`` in ``folder`` and return the run directory."""
    problems = folder / "problems.jsonl"
    problems.write_text(json.dumps(PROBLEM) + "\n")
    with run_in_thread(ScriptedServer(reply)) as server:
        given = {"problems": problems, "output_dir": folder / "run", "model.base_url": server.base_url, **SETTINGS}
        command = [Path(sys.executable).with_name("tmas"), "solve", *(f"{key}={value}" for key, value in given.items())]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "run"


def examples(run: Path) -> dict[str, Any]:
    """The examples, shortened, by their names on the page."""
    [trace] = (run / "trace").iterdir()
    entries = list(_lines(trace))
    first = {kind: next(entry for entry in entries if entry["type"] == kind) for kind in ("prompt", "call", "decision")}
    whole = {
        "manifest.json": json.loads((run / "manifest.json").read_text()),
        **{f"trace: {kind}": entry for kind, entry in first.items()},
        "trace: packing": next(entry["packing"] for entry in entries if "packing" in entry),
        "predictions.jsonl": next(_lines(run / "predictions.jsonl")),
        "failures.jsonl": next(_lines(run / "failures.jsonl")),
        "metrics.json": json.loads((run / "metrics.json").read_text()),
    }
    return {name: _short(value) for name, value in whole.items()}


def blocks(page: str) -> dict[str, Any]:
    """The examples on a page, by name."""
    return {match["name"]: json.loads(match["json"]) for match in BLOCK.finditer(page)}


BLOCK = re.compile(r"(?P<head><!-- example: (?P<name>[^>]+) -->\n```json\n)(?P<json>.*?)(?=\n```)", re.DOTALL)


def _lines(path: Path) -> Iterator[Any]:
    return map(json.loads, path.read_text().splitlines())


def _short(value: Any) -> Any:
    """Shorten a value: cut long texts, keep one object per list, round numbers, drop settings of most roles.

    Only the solution agent's model settings are kept.
    """
    if isinstance(value, dict):
        return {key: _short(part) for key, part in value.items() if not re.match(r"model\.(?!solution)", key)}
    if isinstance(value, list):
        return [_short(part) for part in value if isinstance(part, dict)][:1] or value
    if isinstance(value, str) and len(value) > 70:
        return value[:67] + "..."
    return round(value, 3) if isinstance(value, float) else value


def _pretty(value: Any, indent: str = "") -> str:
    """JSON in which every part that fits into one line is on one line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent + line) <= 110 or not isinstance(value, dict | list):
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(key)}: {_pretty(part, inner)}" for key, part in value.items()]
        return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _pretty(part, inner) for part in value) + f"\n{indent}]"


def main() -> None:
    page = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        made = examples(make(Path(folder)))
    text = BLOCK.sub(lambda match: match["head"] + _pretty(made[match["name"]]), page.read_text(encoding="utf-8"))
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
