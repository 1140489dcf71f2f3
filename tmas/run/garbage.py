"""Less frequent garbage collection while thousands of calls are in flight."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

RARE = (500_000, 20, 100)
"""Thresholds for :mod:`gc`. A collection visits the objects of every waiting call and frees almost nothing. With
Python's default thresholds, this is up to half of a call's CPU time at 4,000 calls in flight."""

RARE_IN_A_SERVER = (50_000, 20, 20)
"""Thresholds for a server, which makes new garbage for as long as it runs: about 100 to 200 objects for each
request of a client, in cycles of exceptions, tasks and connections. At ``RARE`` they take 60 to 100 MiB."""


@contextmanager
def rare_collections(thresholds: tuple[int, int, int] = RARE) -> Iterator[None]:
    """Collect garbage less often while the block runs, in the whole process. Blocks may overlap and contain others."""
    before = gc.get_threshold()
    gc.set_threshold(*thresholds)
    try:
        yield
    finally:
        if gc.get_threshold() == thresholds:  # otherwise an overlapping block has restored its own thresholds
            gc.set_threshold(*before)
