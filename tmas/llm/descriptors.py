"""The files that a process may have open at once: a socket for each call in flight, a trace for each open problem."""

from __future__ import annotations

import errno
import resource
from typing import Self

SPARE = 256
"""For all that is neither: libraries, logs, pipes, the connections of a server's users."""
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE})


class TooManyFiles(OSError):
    """The system lets this process open no further file or socket: waiting helps no call."""

    @classmethod
    def now(cls) -> Self:
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return cls(
            f"no more than {allowed:,} files and sockets may be open: raise that (`ulimit -n`, up to `ulimit -Hn`), "
            "or lower concurrency or active_problems"
        )


def allow_open_files(count: int) -> None:
    """Raise this process's soft limit to ``count`` and some to spare, or as far as its hard limit lets it go.

    The 1,024 of a common shell are fewer than the calls of a run.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE if hard == resource.RLIM_INFINITY else min(count + SPARE, hard)
    if resource.RLIM_INFINITY != soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
