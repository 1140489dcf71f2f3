"""How well a policy plays each role: its replies in a recorded run, held against what the teacher's rules allow.

Every prompt of the run is given to the rules again, so the policy is judged on the prompts that it met itself.
"""

from __future__ import annotations

import random

from recipes.miniature.task import Task
from recipes.miniature.teacher import Teacher

EXACT = ("verification", "summary", "experience", "guideline", "distill")
"""Roles in which a prompt has one right reply."""


def explores(prompt: str) -> bool:
    return "# Strategies already tried" in prompt


def exact(prompt: str, reply: str) -> bool:
    """Whether ``reply`` is, word for word, what the rules write for a prompt with one right reply."""
    return reply.strip() == Teacher(Task(), random.Random(0)).reply(prompt)
