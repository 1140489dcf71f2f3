"""training/sft/grouping.py: every row once, and updates of rows of similar length."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="needs the cpu or gpu extra")

from tmas.training.sft.grouping import LengthGroups


@given(st.lists(st.integers(1, 50), min_size=1, max_size=100), st.integers(1, 12), st.integers(0, 3))
def test_each_row_comes_once_and_the_longest_in_the_first_group(lengths: list[int], batch_size: int, epoch: int):
    groups = LengthGroups(lengths, batch_size, seed=0)
    groups.set_epoch(epoch)
    order = list(groups)
    assert sorted(order) == list(range(len(lengths)))
    assert len(groups) == len(lengths)
    assert max(lengths[row] for row in order[:batch_size]) == max(lengths)


def test_the_seed_and_the_epoch_decide_the_order():
    lengths = [random.Random(0).randrange(100) for _ in range(64)]

    def order(seed: int, epoch: int) -> list[int]:
        groups = LengthGroups(lengths, 4, seed)
        groups.set_epoch(epoch)
        return list(groups)

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(*key)) for key in ((0, 0), (0, 1), (7, 0))}) == 3


def test_a_group_has_similar_lengths_and_the_groups_are_in_no_order():
    draw = random.Random(0)
    lengths = [draw.randrange(1000) for _ in range(800)]
    order = list(LengthGroups(lengths, 8, seed=0))
    groups = [[lengths[row] for row in order[start : start + 8]] for start in range(0, 800, 8)]
    spread = [max(group) - min(group) for group in groups]
    assert sum(spread) / len(spread) < 60  # random groups of eight: about 780
    rising = sum(sum(later) > sum(group) for group, later in pairwise(groups))
    assert 30 < rising < 70  # sorted parts would rise only from one part to the next
