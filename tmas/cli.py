"""The command line: ``tmas COMMAND key=value ...``. Each command is a Hydra config in conf/ and a line below."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import logging
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import uvloop
from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError
from rich.console import Console

from tmas.api import run
from tmas.console import print_result
from tmas.engines.ray_cluster import ClusterFailed
from tmas.engines.vllm import ServerFailed
from tmas.exits import INTERRUPTED, STOPPED, WRONG_INPUT, cancelled_by_sigterm, fail
from tmas.files import read_lines
from tmas.llm.endpoint import EndpointDown
from tmas.problems.loader import SAMPLE, load_problems
from tmas.progress import Progress, shown
from tmas.prompts import BUILT_IN, PromptError
from tmas.records import Problem
from tmas.run.directory import RunRefused
from tmas.run.metrics import metrics
from tmas.run.models import SharedServers
from tmas.run.session import Activity
from tmas.run.trace import TraceError
from tmas.settings import RunSettings, SolveSettings

COMMANDS = {
    "solve": ("tmas.cli:solve_command", "solve problems; the same command again resumes"),
    "demo": (
        "tmas.miniature.demo:demo_command",
        "TMAS and two baselines with the tiny policy that comes with the package",
    ),
    "serve": ("tmas.serve.commands:serve_command", "an OpenAI-compatible server that runs the method for each request"),
    "evaluate": ("tmas.evaluation.commands:evaluate_command", "accuracy by iteration and at equal compute, tokens"),
    "report": ("tmas.report.report:print_report", "one HTML file: figures, tables, every call; training curves"),
    "subset": ("tmas.evaluation.commands:subset_command", "the problems that a model seldom solves"),
    "gold-check": ("tmas.evaluation.commands:gold_check_command", "whether a benchmark's own answers come out right"),
    "collect": ("data_prep.commands:collect_command", "public problem sets as one cleaned pool"),
    "filter": ("data_prep.commands:filter_command", "the problems that a policy solves sometimes"),
    "distill": ("data_prep.commands:distill_command", "a teacher's runs on them"),
    "build": ("data_prep.commands:build_command", "training rows and cold-start chats from these runs"),
    "sft": ("tmas.training.commands:sft_command", "the cold start: fine-tune a policy on teacher traces"),
    "train": ("tmas.training.commands:train_command", "train a policy by reinforcement learning on verl"),
    "export": ("tmas.training.commands:export_command", "a trained policy as a Hugging Face folder"),
}
"""``module:function`` of (settings as plain values, console), imported when the command is given; and what it does."""
PROMPTS = "the built-in prompts as files, to change some of them and give them as prompts=FOLDER"


def main() -> None:
    """Entry point of ``tmas``; ends the process with the command's exit code."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in ("-h", "--help", "help"):
        print(usage())
        return
    if command == "prompts":
        write_built_in(sys.argv[2:])
        return
    if command not in COMMANDS:
        fail(f"unknown command {command!r}\n\n{usage()}", WRONG_INPUT)
    sys.argv = [f"tmas {command}", *sys.argv[2:]]
    register_resolvers()

    @hydra.main(config_path=str(_config_directory()), config_name=command, version_base="1.3")
    def carry_out(config: DictConfig) -> None:
        _carry_out(COMMANDS[command][0], config)

    carry_out()


def usage() -> str:
    """What there is to give."""
    described = {name: what for name, (_, what) in COMMANDS.items()} | {"prompts": PROMPTS}
    lines = "\n".join(f"  tmas {name:<12}{what}" for name, what in described.items())
    return f"""\
tmas COMMAND key=value ...: scaling test-time compute with a team of agents

{lines}

tmas COMMAND --help explains a command and its settings; --cfg job prints what was composed, without running."""


def _carry_out(home: str, config: DictConfig) -> None:
    """What the user can mend becomes one clear message, anything else keeps its traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        pkgutil.resolve_name(home)(_plain(config), Console())
    except ValidationError as error:
        fail("\n  ".join(["wrong settings:", *_defects(error)]), WRONG_INPUT)
    except (RunRefused, TraceError, ValueError) as error:
        fail(str(error), WRONG_INPUT)
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on", INTERRUPTED)
    except OSError as error:
        fail(f"{error.strerror}: {error.filename}" if error.filename else str(error), STOPPED)


def _defects(error: ValidationError) -> list[str]:
    """Each with the setting that it is about, where it is about one alone."""
    found = ((".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in error.errors())
    return [f"{where}: {what}" if where else what for where, what in found]


def _plain(config: DictConfig) -> dict[str, Any]:
    """The composed settings as plain values; ``ValueError`` names what is not set."""
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ValueError(f"not set: {', '.join(missing)}")
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def solve_command(config: dict[str, Any], console: Console) -> None:
    """``tmas solve``: read the problems, run, print the result."""
    settings = SolveSettings.model_validate(config)
    loaded = load_problems(_problem_file(settings.problems), settings.data, settings.on_bad_problem)
    for message in loaded.skipped:
        console.print(f"skipped {message}", markup=False, highlight=False, soft_wrap=True)
    problems = loaded.problems[: settings.max_problems]
    run_shown(problems, settings, settings.output_dir, config=config, console=console)
    asked = {problem.problem_id for problem in problems}
    lines, failures = (
        [line for line in read_lines(settings.output_dir / name) if line["problem_id"] in asked]
        for name in ("predictions.jsonl", "failures.jsonl")
    )
    print_result(console, settings.output_dir, metrics(lines, failures), lines)


def write_built_in(arguments: Sequence[str]) -> None:
    """``tmas prompts FOLDER``: it takes a folder alone, so it is no Hydra command."""
    parser = argparse.ArgumentParser("tmas prompts", description="Write all built-in prompts as .jinja files.")
    parser.add_argument("folder", type=Path, help="it is created; a file there that differs is not overwritten")
    folder: Path = parser.parse_args(arguments).folder
    try:
        BUILT_IN.write_all(folder)
    except PromptError as error:
        fail(str(error), WRONG_INPUT)
    except OSError as error:
        fail(f"{error.strerror}: {error.filename}", STOPPED)
    print(f"Wrote {len(BUILT_IN.texts)} prompts. Change some, delete the others if you like, and add prompts={folder}.")


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
        fail(f"interrupted; the same command goes on in {directory}", INTERRUPTED)
    except (EndpointDown, ServerFailed, ClusterFailed) as error:
        fail(f"{error}\nWhat was done is kept: the same command goes on in {directory}", STOPPED)


def _problem_file(path: Path) -> Path:
    return SAMPLE if path == Path("sample") else path


def _config_directory() -> Path:
    """conf/: inside the installed package, or at the top of a checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "conf"


def register_resolvers() -> None:
    """What conf/train.yaml computes: where verl's own config lies (found without importing verl), and a sum."""
    OmegaConf.register_new_resolver("verl_config_directory", _verl_config_directory, replace=True)
    OmegaConf.register_new_resolver("add", lambda *terms: sum(terms), replace=True)


def _verl_config_directory() -> str:
    found = importlib.util.find_spec("verl")
    if found is None or not found.submodule_search_locations:
        fail("training needs verl: `make install`, or see README for GPUs", WRONG_INPUT)
    return str(Path(found.submodule_search_locations[0], "trainer", "config"))


if __name__ == "__main__":
    main()
