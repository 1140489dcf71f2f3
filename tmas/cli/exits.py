"""How a command ends early: one message for the user and an exit code."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from tmas.redaction import clean

NOT_PASSED, WRONG_INPUT, STOPPED, INTERRUPTED = 1, 2, 3, 130
"""Exit codes.

- ``NOT_PASSED``: a check did not pass.
- ``WRONG_INPUT``: wrong input, reported before any work.
- ``STOPPED``: stopped by a server, the operating system or a failed training. The same command resumes.
- ``INTERRUPTED``: interrupted by Ctrl-C or SIGTERM. The same command resumes.

A bug ends with a traceback and with Python's own exit code, which is also 1.
"""


def fail(message: str, code: int) -> NoReturn:
    """Print ``message`` to stderr, without keys and control characters, and end the process with exit code ``code``."""
    print(f"tmas: {clean(message)}", file=sys.stderr)
    sys.exit(code)


@contextmanager
def cancel_on_sigterm() -> Iterator[None]:
    """While the block runs, SIGTERM cancels the current task, as Ctrl-C does.

    After the block, SIGTERM ends the process, as usual.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task, "must be called in a task"
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
