"""A scripted team. Each role's reply depends only on prompt and seed, so that runs replay exactly."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tmas.files import read_lines
from tmas.methods import AnyMethodSettings
from tmas.methods.base import MethodSettings
from tmas.methods.tmas import TMASSettings
from tmas.records import Problem
from tmas.run.trace import read_calls
from tmas.settings import ModelSettings
from tmas.testing.chat_server import Body

MARKS = {
    "Give feedback on it": "feedback",
    "Distil the attempt": "distill",
    "You are a strict verifier": "verification",
    "Summarise for the next round": "summary",
    "Write a clean version of the candidate": "summary",
    "Compare the solutions above": "comparison",
    "Maintain the experience bank": "experience",
    "Maintain the guideline bank": "guideline",
}


def prompt(body: Body) -> str:
    """The user's message."""
    return body["messages"][-1]["content"]


def role_of(body: Body) -> str:
    """The role that a request belongs to, by its prompt."""
    return next((role for mark, role in MARKS.items() if mark in prompt(body)), "solution")


def number(body: Body, choice: int = 0) -> int:
    """A pseudo-random number that depends only on prompt, seed and choice."""
    contents = "".join(message["content"] for message in body["messages"])
    text = f"{contents}|{body.get('seed')}|{choice}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def reply(body: Body) -> list[str]:
    """A well-formed reply for each requested choice."""
    kind = next((kind for mark, kind in KINDS.items() if mark in prompt(body)), role_of(body))
    return [REPLIES[kind](number(body, choice)) for choice in range(body.get("n", 1))]


KINDS = {"Self-evaluation": "self-graded", "Write a clean version of the candidate": "clean version"}
"""Prompts that need a different reply than the other prompts of their role."""
REPLIES: dict[str, Any] = {
    "solution": lambda n: f"I tried approach {n % 97}. The answer is \\boxed{{{n % 3}}}.",
    "self-graded": lambda n: f"{REPLIES['solution'](n)}\n# Self-evaluation\n{REPLIES['verification'](n // 7)}",
    "verification": lambda n: f"Step {n % 89} was checked.\nThe final grade is: \\boxed{{{('0', '0.5', '1')[n % 3]}}}",
    "feedback": lambda n: (
        "Each step holds. It is correct." if n % 4 == 0 else f"Wrong.\n# Rewritten solution\n{REPLIES['solution'](n)}"
    ),
    "distill": lambda n: json.dumps(
        {
            "verified_propositions": [f"Proposition {n % 5} holds. (Source: algebra)"],
            "critical_pitfalls": [f"Step {n % 7} -> Dead End -> Trigger: haste"],
        }
    ),
    "summary": lambda n: f"Summary {n}: one step holds.",
    "clean version": lambda n: f"In short, by approach {n % 97}: \\boxed{{{n % 3}}}.",
    "comparison": lambda n: f"Solution {n % 2} justifies step {n % 89}.\nJudgment: {n % 2}",
    "experience": lambda n: json.dumps(
        {"new": [{"kind": "conclusion", "statement": f"Fact {n} holds.", "rollouts": [0]}], "updates": []}
    ),
    "guideline": lambda n: json.dumps(
        {"new": [{"name": f"Route {n}", "description": "It was tried.", "rollouts": [0]}], "updates": []}
    ),
}


def model(base_url: str, **changes: Any) -> ModelSettings:
    """Settings for the scripted server as a model, with short retries."""
    settings = {
        "name": "scripted",
        "base_url": base_url,
        "context_length": 100_000,
        "sampling": {"max_tokens": 1000},
        "patience": {"backoff_base": 0.01, "max_attempts": 3},
    }
    return ModelSettings.model_validate(settings | changes)


def method(**changes: Any) -> TMASSettings:
    """TMAS settings at test size: N = 3, M = 2, T = 3."""
    return TMASSettings.model_validate(SMALL["tmas"] | changes)


SMALL: dict[str, dict[str, Any]] = {
    "tmas": {"n_candidates": 3, "n_verifications": 2, "max_iterations": 3, "epsilon": 0.4},
    "majority_vote": {"n_candidates": 5},
    "best_of_n": {"n_candidates": 4, "n_verifications": 2},
    "self_refine": {"n_candidates": 3, "max_iterations": 4},
    "verify_refine": {"n_candidates": 3, "n_verifications": 2, "n_best": 2, "max_iterations": 3},
    "pacore": {"widths": [3], "max_iterations": 3},
    "rse": {"n_candidates": 3, "max_iterations": 3},
    "rsa": {"n_candidates": 3, "n_aggregated": 2, "max_iterations": 3},
    "genselect": {"n_candidates": 5, "n_compared": 2, "n_votes": 3, "shown": "summary", "n_summaries": 2},
}
"""Settings of every method at test size."""


def small(name: str, **changes: Any) -> MethodSettings:
    """The settings of the method ``name`` at test size."""
    return TypeAdapter(AnyMethodSettings).validate_python({"name": name} | SMALL[name] | changes)


def problems(count: int) -> list[Problem]:
    return [Problem(problem_id=f"p{i}", question=f"What is {i} + {i}?", answer=str(2 * i)) for i in range(count)]


def recorded_calls(run_directory: Path) -> dict[str, dict[str, Any]]:
    """The calls in a run's traces, by the parts of their key, joined by slashes."""
    calls = [call for file in (run_directory / "trace").glob("*.jsonl") for call in read_calls(file)]
    return {
        "/".join(str(part) for part in call.key.model_dump().values()): {
            **call.model_dump(
                mode="json", exclude={name for name in ("packing", "reply", "failure") if not getattr(call, name)}
            ),
            "messages": [message.model_dump() for message in call.messages],
        }
        for call in calls
    }


def essence(directory: Path) -> list[dict[str, Any]]:
    """Prediction lines without values that depend on the clock or the order of completion, and without checksum."""
    lines = sorted(read_lines(directory / "predictions.jsonl"), key=lambda line: line["problem_id"])
    for line in lines:
        line.pop("check")
        for entry in line["usage"]:
            entry["usage"].pop("seconds")
    return lines
