"""cli/exits.py: how a command ends before its time."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
import uvloop

from tmas.cli.exits import cancel_on_sigterm


def test_sigterm_cancels_in_the_block_and_ends_the_process_after_it():
    async def wait() -> None:
        with cancel_on_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(10)

    with pytest.raises(asyncio.CancelledError):
        uvloop.run(wait())
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
