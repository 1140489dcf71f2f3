"""An order of the training rows in which each update has rows of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


class LengthGroups(Sampler[int]):
    """Yields the indices of all rows, so that each group of ``batch_size`` rows has similar lengths.

    transformers divides the rows into random parts and sorts each part by length. This class then shuffles the groups:
    otherwise, the lengths would fall and rise several times in an epoch, and the loss with them. The group with the
    longest row stays first, so that a lack of memory shows at once. An incomplete group stays last. ``seed`` and the
    epoch determine the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = list(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        order = get_length_grouped_indices(self._lengths, self._batch_size, generator=generator)
        groups = [order[start : start + self._batch_size] for start in range(0, len(order), self._batch_size)]
        incomplete = [groups.pop()] if len(groups) > 1 and len(groups[-1]) < self._batch_size else []
        shuffled = [groups[1 + int(place)] for place in torch.randperm(len(groups) - 1, generator=generator)]
        for group in [groups[0], *shuffled, *incomplete]:
            yield from group
