"""A small problem for tests of rewards: its banks, a right solution, and verdicts of a judge."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tmas.records import Experience, Guideline

QUESTION = "Positive numbers x and y satisfy x + y = 10 and xy = 21. Find x^2 + y^2."
GOLD = "58"
FIRST_STEP = r"Squaring the sum gives $(x+y)^2 = 100$, and taking away twice the product leaves $100 - 42 = 58$"
SECOND_STEP = "the polynomial $t^2 - 10t + 21$ is $(t-3)(t-7)$, so the numbers are 3 and 7 and $9 + 49 = 58$"
SOLUTION = rf"{FIRST_STEP}. As a check, {SECOND_STEP}. The answer is \boxed{{58}}."

_SEEN: dict[str, Any] = {"created": 0, "last_seen": 0}
EXPERIENCE = (
    Experience(item_id="E1", kind="conclusion", statement="x^2 + y^2 equals (x + y)^2 - 2xy.", **_SEEN),
    Experience(
        item_id="E2", kind="pitfall", statement="Writing (x + y)^2 = x^2 + y^2 loses the cross term 2xy.", **_SEEN
    ),
    Experience(item_id="E3", kind="conclusion", statement="x and y are the roots of t^2 - 10t + 21 = 0.", **_SEEN),
)
GUIDELINES = (
    Guideline(
        item_id="G1",
        name="Squaring the sum",
        description="Square x + y and take away twice the product to reach the sum of squares.",
        **_SEEN,
    ),
    Guideline(item_id="G2", name="Vieta", description="Find x and y as the roots of a quadratic polynomial.", **_SEEN),
)


def extra_info(source: str = "normal", **changes: Any) -> dict[str, Any]:
    """The ``extra_info`` of a row of ``source``, with the fields that the reward manager adds."""
    return {
        "index": 0,
        "split": "train",
        "problem_id": "p1",
        "question": QUESTION,
        "source": source,
        "iteration": 1,
        "experience": to_json(EXPERIENCE if source == "experience" else ()),
        "guidelines": to_json(GUIDELINES if source == "guideline" else ()),
        "baseline_pass_rate": -1.0,
        "truncated": False,
        "response_tokens": 100,
    } | changes


def to_json(items: Sequence[Experience | Guideline]) -> str:
    return json.dumps([item.model_dump(mode="json") for item in items])


def experience_verdict(repeated: Mapping[str, str] | None = None, **quotes: str) -> dict[str, Any]:
    """A verdict on the use of experience.

    ``quotes``: a quote for each applied item, by its id; the other items were not used. ``repeated``: a quote for each
    pitfall that the solution repeats.
    """
    items = [
        {"id": item.item_id, "use": "applied", "correct": True, "quote": quotes[item.item_id]}
        if item.item_id in quotes
        else {"id": item.item_id, "use": "none", "correct": False, "quote": ""}
        for item in EXPERIENCE
    ]
    return {"items": items, "repeated": [{"id": i, "quote": quote} for i, quote in (repeated or {}).items()]}


def novelty_verdict(
    name: str = "A direct parametrisation",
    description: str = "Write x = 5 + d and y = 5 - d and solve for the deviation d.",
    steps: Sequence[str] = (FIRST_STEP, SECOND_STEP),
    same: Sequence[str] = (),
    variation_of: Sequence[str] = (),
) -> dict[str, Any]:
    """A verdict on novelty."""
    return {
        "name": name,
        "description": description,
        "steps": [*steps],
        "same": [*same],
        "variation_of": [*variation_of],
    }


def settings(base_url: str = "", **changes: Any) -> dict[str, Any]:
    """Settings of the reward with a judge at ``base_url``. Without a URL: no judge and no bonus."""
    off = {"experience": {"form": "none"}, "novelty": {"form": "none"}}
    patience = {"max_attempts": 2, "backoff_base": 0.01}
    judge = {"name": "judge", "base_url": base_url, "timeout": 60.0, "patience": patience}
    return ({"judge": judge} if base_url else off) | changes
