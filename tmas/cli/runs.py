"""Run problems with a progress display: what ``solve``, ``demo``, ``filter`` and ``distill`` share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from tmas.api import run
from tmas.cli.exits import INTERRUPTED, STOPPED, cancelled_by_sigterm, fail
from tmas.cli.progress import Progress, shown
from tmas.engines.ray_cluster import ClusterFailed
from tmas.engines.vllm import ServerFailed
from tmas.llm.endpoint import EndpointDown
from tmas.records import Problem
from tmas.run.models import SharedServers
from tmas.run.session import Activity
from tmas.settings import RunSettings


def run_shown(
    problems: Sequence[Problem], settings: RunSettings, directory: Path, *, config: dict[str, Any], console: Console
) -> None:
    """Run ``problems`` into ``directory`` with a progress display; ends the process where the run was stopped."""
    with stops_explained(directory):
        uvloop.run(run_with_progress(problems, settings, directory, config=config, console=console))


async def run_with_progress(
    problems: Sequence[Problem],
    settings: RunSettings,
    directory: Path,
    *,
    config: dict[str, Any],
    console: Console,
    servers: SharedServers | None = None,
) -> None:
    """Run ``problems`` into ``directory`` with a progress display. SIGTERM cancels the run."""
    activity = Activity()
    progress = Progress(activity, len(problems), settings.method.max_iterations)
    with cancelled_by_sigterm():
        async with shown(progress, console):
            await run(
                problems,
                settings,
                directory,
                config=config,
                activity=activity,
                on_result=lambda result: progress.finished(result.problem.problem_id),
                servers=servers,
            )


@contextmanager
def stops_explained(directory: Path) -> Iterator[None]:
    """Where a run in the block is stopped, end the process with a message that says how to resume."""
    try:
        yield
    except (KeyboardInterrupt, asyncio.CancelledError):
        fail(f"Interrupted. Run the same command again to resume in {directory}.", INTERRUPTED)
    except (EndpointDown, ServerFailed, ClusterFailed) as error:
        fail(f"{error}\nFinished calls are kept. Run the same command again to resume in {directory}.", STOPPED)
