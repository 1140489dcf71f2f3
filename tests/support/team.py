"""A scripted team: what each role replies is a function of prompt and seed alone, so that runs replay exactly."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.support.chat_server import Body
from tmas.config import ModelSettings
from tmas.inference.store import read_trace
from tmas.methods.tmas import TMASSettings
from tmas.records import Problem

MARKS = {
    "You are a strict verifier": "verification",
    "Summarise for the next round": "summary",
    "Maintain the experience bank": "experience",
    "Maintain the guideline bank": "guideline",
}


def role_of(body: Body) -> str:
    """The role that a request's prompt is for."""
    prompt = body["messages"][0]["content"]
    return next((role for mark, role in MARKS.items() if mark in prompt), "solution")


def number(body: Body, choice: int = 0) -> int:
    """Pseudo-random, from prompt and seed alone."""
    text = f"{body['messages'][0]['content']}|{body.get('seed')}|{choice}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def reply(body: Body) -> list[str]:
    """A well-formed reply for each choice asked for."""
    return [REPLIES[role_of(body)](number(body, choice)) for choice in range(body.get("n", 1))]


REPLIES: dict[str, Any] = {
    "solution": lambda n: f"I tried approach {n % 97}. The answer is \\boxed{{{n % 3}}}.",
    "verification": lambda n: f"Step {n % 89} was checked.\nThe final grade is: \\boxed{{{('0', '0.5', '1')[n % 3]}}}",
    "summary": lambda n: f"Summary {n}: one step holds.",
    "experience": lambda n: json.dumps(
        {"new": [{"kind": "conclusion", "statement": f"Fact {n} holds.", "rollouts": [0]}], "updates": []}
    ),
    "guideline": lambda n: json.dumps(
        {"new": [{"name": f"Route {n}", "description": "It was tried.", "rollouts": [0]}], "updates": []}
    ),
}


def model(base_url: str, **changes: Any) -> ModelSettings:
    """The scripted server as a model, with little patience."""
    settings = {
        "name": "scripted",
        "base_url": base_url,
        "context_length": 100_000,
        "sampling": {"max_tokens": 1000},
        "patience": {"backoff_base": 0.01, "max_attempts": 3},
    }
    return ModelSettings.model_validate(settings | changes)


def method(**changes: Any) -> TMASSettings:
    """TMAS at a size for tests: N = 3, M = 2, T = 3."""
    return TMASSettings.model_validate(
        {"n_candidates": 3, "n_verifications": 2, "max_iterations": 3, "epsilon": 0.4} | changes
    )


def problems(count: int) -> list[Problem]:
    return [Problem(problem_id=f"p{i}", question=f"What is {i} + {i}?", answer=str(2 * i)) for i in range(count)]


def recorded_calls(run_directory: Path) -> dict[str, dict[str, Any]]:
    """The calls in a run's traces, by problem, iteration, role, index and attempt."""
    entries = [e for file in (run_directory / "trace").iterdir() for e in read_trace(file) if e["type"] == "call"]
    return {"/".join(str(part) for part in entry["key"].values()): entry for entry in entries}
