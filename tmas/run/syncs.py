"""Waiting for the disk without keeping the event loop: files that wait together are synced together, in threads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable

TOGETHER = 16
"""Files that a thread syncs one after the other; of more, several threads take their shares, for a disk may be slow."""
PER_FILE, LONGEST = 0.002, 0.05
"""Seconds of rest for each file synced, and at most: so that under load more calls share a go, each of which takes
Python's lock from the event loop again and again."""


class Syncs:
    """``fdatasync`` for all files of those who share this."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[asyncio.Future[None]]] = {}
        self._going: asyncio.Task[None] | None = None

    async def sync(self, file: int) -> None:
        """Returns once what was written to ``file``, a descriptor, is on disk; raises ``OSError`` where it is not."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(file, []).append(done)
        if self._going is None or self._going.done():
            self._going = asyncio.create_task(self._go_on())
        await done

    async def _go_on(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, {}
            files = list(waiting)
            parts = [files[start : start + TOGETHER] for start in range(0, len(files), TOGETHER)]
            found = await asyncio.gather(*(asyncio.to_thread(_sync, part) for part in parts), return_exceptions=True)
            for part, errors in zip(parts, found, strict=True):
                for file in part:
                    _settle(waiting[file], errors if isinstance(errors, BaseException) else errors.get(file))
            await asyncio.sleep(min(PER_FILE * len(files), LONGEST))


def _sync(files: Iterable[int]) -> dict[int, OSError]:
    """What the system refused, by file."""
    errors: dict[int, OSError] = {}
    for file in files:
        try:
            os.fdatasync(file)
        except OSError as error:
            errors[file] = error
    return errors


def _settle(waiting: Iterable[asyncio.Future[None]], error: BaseException | None) -> None:
    for done in waiting:
        if done.done():
            continue  # its call was cancelled
        if error:
            done.set_exception(error)
        else:
            done.set_result(None)
