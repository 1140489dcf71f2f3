"""The variables of each prompt, with sample values for every branch of the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

_TASK: dict[str, Sequence[Any]] = {"question": ["What is 7 + 5?"], "task": ["answer", "proof"]}
_ATTEMPTS = [[], ["<attempt 0>"], ["<attempt 0>", "<attempt 1>"]]
_BANK = ["", "- [E1] an item"]
_MARKS: dict[str, Sequence[Any]] = {
    "question": ["What is 7 + 5?"],
    "bank": ["- [E1] an item"],
    "solution": ["It is 12."],
    "mark": ["DATA-0"],
    "solution_mark": ["DATA-1"],
}

VARIABLES: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "attempt": {
        "index": [0],
        "answer": [None, "12"],
        "grade": [None, "0.50"],
        "solution": [None, "It is 12."],
        "summary": [None, "Correct."],
    },
    "conversation": {
        "instructions": ["", "Answer in French."],
        "turns": [[], ["User: Hello.", "Assistant: Hi."]],
        "message": ["What is 7 + 5?"],
    },
    "distill": {**_TASK, "reasoning": ["", "7 + 5 = 12"], "solution": ["It is 12."]},
    "experience": {**_TASK, "attempts": _ATTEMPTS, "bank": _BANK, "max_new": [8], "max_chars": [600]},
    "feedback": {**_TASK, "solution": ["It is 12."]},
    "genselect": {**_TASK, "solutions": [["It is 12.", "It is 13."]]},
    "genselect_summary": {**_TASK, "solution": ["It is 12."], "words": [250]},
    "guideline": {**_TASK, "attempts": _ATTEMPTS, "bank": _BANK, "max_new": [8], "max_chars": [600]},
    "judge_code": {"code": ["0a1b2c3d"]},
    "judge_critique": {
        "question": ["What is 7 + 5?"],
        "gold": ["12"],
        "candidate": ["It is 13."],
        "critique": ["It is not 13."],
        "mark": ["DATA-0"],
        "critique_mark": ["DATA-1"],
    },
    "judge_equivalence": {
        "question": ["", "What is 7 + 5?"],
        "gold": ["12"],
        "answer": ["12.0"],
        "approximation_digits": [None, 4],
        "fence": ["DATA-0"],
    },
    "judge_experience": _MARKS,
    "judge_novelty": _MARKS,
    "pacore": {**_TASK, "references": [["It is 12."], ["It is 12.", "It is 13."]]},
    "recycled": {"bank": _BANK},
    "refinement": {**_TASK, "solution": ["It is 12."], "analyses": [["Correct."], ["Correct.", "Wrong."]]},
    "rsa": {**_TASK, "candidates": [["It is 12."], ["It is 12.", "It is 13."]]},
    "self_graded": _TASK,
    "solution": {**_TASK, "attempts": _ATTEMPTS, "experience": _BANK, "guidelines": _BANK},
    "summary": {
        **_TASK,
        "solution": ["It is 12."],
        "verifications": [["Correct."], ["Correct.", "Wrong."]],
        "words": [250],
    },
    "verification": {**_TASK, "solution": ["It is 12."], "structured": [False, True]},
}
"""Sample values by prompt, then by variable. Files that are missing here are only included in prompts; they have the
variables of the prompt that includes them."""
MAY_BE_EMPTY = frozenset({"attempt", "recycled"})
"""Prompts that are never the whole prompt of a call, so that they may be empty."""
MUST_SHOW: Mapping[str, str] = {"conversation": "message", "judge_code": "code"}
"""Prompts that are of no use without the value of this variable."""


def samples(name: str) -> Iterator[dict[str, Any]]:
    """All combinations of the sample values of a prompt."""
    for values in product(*VARIABLES[name].values()):
        yield dict(zip(VARIABLES[name], values, strict=True))
