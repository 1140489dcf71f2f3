"""Waits for events, such as an action of another process.

A test never waits for a number of seconds. The limit here is a safety net for a test that would otherwise hang: it is
far above what a busy machine needs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tmas.concurrency import PriorityLimiter

LIMIT = 600.0
"""Longest wait in seconds."""


def wait_until(condition: Callable[[], object]) -> None:
    """Return once ``condition()`` holds; fail after :data:`LIMIT`."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not hold within {LIMIT:.0f} s"
        time.sleep(0.02)


async def until(condition: Callable[[], object]) -> None:
    """Like :func:`wait_until`, but the event loop can do other work meanwhile."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - what tests wait for has no event of its own
            await asyncio.sleep(0.005)


async def until_held_back(*limiters: PriorityLimiter) -> None:
    """Wait until calls wait for slots of each limiter although slots are free, as they do only during a pause."""
    await until(lambda: all(one._free > 0 and one.wanted > one.in_use for one in limiters))
