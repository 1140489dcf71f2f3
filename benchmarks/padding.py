"""Shows how much of ``tmas sft``'s work is padding or waiting, in random order, grouped by length, and packed.

    python -m benchmarks.padding MODEL FILE...

Padding is the share of the computed tokens that fill shorter rows of a micro batch. Waiting is the share of the time in
which processes with one row each wait for the one with the longest row, if time grows with the number of tokens. The
goal is less than 2 % of each with ``group_by_length=true``; exit code 1 if it is missed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from tmas.training.sft.grouping import LengthGroups
from tmas.training.sft.packing import pack
from tmas.training.sft.rows import ChatEncoder, load

ROWS = (2, 4, 8)
BATCH_SIZE = 64
GOAL = 0.02


def filling(lengths: Sequence[int], order: Sequence[int], rows: int) -> float:
    """The share of the tokens that fill the shorter rows, where each ``rows`` rows are as long as their longest."""
    groups = [[lengths[row] for row in order[start : start + rows]] for start in range(0, len(order), rows)]
    return 1 - sum(lengths) / sum(len(group) * max(group) for group in groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of the policy: its tokenizer and chat template are used")
    parser.add_argument("files", type=Path, nargs="+", help="files with chats, as train_files of tmas sft")
    parser.add_argument("--max-length", type=int, default=32768, help="tokens; longer chats are left out")
    arguments = parser.parse_args()
    rows = load(arguments.files, [], ChatEncoder.load(arguments.model, arguments.max_length)).train
    lengths = [len(row.labels) for row in rows]
    print(f"{len(rows):,} chats of {min(lengths)} to {max(lengths)} tokens, {sum(lengths) / len(rows):.0f} on average")
    print("padding with micro_batch_size 2, 4, 8; waiting of 2, 4, 8 processes with one row each:")
    shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    grouped = list(LengthGroups(lengths, BATCH_SIZE, seed=0))
    for name, order in (("random order", shuffled), ("group_by_length", grouped)):
        print(f"{name:>16}", *(f"{filling(lengths, order, count):7.1%}" for count in ROWS))
    for length in (max(lengths), 2 * max(lengths)):
        packed = len(pack(rows, length, seed=0)) * length
        print(f"packed, pack_length {length}: padding {1 - sum(lengths) / packed:.1%}")
    worst = max(filling(lengths, grouped, count) for count in ROWS)
    print(f"group_by_length: {worst:.1%}, goal {GOAL:.0%}: {'met' if worst < GOAL else 'missed'}")
    raise SystemExit(worst >= GOAL)


if __name__ == "__main__":
    main()
