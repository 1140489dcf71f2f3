"""``tmas check``: checks that a model can play every role, before a run that may take hours."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from pydantic import Field
from rich.console import Console

from tmas.cli.check_tables import print_check
from tmas.cli.composing import validated
from tmas.cli.exits import INTERRUPTED, NOT_PASSED, STOPPED, WRONG_INPUT, cancel_on_sigterm, fail
from tmas.cli.progress import show_progress
from tmas.engines.ray_cluster import ClusterFailed
from tmas.engines.vllm import ServerFailed, temporary_directory
from tmas.errors import UserError
from tmas.llm.endpoint import EndpointDown, UnknownModel
from tmas.problems.loader import SAMPLE, load_problems
from tmas.records import Problem
from tmas.run.activity import Activity
from tmas.run.check import CheckOptions, CheckResult, check_model, small_method, unfit_roles
from tmas.run.progress import RunProgress
from tmas.settings import SolveSettings


class CheckSettings(SolveSettings):
    """All settings of ``tmas check``: those of ``tmas solve``, and how to check."""

    problems: Path | None = Field(  # type: ignore[assignment]
        default=None,
        description="Problem file of the planned run, for the estimate. null: the estimate is for one problem.",
    )
    output_dir: Path | None = Field(  # type: ignore[assignment]
        default=None,
        description="Has no effect, because the check keeps no files. It exists so that tmas check accepts the same"
        " arguments as tmas solve.",
    )
    check: CheckOptions = Field(default=CheckOptions(), description="How to check.")


def check_command(config: dict[str, Any], console: Console) -> None:
    """``tmas check``: run a small iteration, and print what to expect of the run. Exit code 1 if a role failed."""
    settings = validated(CheckSettings.model_validate, config)
    problems = _problems_in_file(settings)
    options = _options(settings, problems)
    try:
        checked = uvloop.run(_check(settings, options, console))
    except (KeyboardInterrupt, asyncio.CancelledError):
        fail("Interrupted.", INTERRUPTED)
    except UnknownModel as error:
        fail(f"{error} Set model.name (or that of a role, model.roles.ROLE.name) to one of them.", WRONG_INPUT)
    except (EndpointDown, ServerFailed, ClusterFailed) as error:
        fail(str(error), STOPPED)
    planned = None if problems is None else len(problems[: settings.max_problems])
    print_check(console, checked, settings, options.seconds, planned)
    if unfit := unfit_roles(checked, settings, options.min_readable):
        fail(f"the check failed: {', '.join(unfit)}", NOT_PASSED)


def _problems_in_file(settings: CheckSettings) -> Sequence[Problem] | None:
    """The problems in the file of the planned run, which may be only the first of them. None if there is no file."""
    if settings.problems is None:
        return None
    file = SAMPLE if settings.problems == Path("sample") else settings.problems
    return load_problems(file, settings.data, settings.on_bad_problem).problems


def _options(settings: CheckSettings, problems: Sequence[Problem] | None) -> CheckOptions:
    """The options of the check, with the question of the problem ``check.problem``, if that is set.

    Raises ``UserError`` if ``problems`` does not have that problem.
    """
    wanted = settings.check.problem
    if wanted is None:
        return settings.check
    for problem in problems or ():
        if problem.problem_id == wanted:
            return settings.check.model_copy(update={"question": problem.question})
    remedy = "Set problems to its file." if problems is None else "Give the problem_id of a problem in the file."
    raise UserError(f"there is no problem {wanted}", where="check.problem", remedy=remedy)


async def _check(settings: CheckSettings, options: CheckOptions, console: Console) -> CheckResult:
    activity = Activity()
    progress = RunProgress(activity, problems=1, iterations=small_method(settings.method, options).max_iterations)
    with cancel_on_sigterm(), temporary_directory() as directory:
        async with show_progress(progress, console):
            return await check_model(settings, options, directory, activity)
