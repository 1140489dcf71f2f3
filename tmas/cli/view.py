"""The command ``tmas view``."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from rich.console import Console
from rich.text import Text

from tmas.cli.composing import validated
from tmas.cli.exits import cancel_on_sigterm
from tmas.report.view import ViewSettings, view_server


def view_command(config: dict[str, Any], console: Console) -> None:
    """``tmas view DIR``: serve the report of a run until Ctrl-C or SIGTERM, which are its normal end."""
    settings = validated(ViewSettings.model_validate, config)
    try:
        uvloop.run(_view(settings, console))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("stopped")


async def _view(settings: ViewSettings, console: Console) -> None:
    with cancel_on_sigterm():
        async with view_server(settings) as url:
            console.print(Text(f"{url} shows {settings.run}. Ctrl-C ends it."), soft_wrap=True)
            await asyncio.Event().wait()
