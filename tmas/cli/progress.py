"""Shows the progress of a run: a live line with a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from tmas.run.progress import RunProgress

PLAIN_INTERVAL = 10.0
"""Seconds between two lines if the output is not a terminal."""


@contextlib.asynccontextmanager
async def show_progress(progress: RunProgress, console: Console) -> AsyncIterator[None]:
    """Show ``progress`` while the block runs."""
    show = _live if console.is_terminal else _lines
    task = asyncio.create_task(show(progress, console))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _live(progress: RunProgress, console: Console) -> None:
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while True:
            bar = ProgressBar(total=1.0, completed=progress.share, width=60)
            live.update(Group(Text(progress.line()), bar))  # the bar comes last, because it does not end its line
            await asyncio.sleep(0.5)


async def _lines(progress: RunProgress, console: Console) -> None:
    while True:
        await asyncio.sleep(PLAIN_INTERVAL)
        console.print(progress.line(), highlight=False, markup=False, soft_wrap=True)
