"""Addition problems that a tiny policy can memorise, with the prompts of ``tmas solve`` and chats to train on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson

from recipes.cpu.tiny_policy import build
from tmas.training.contexts import TrainingProblem, normal_row
from tmas.training.rows import TrainingRow


class _UnlimitedWindow:
    """A context window into which every prompt fits."""

    def fits(self, prompt: str) -> bool:
        return True

    def count(self, text: str) -> int:
        return len(text)


def problems(count: int) -> list[TrainingProblem]:
    pairs = [(i % 7 + 2, i // 7 + 3) for i in range(count)]
    return [TrainingProblem(problem_id=f"{a}+{b}", question=f"What is {a} + {b}?", answer=str(a + b)) for a, b in pairs]


def chat(problem: TrainingProblem) -> dict[str, list[dict[str, str]]]:
    """The prompt of the first iteration of ``tmas solve``, and a right reply to it."""
    row = normal_row(problem, _UnlimitedWindow())
    assert isinstance(row, TrainingRow)
    reply = f"I add the two numbers. The answer is \\boxed{{{problem.answer}}}."
    return {"messages": [*(m.model_dump() for m in row.prompt), {"role": "assistant", "content": reply}]}


def write(folder: Path, chosen: Sequence[TrainingProblem]) -> None:
    """Write ``policy/`` (untrained), ``traces.jsonl`` (chats) and ``problems.jsonl`` to ``folder``."""
    chats = [chat(problem) for problem in chosen]
    build(folder / "policy", [message["content"] for line in chats for message in line["messages"]])
    (folder / "traces.jsonl").write_bytes(b"\n".join(orjson.dumps(line) for line in chats))
    lines = [problem.model_dump(include={"problem_id", "question", "answer"}) for problem in chosen]
    (folder / "problems.jsonl").write_bytes(b"\n".join(orjson.dumps(line) for line in lines))
