"""Packs several chats into one row, without cutting any. This saves padding and does not change a token's loss."""

from __future__ import annotations

import bisect
import random
from collections.abc import Sequence

from tmas.training.sft.rows import Example


def pack(examples: Sequence[Example], length: int, seed: int) -> list[list[Example]]:
    """Distribute the examples over rows of at most ``length`` tokens. Each example is in exactly one row.

    Best fit: ``seed`` draws the order of the examples. Each goes into the fullest row with enough room. If no row has
    enough room, it starts a new row.
    """
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    rows: list[list[Example]] = []
    rows_by_space: dict[int, list[int]] = {}  # rows by the number of tokens that still fit
    spaces: list[int] = []  # the sorted keys of rows_by_space
    for index in order:
        size = len(examples[index].input_ids)
        place = bisect.bisect_left(spaces, size)
        if place == len(spaces):
            row, space = len(rows), length
            rows.append([])
        else:
            space = spaces[place]
            row = rows_by_space[space].pop()
            if not rows_by_space[space]:
                del rows_by_space[space], spaces[place]
        rows[row].append(examples[index])
        if (remaining := space - size) not in rows_by_space:
            rows_by_space[remaining] = []
            bisect.insort(spaces, remaining)
        rows_by_space[remaining].append(row)
    return rows
