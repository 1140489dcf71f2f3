"""Runs problems with a progress display, for ``tmas solve``, ``demo``, ``filter`` and ``distill``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from tmas.api import run
from tmas.cli.exits import INTERRUPTED, STOPPED, WRONG_INPUT, cancel_on_sigterm, fail
from tmas.cli.progress import show_progress
from tmas.engines.ray_cluster import ClusterFailed
from tmas.engines.vllm import ServerFailed
from tmas.llm.endpoint import EndpointDown, UnknownModel
from tmas.records import Problem
from tmas.run.activity import Activity
from tmas.run.models import SharedServers
from tmas.run.progress import RunProgress
from tmas.settings import RunSettings


def run_or_exit(
    problems: Sequence[Problem], settings: RunSettings, directory: Path, *, config: dict[str, Any], console: Console
) -> None:
    """Run ``problems`` into ``directory`` with a progress display. If the run is stopped, end the process."""
    with exit_when_stopped(directory):
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
    progress = RunProgress(activity, len(problems), settings.method.max_iterations)
    with cancel_on_sigterm():
        async with show_progress(progress, console):
            await run(
                problems,
                settings,
                directory,
                config=config,
                activity=activity,
                on_result=lambda result: progress.mark_finished(result.problem.problem_id),
                servers=servers,
            )


@contextmanager
def exit_when_stopped(directory: Path) -> Iterator[None]:
    """If a run in the block is stopped, end the process with a message that says how to resume."""
    try:
        yield
    except (KeyboardInterrupt, asyncio.CancelledError):
        fail(f"Interrupted. Run the same command again to resume in {directory}.", INTERRUPTED)
    except UnknownModel as error:
        fail(f"{error} Set model.name (or that of a role, model.roles.ROLE.name) to one of them.", WRONG_INPUT)
    except (EndpointDown, ServerFailed, ClusterFailed) as error:
        fail(f"{error}\nFinished calls are kept. Run the same command again to resume in {directory}.", STOPPED)
