"""The text forms of the miniature: functions that write problems, answers and findings, and functions that read them.

A *finding* states whether a rule in an order fits a block, as in ``B:echo:ac OK`` or ``B:echo:ac BAD``. Critiques,
summaries and bank items all consist of findings.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from recipes.miniature.task import LETTERS, MODULUS, ORDERS, RULES, Block, Blocks, Candidate, fits, steps

FORMULAS = {name: f"x{first}y{second}z" for name, (first, second) in RULES.items()}
_RULES = "; ".join(f"{number} {name} {formula}" for number, (name, formula) in enumerate(FORMULAS.items(), 1))
_ORDERS = "; ".join(f"{number} {name}" for number, name in enumerate(ORDERS, 1))
INTRODUCTION = (
    "Each block has numbers a, b, c and a target t. One rule, the same for all blocks, and an order for each block "
    f"give every target modulo {MODULUS}. Rules, read from left to right, with p~q for q-p: {_RULES}. Orders, by the "
    f"two numbers that are x and y: {_ORDERS}. Answer with the rule's number and then the number of each block's order."
)
_FINDING = re.compile(r"([A-D]):([a-z]+):([abc]{2}) (?:[\d+*~=,-]+ )?(OK|BAD)")
_BLOCK = re.compile(r"^([A-D])a=(\d) \1b=(\d) \1c=(\d) \1t=(\d)$", re.MULTILINE)


class Finding(NamedTuple):
    """A statement that ``rule`` in ``order`` fits block number ``block``, or that it does not."""

    block: int
    rule: str
    order: str
    fits: bool

    def __str__(self) -> str:
        return f"{item(self.block, self.rule, self.order)} {'OK' if self.fits else 'BAD'}"


def item(block: int, rule: str, order: str) -> str:
    """The text for a block, a rule and an order: ``B:echo:ac``."""
    return f"{LETTERS[block]}:{rule}:{order}"


def findings(text: str) -> list[Finding]:
    """All findings in ``text``, first to last. The arithmetic of a finding, if any, is skipped."""
    return [Finding(LETTERS.index(b), rule, order, label == "OK") for b, rule, order, label in _FINDING.findall(text)]


def question(blocks: Blocks) -> str:
    """The text of a problem: the introduction, then a line for each block."""
    numbers = (
        " ".join(f"{letter}{name}={number}" for name, number in zip("abct", block, strict=True))
        for letter, block in zip(LETTERS, blocks, strict=False)
    )
    return "\n".join([INTRODUCTION, *numbers])


def blocks_in(text: str) -> Blocks:
    """The blocks of the problem in ``text``: the first line of each block counts, since a policy may write others."""
    lines: dict[str, Block] = {}
    for letter, *numbers in _BLOCK.findall(text):
        lines.setdefault(letter, Block(*map(int, numbers)))
    return tuple(lines[letter] for letter in sorted(lines))


def answer(candidate: Candidate) -> str:
    """The final answer for a candidate: the digit of its rule, then the digit of each order."""
    orders = (1 + [*ORDERS].index(order) for order in candidate.orders)
    return "".join(map(str, [1 + [*RULES].index(candidate.rule), *orders]))


def read_answer(digits: str, blocks: int) -> Candidate | None:
    """The candidate that an answer stands for, or None if it is no valid answer for this number of blocks."""
    if not re.fullmatch(f"[1-{len(RULES)}][1-{len(ORDERS)}]{{{blocks}}}", digits):
        return None
    return Candidate([*RULES][int(digits[0]) - 1], tuple([*ORDERS][int(d) - 1] for d in digits[1:]))


def solution(candidate: Candidate) -> str:
    """The text of a solution: a line for each block with its order, and the answer in a box."""
    lines = [f"so {item(n, candidate.rule, order)}" for n, order in enumerate(candidate.orders)]
    return "\n".join([*lines, f"\\boxed{{{answer(candidate)}}}"])


def check(blocks: Blocks, candidate: Candidate) -> list[Finding]:
    """The correct finding for each block of a candidate."""
    return [
        Finding(n, candidate.rule, order, fits(block, candidate.rule, order))
        for n, (block, order) in enumerate(zip(blocks, candidate.orders, strict=True))
    ]


def arithmetic(block: Block, found: Finding) -> str:
    """A finding with its arithmetic. ``B:echo:ac 4+7=1-2=9,5 BAD``: 4 + 7 = 1 and 1 - 2 = 9, but the target is 5."""
    done = steps(found.rule, found.order, block)
    sums = f"{done.x}{done.first}{done.y}={done.middle}{done.second}{done.z}={done.value}"
    return f"{item(found.block, found.rule, found.order)} {sums},{block.target} {'OK' if found.fits else 'BAD'}"
