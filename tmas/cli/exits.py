"""How a command ends before its time: one message for the user and an exit code."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

NOT_PASSED, WRONG_INPUT, STOPPED, INTERRUPTED = 1, 2, 3, 130
"""A check did not pass · wrong input, reported before any work · stopped by a server, the system or a failed training ·
interrupted by Ctrl-C or SIGTERM. After the last two, the same command resumes.

A bug ends with a traceback and with Python's own exit code, which is 1 as well."""


def fail(message: str, code: int) -> NoReturn:
    """End the process."""
    print(f"tmas: {message}", file=sys.stderr)
    sys.exit(code)


@contextmanager
def cancelled_by_sigterm() -> Iterator[None]:
    """While the block runs, SIGTERM cancels the current task, as Ctrl-C does; afterwards it ends the process again."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task, "for coroutines"
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
