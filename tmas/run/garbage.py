"""Rarer garbage collection while thousands of calls are in flight."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

RARE = (500_000, 20, 100)
"""Thresholds of :mod:`gc`. Each collection walks over the objects of every call that waits, and finds next to nothing:
with Python's own thresholds that is up to half of a call's CPU time at 4,000 calls in flight."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect garbage rarely while the block runs, in the whole process; blocks may overlap."""
    before = gc.get_threshold()
    gc.set_threshold(*RARE)
    try:
        yield
    finally:
        if gc.get_threshold() == RARE:  # or another block has set back what it found
            gc.set_threshold(*before)
