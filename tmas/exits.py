"""How a command ends before its time: one message for the user and an exit code."""

from __future__ import annotations

import sys
from typing import NoReturn

NOT_PASSED, WRONG_INPUT, STOPPED, INTERRUPTED = 1, 2, 3, 130
"""A check found something wrong · nothing was begun · stopped, and the same command goes on · Ctrl-C, as well."""


def fail(message: str, code: int) -> NoReturn:
    """End the process."""
    print(f"tmas: {message}", file=sys.stderr)
    sys.exit(code)
