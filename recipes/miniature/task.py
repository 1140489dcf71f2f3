"""The task of the miniature: find one hidden rule, and an order of the numbers for each block.

A block has three numbers a, b, c and a target, all modulo 10. A rule is a formula in x, y, z, read from left
to right; an order says which number is which letter. A problem is solved by the one rule that all of its blocks share, and by one order for each
block, so that the formula gives the target in every block. The rule is the high-level strategy, which the guideline
bank can hold. Whether a rule and an order fit a block is a low-level finding, which the experience bank can hold.
Checking a candidate is arithmetic. Finding one is a search, since nothing in a block tells which rule made it.

Problems have exactly one solution. Training, validation and test problems share no block: a hash of the block decides.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

Split = Literal["train", "validation", "test"]

MODULUS = 10
OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": lambda p, q: p + q,
    "-": lambda p, q: p - q,
    "~": lambda p, q: q - p,
    "*": lambda p, q: p * q,
}
"""The signs in formulas; ``~`` subtracts the left side from the right one."""
RULES = {
    "alfa": ("+", "*"),
    "bravo": ("*", "+"),
    "carol": ("-", "*"),
    "delta": ("*", "-"),
    "echo": ("+", "-"),
    "fox": ("*", "~"),
    "golf": ("~", "*"),
    "hotel": ("+", "~"),
}
"""Each rule by its name: the first operation joins x and y, the second joins the result and z."""
ORDERS: dict[str, tuple[int, int, int]] = {"ab": (0, 1, 2), "ac": (0, 2, 1), "bc": (1, 2, 0)}
"""Each order by its name, the letters of x and y: the positions of x, y and z among a, b, c."""
LETTERS = "ABCD"
"""Names of the blocks; also the largest number of blocks."""


class Block(NamedTuple):
    """Three numbers from 1 to 9 and the target from 0 to 9."""

    a: int
    b: int
    c: int
    target: int


class Candidate(NamedTuple):
    """A rule, and an order for each block."""

    rule: str
    orders: tuple[str, ...]


Blocks = tuple[Block, ...]


@dataclass(frozen=True)
class Task:
    """What makes the task harder or easier.

    ``blocks``: of a problem, at most 4. ``rule_prior`` and ``order_prior``: how likely a solver without memory guesses
    each rule and order (see the teacher), and how likely a problem has it. ``uniform_rules``: share of the problems
    whose rule is drawn uniformly instead of from the prior.
    """

    blocks: int = 4
    rule_prior: tuple[float, ...] = (0.36, 0.23, 0.13, 0.09, 0.07, 0.05, 0.04, 0.03)
    order_prior: tuple[float, ...] = (0.85, 0.1, 0.05)
    uniform_rules: float = 0.25

    def problems(self, split: Split, seed: int) -> Iterator[tuple[Blocks, Candidate]]:
        """Different problems of ``split`` without end, each with its only solution."""
        draw = random.Random(f"{split}/{seed}")
        seen: set[Blocks] = set()
        while True:
            blocks, planted = self._draw(draw, split)
            if blocks not in seen and solutions(blocks) == [planted]:
                seen.add(blocks)
                yield blocks, planted

    def _draw(self, draw: random.Random, split: Split) -> tuple[Blocks, Candidate]:
        uniform = draw.random() < self.uniform_rules
        rule = draw.choice([*RULES]) if uniform else draw.choices([*RULES], self.rule_prior)[0]
        blocks: list[Block] = []
        orders: list[str] = []
        while len(blocks) < self.blocks:
            numbers = tuple(draw.randrange(1, MODULUS) for _ in range(3))
            order = draw.choices([*ORDERS], self.order_prior)[0]
            block = Block(*numbers, steps(rule, order, numbers).value)
            if split_of(block) == split:
                blocks.append(block)
                orders.append(order)
        return tuple(blocks), Candidate(rule, tuple(orders))


class Steps(NamedTuple):
    """A rule carried out on a block: ``x first y = middle``, then ``middle second z = value``, modulo 10."""

    x: int
    first: str
    y: int
    middle: int
    second: str
    z: int
    value: int


def steps(rule: str, order: str, numbers: Sequence[int]) -> Steps:
    """Carry out ``rule`` on the three ``numbers`` (or a block) in ``order``."""
    (first, second), (x, y, z) = RULES[rule], (numbers[i] for i in ORDERS[order])
    middle = OPERATIONS[first](x, y) % MODULUS
    return Steps(x, first, y, middle, second, z, OPERATIONS[second](middle, z) % MODULUS)


def fits(block: Block, rule: str, order: str) -> bool:
    """Whether the rule gives the block's target."""
    return steps(rule, order, block).value == block.target


def solves(blocks: Blocks, candidate: Candidate) -> bool:
    """Whether the candidate fits every block."""
    return all(fits(b, candidate.rule, order) for b, order in zip(blocks, candidate.orders, strict=True))


def solutions(blocks: Blocks) -> list[Candidate]:
    """All solutions of a problem."""
    found = []
    for rule in RULES:
        fitting = [[order for order in ORDERS if fits(block, rule, order)] for block in blocks]
        found += [Candidate(rule, orders) for orders in product(*fitting)]
    return found


def split_of(block: Block) -> Split:
    """A tenth of all blocks belongs to each held-out split; the hash of the block decides."""
    digit = int(hashlib.sha256(str(tuple(block)).encode()).hexdigest(), 16) % 10
    return "test" if digit == 0 else "validation" if digit == 1 else "train"
