"""run/syncs.py: what waits together is synced together, and each file has its own outcome."""

from __future__ import annotations

import asyncio
import errno
import os
import threading

import pytest

from tests.support.waiting import LIMIT
from tmas.run.syncs import TOGETHER, Syncs

GOOD, BAD = 3, 4


class Disk:
    """Stands for ``os.fdatasync``: keeps a note of each file synced, and lets nobody through before it is ready."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: list[int] = []
        self.threads: set[int] = set()
        self.ready = threading.Event()
        monkeypatch.setattr(os, "fdatasync", self._sync)

    def _sync(self, file: int) -> None:
        assert self.ready.wait(60)
        self.synced.append(file)
        self.threads.add(threading.get_ident())
        if file == BAD:
            raise OSError(errno.EIO, "Input/output error")


async def begun(*files: int) -> list[asyncio.Task[None]]:
    """Waits for ``files``, all under way."""
    syncs = Syncs()
    tasks = [asyncio.create_task(syncs.sync(file)) for file in files]
    await asyncio.sleep(0.01)
    return tasks


async def test_all_that_wait_for_a_file_share_a_sync(monkeypatch: pytest.MonkeyPatch):
    disk = Disk(monkeypatch)
    tasks = await begun(*[GOOD] * 5)
    assert not any(task.done() for task in tasks)
    disk.ready.set()
    await asyncio.gather(*tasks)
    assert disk.synced == [GOOD]


async def test_files_are_synced_off_the_event_loop(monkeypatch: pytest.MonkeyPatch):
    disk = Disk(monkeypatch)
    tasks = await begun(GOOD)
    disk.ready.set()
    await asyncio.gather(*tasks)
    assert disk.threads.isdisjoint({threading.get_ident()})


async def test_what_comes_while_files_are_synced_waits_for_the_next_go(monkeypatch: pytest.MonkeyPatch):
    disk, syncs = Disk(monkeypatch), Syncs()
    first = asyncio.create_task(syncs.sync(GOOD))
    await asyncio.sleep(0.01)  # it has begun: what is written now, it may miss
    second = asyncio.create_task(syncs.sync(GOOD))
    await asyncio.sleep(0)
    disk.ready.set()
    await asyncio.gather(first, second)
    assert disk.synced == [GOOD, GOOD]


async def test_an_error_is_that_of_its_file_alone(monkeypatch: pytest.MonkeyPatch):
    disk = Disk(monkeypatch)
    tasks = await begun(BAD, GOOD, BAD)
    disk.ready.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(outcome, OSError) for outcome in outcomes] == [True, False, True]


async def test_where_no_thread_can_be_started_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as crowded:
        crowded.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            async with asyncio.timeout(LIMIT):
                await Syncs().sync(GOOD)


async def test_many_files_are_shared_among_threads(monkeypatch: pytest.MonkeyPatch):
    disk, files = Disk(monkeypatch), range(100, 100 + 3 * TOGETHER)
    tasks = await begun(*files)
    disk.ready.set()
    await asyncio.gather(*tasks)
    assert sorted(disk.synced) == [*files]
    assert len(disk.threads) > 1


async def test_one_who_no_longer_waits_keeps_nobody_from_it(monkeypatch: pytest.MonkeyPatch):
    disk = Disk(monkeypatch)
    gone, waiting = await begun(GOOD, GOOD)
    gone.cancel()
    disk.ready.set()
    await waiting
    assert gone.cancelled()


async def test_it_goes_on_after_a_rest(monkeypatch: pytest.MonkeyPatch):
    disk, syncs = Disk(monkeypatch), Syncs()
    disk.ready.set()
    for _ in range(3):
        await syncs.sync(GOOD)
        await asyncio.sleep(0.01)
    assert disk.synced == [GOOD] * 3


def test_another_event_loop_may_use_it(monkeypatch: pytest.MonkeyPatch):
    disk, syncs = Disk(monkeypatch), Syncs()
    disk.ready.set()
    for _ in range(2):
        asyncio.run(syncs.sync(GOOD))  # the rest after the first was cut short with its loop
    assert disk.synced == [GOOD] * 2
