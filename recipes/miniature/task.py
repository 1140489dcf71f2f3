"""The task of the miniature: a made-up puzzle that a model of a million parameters can learn to solve as a team.

A problem consists of blocks. A block has three numbers a, b, c and a target. A *rule* is a formula in x, y, z that is
evaluated from left to right, modulo 10. An *order* says which two of a, b, c are x and y. The solver has to find the
one rule that all blocks share, and an order for each block, so that the formula gives the target of every block.

The task has the two kinds of knowledge that TMAS keeps in its banks. The rule is a high-level strategy: the guideline
bank holds the rules that were tried. "This rule in this order fits this block" is a low-level finding: the experience
bank holds such findings. To check a candidate is arithmetic. To find one is a search, because nothing in a block tells
which rule made it.

Every problem has exactly one solution. A block belongs to one split only, so training, validation and test problems
share no block.
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
"""Operations by their sign. ``~`` subtracts its left side from its right side."""
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
"""Rules by name. The first operation combines x and y, the second combines that result and z."""
ORDERS: dict[str, tuple[int, int, int]] = {"ab": (0, 1, 2), "ac": (0, 2, 1), "bc": (1, 2, 0)}
"""Orders by name. The name gives the letters of x and y; the value gives the positions of x, y, z among a, b, c."""
LETTERS = "ABCD"
"""Names of the blocks. A problem has at most as many blocks as there are letters."""


class Block(NamedTuple):
    """Three numbers from 1 to 9, and a target from 0 to 9."""

    a: int
    b: int
    c: int
    target: int


class Candidate(NamedTuple):
    """A proposed solution: one rule, and an order for each block."""

    rule: str
    orders: tuple[str, ...]


Blocks = tuple[Block, ...]


@dataclass(frozen=True)
class Task:
    """The difficulty of the problems.

    ``blocks``: number of blocks in a problem, at most 4. ``rule_prior`` and ``order_prior``: probability of each rule
    and order in a problem. The teacher guesses from the same probabilities. ``uniform_rules``: share of the problems
    whose rule is drawn uniformly instead, so that rare rules occur as well.
    """

    blocks: int = 4
    rule_prior: tuple[float, ...] = (0.36, 0.23, 0.13, 0.09, 0.07, 0.05, 0.04, 0.03)
    order_prior: tuple[float, ...] = (0.85, 0.1, 0.05)
    uniform_rules: float = 0.25

    def problems(self, split: Split, seed: int) -> Iterator[tuple[Blocks, Candidate]]:
        """Endless distinct problems of ``split``, each with its only solution. The same seed gives the same ones."""
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
            a, b, c = (draw.randrange(1, MODULUS) for _ in range(3))
            order = draw.choices([*ORDERS], self.order_prior)[0]
            block = Block(a, b, c, steps(rule, order, (a, b, c)).value)
            if split_of(block) == split:
                blocks.append(block)
                orders.append(order)
        return tuple(blocks), Candidate(rule, tuple(orders))


class Steps(NamedTuple):
    """The evaluation of a rule, modulo 10: ``x first y = middle``, then ``middle second z = value``."""

    x: int
    first: str
    y: int
    middle: int
    second: str
    z: int
    value: int


def steps(rule: str, order: str, numbers: Sequence[int]) -> Steps:
    """Evaluate ``rule`` on three ``numbers``, or on a block, in ``order``."""
    (first, second), (x, y, z) = RULES[rule], (numbers[i] for i in ORDERS[order])
    middle = OPERATIONS[first](x, y) % MODULUS
    return Steps(x, first, y, middle, second, z, OPERATIONS[second](middle, z) % MODULUS)


def fits(block: Block, rule: str, order: str) -> bool:
    """Whether the rule in this order gives the block's target."""
    return steps(rule, order, block).value == block.target


def solves(blocks: Blocks, candidate: Candidate) -> bool:
    """Whether the candidate fits every block."""
    return all(fits(b, candidate.rule, order) for b, order in zip(blocks, candidate.orders, strict=True))


def solutions(blocks: Blocks) -> list[Candidate]:
    """All solutions of a problem, by trying every rule and order."""
    found: list[Candidate] = []
    for rule in RULES:
        fitting = [[order for order in ORDERS if fits(block, rule, order)] for block in blocks]
        found += [Candidate(rule, orders) for orders in product(*fitting)]
    return found


def split_of(block: Block) -> Split:
    """The split of a block, decided by its hash. Validation and test get a tenth of all blocks each."""
    digit = int(hashlib.sha256(str(tuple(block)).encode()).hexdigest(), 16) % 10
    return "test" if digit == 0 else "validation" if digit == 1 else "train"
