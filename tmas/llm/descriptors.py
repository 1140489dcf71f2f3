"""The limit on open files: each call in flight needs a socket, and each open problem a trace file."""

from __future__ import annotations

import errno
import resource
from typing import Self

SPARE = 256
"""File descriptors kept for everything else: libraries, logs, pipes, and connections from clients of `tmas serve`."""
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE})
"""Error numbers of a system call for which no file descriptor was free."""


class TooManyFiles(OSError):
    """This process cannot open another file or socket. A retry does not help."""

    @classmethod
    def now(cls) -> Self:
        """The error with the current limit in its message."""
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return cls(
            f"no more than {allowed:,} files and sockets may be open: raise the limit (`ulimit -n`, up to "
            "`ulimit -Hn`), or lower concurrency or active_problems"
        )


def allow_open_files(count: int) -> None:
    """Raise this process's soft limit on open files to ``count + SPARE``, or to its hard limit if that is lower.

    The usual default of 1,024 is less than the number of concurrent calls in a run.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE if hard == resource.RLIM_INFINITY else min(count + SPARE, hard)
    if resource.RLIM_INFINITY != soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
