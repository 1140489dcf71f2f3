"""The command line: ``tmas COMMAND key=value ...``. Each command is a Hydra config in conf/ and a function below."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError
from rich.console import Console

from tmas.api import run
from tmas.config import SolveSettings
from tmas.console import print_result
from tmas.inference.endpoint import EndpointDown
from tmas.inference.metrics import metrics
from tmas.inference.run_directory import RunRefused, read_lines
from tmas.inference.session import Activity
from tmas.inference.store import TraceError
from tmas.inference.vllm_server import ServerFailed
from tmas.problems import ProblemFileError, load_problems
from tmas.progress import Progress, shown

USAGE = """\
tmas: scaling test-time compute with a team of agents

  tmas solve problems=FILE output_dir=DIR [key=value ...]   solve problems; the same command again resumes

tmas COMMAND --help explains a command's settings; tmas COMMAND ... --cfg job prints what was composed, without running.
"""
WRONG_INPUT, STOPPED, INTERRUPTED = 2, 3, 130
"""Exit codes: nothing was begun · stopped on an endpoint or a server, resumable · Ctrl-C, resumable."""


def main() -> None:
    """Entry point of ``tmas``; ends the process with the command's exit code."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in ("-h", "--help", "help"):
        print(USAGE, end="")
        return
    if command not in COMMANDS:
        print(f"tmas: unknown command {command!r}\n\n{USAGE}", end="", file=sys.stderr)
        sys.exit(WRONG_INPUT)
    sys.argv = [f"tmas {command}", *sys.argv[2:]]
    hydra.main(config_path=str(_config_directory()), config_name=command, version_base="1.3")(COMMANDS[command])()


def solve_command(config: DictConfig) -> None:
    """``tmas solve``: read the problems, run, print the result."""
    _exit_with(lambda: _solve(config))


def _solve(config: DictConfig) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    settings = SolveSettings.model_validate(plain)
    console = Console()
    loaded = load_problems(_problem_file(settings.problems), settings.data, settings.on_bad_problem)
    for message in loaded.skipped:
        console.print(f"skipped {message}", markup=False)
    problems = loaded.problems[: settings.max_problems]
    activity = Activity()
    progress = Progress(activity, len(problems), settings.method.max_iterations)

    async def solve_all() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)  # type: ignore[union-attr]
        async with shown(progress, console):
            await run(
                problems,
                settings,
                settings.output_dir,
                config=plain,
                activity=activity,
                on_result=lambda result: progress.finished(result.problem.problem_id),
            )

    try:
        asyncio.run(solve_all())
    except (KeyboardInterrupt, asyncio.CancelledError):
        _fail(f"interrupted; the same command goes on in {settings.output_dir}", INTERRUPTED)
    except (EndpointDown, ServerFailed) as error:
        _fail(f"{error}\nWhat was done is kept: the same command goes on in {settings.output_dir}", STOPPED)
    order = {problem.problem_id: place for place, problem in enumerate(problems)}
    lines = [line for line in read_lines(settings.output_dir / "predictions.jsonl") if line["problem_id"] in order]
    lines.sort(key=lambda line: order[line["problem_id"]])
    print_result(
        console,
        settings.output_dir,
        metrics(lines, (f for f in read_lines(settings.output_dir / "failures.jsonl") if f["problem_id"] in order)),
        lines,
    )


def _exit_with(command: Callable[[], None]) -> None:
    """Run ``command``; what the user can mend becomes one clear message, anything else keeps its traceback."""
    try:
        command()
    except ValidationError as error:
        lines = [f"  {'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
        _fail("wrong settings:\n" + "\n".join(lines), WRONG_INPUT)
    except (ProblemFileError, RunRefused, TraceError, ValueError) as error:
        _fail(str(error), WRONG_INPUT)
    except OSError as error:
        _fail(f"{error.strerror}: {error.filename}", STOPPED)


def _fail(message: str, code: int) -> None:
    print(f"tmas: {message}", file=sys.stderr)
    sys.exit(code)


def _problem_file(path: Path) -> Path:
    return Path(__file__).parent / "data" / "sample_problems.jsonl" if path == Path("sample") else path


def _config_directory() -> Path:
    """conf/: inside the installed package, or at the top of a checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "conf"


COMMANDS = {"solve": solve_command}
