"""Waiting for the disk without keeping the event loop: files that wait together are synced in one go of a thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable

PER_FILE, LONGEST = 0.002, 0.05
"""Seconds of rest for each file synced, and at most: so that under load more calls share a go, each of which takes
Python's lock from the event loop again and again."""


class Syncs:
    """``fdatasync`` for all files of a process."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[asyncio.Future[None]]] = {}
        self._going: asyncio.Task[None] | None = None

    async def sync(self, file: int) -> None:
        """Returns once what was written to ``file``, a descriptor, is on disk; raises ``OSError``."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(file, []).append(done)
        if self._going is None or self._going.done():
            self._going = asyncio.create_task(self._go_on())
        await done

    async def _go_on(self) -> None:
        while self._waiting:
            files, self._waiting = self._waiting, {}
            errors = await asyncio.to_thread(_sync, tuple(files))
            for waiting, error in zip(files.values(), errors, strict=True):
                for done in waiting:
                    _settle(done, error)
            await asyncio.sleep(min(PER_FILE * len(files), LONGEST))


def _sync(files: Iterable[int]) -> list[OSError | None]:
    return [_error(file) for file in files]


def _error(file: int) -> OSError | None:
    try:
        os.fdatasync(file)
    except OSError as error:
        return error
    return None


def _settle(done: asyncio.Future[None], error: OSError | None) -> None:
    if done.done():
        return  # its call was cancelled
    if error:
        done.set_exception(error)
    else:
        done.set_result(None)
