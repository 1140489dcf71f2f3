"""How the miniature's problems and replies are written, and how they are read back.

A *finding* is the smallest piece: a block, a rule and an order, as in ``B:echo:ac``, then ``OK`` if they fit, ``BAD``
if they do not. Candidates, critiques, summaries and bank items are all made of findings.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from recipes.miniature.task import LETTERS, MODULUS, ORDERS, RULES, Block, Blocks, Candidate, fits, steps

FORMULAS = {name: f"x{first}y{second}z" for name, (first, second) in RULES.items()}
_RULES = "; ".join(f"{number} {name} {formula}" for number, (name, formula) in enumerate(FORMULAS.items(), 1))
_ORDERS = "; ".join(f"{number} {name}" for number, name in enumerate(ORDERS, 1))
INTRODUCTION = (
    f"Each block has numbers a, b, c and a target t. One rule, the same for all blocks, and an order for each block give "
    f"every target modulo {MODULUS}. Rules, read from left to right, with p~q for q-p: {_RULES}. Orders, by the two "
    f"numbers that are x and y: {_ORDERS}. Answer with the rule's number and then the number of each block's order."
)
_FINDING = re.compile(r"([A-D]):([a-z]+):([abc]{2}) (?:[\d+*~=,-]+ )?(OK|BAD)")
_NUMBER = re.compile(r"([A-D])([abct])=(\d)")


class Finding(NamedTuple):
    """Whether ``rule`` in ``order`` fits the block number ``block``."""

    block: int
    rule: str
    order: str
    fits: bool

    def __str__(self) -> str:
        return f"{item(self.block, self.rule, self.order)} {'OK' if self.fits else 'BAD'}"


def item(block: int, rule: str, order: str) -> str:
    """A block with a rule and an order, as ``B:echo:ac``."""
    return f"{LETTERS[block]}:{rule}:{order}"


def findings(text: str) -> list[Finding]:
    """All findings in ``text``, in order, with or without their arithmetic."""
    return [Finding(LETTERS.index(b), rule, order, label == "OK") for b, rule, order, label in _FINDING.findall(text)]


def question(blocks: Blocks) -> str:
    """The problem as text."""
    numbers = (
        " ".join(f"{letter}{name}={number}" for name, number in zip("abct", block, strict=True))
        for letter, block in zip(LETTERS, blocks, strict=False)
    )
    return "\n".join([INTRODUCTION, *numbers])


def blocks_in(text: str) -> Blocks:
    """The blocks of the problem that ``text`` states."""
    numbers = [int(number) for _, _, number in _NUMBER.findall(text)]
    return tuple(Block(*numbers[i : i + 4]) for i in range(0, len(numbers), 4))


def answer(candidate: Candidate) -> str:
    """The candidate as digits: the rule's number, then the orders'."""
    orders = (1 + [*ORDERS].index(order) for order in candidate.orders)
    return "".join(map(str, [1 + [*RULES].index(candidate.rule), *orders]))


def read_answer(digits: str, blocks: int) -> Candidate | None:
    """The candidate that ``digits`` mean; None where they mean none."""
    if not re.fullmatch(f"[1-{len(RULES)}][1-{len(ORDERS)}]{{{blocks}}}", digits):
        return None
    return Candidate([*RULES][int(digits[0]) - 1], tuple([*ORDERS][int(d) - 1] for d in digits[1:]))


def solution(candidate: Candidate) -> str:
    """A solution as text: a line for each block with its order, and the answer in a box."""
    lines = [f"so {item(n, candidate.rule, order)}" for n, order in enumerate(candidate.orders)]
    return "\n".join([*lines, f"\\boxed{{{answer(candidate)}}}"])


def check(blocks: Blocks, candidate: Candidate) -> list[Finding]:
    """What checking the candidate finds, a finding for each block."""
    return [
        Finding(n, candidate.rule, order, fits(block, candidate.rule, order))
        for n, (block, order) in enumerate(zip(blocks, candidate.orders, strict=True))
    ]


def arithmetic(block: Block, found: Finding) -> str:
    """A check in steps: ``B:echo:ac 4+7=1-2=9,5 BAD`` is 4 + 7 = 1, then 1 - 2 = 9, while the target is 5."""
    done = steps(found.rule, found.order, block)
    sums = f"{done.x}{done.first}{done.y}={done.middle}{done.second}{done.z}={done.value}"
    return f"{item(found.block, found.rule, found.order)} {sums},{block.target} {'OK' if found.fits else 'BAD'}"
