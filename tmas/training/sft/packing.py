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
    by_room: dict[int, list[int]] = {}  # rows by the number of tokens that still fit
    rooms: list[int] = []  # the sorted keys of by_room
    for index in order:
        size = len(examples[index].input_ids)
        place = bisect.bisect_left(rooms, size)
        if place == len(rooms):
            row, room = len(rows), length
            rows.append([])
        else:
            room = rooms[place]
            row = by_room[room].pop()
            if not by_room[room]:
                del by_room[room], rooms[place]
        rows[row].append(examples[index])
        if (left := room - size) not in by_room:
            by_room[left] = []
            bisect.insort(rooms, left)
        by_room[left].append(row)
    return rows
