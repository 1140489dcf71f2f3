"""The command line: ``tmas COMMAND key=value ...``. Each command is a Hydra config in conf/ and a line below."""

from __future__ import annotations

import importlib.util
import logging
import pkgutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from tmas.cli.composing import compose_settings
from tmas.cli.exits import INTERRUPTED, STOPPED, WRONG_INPUT, fail
from tmas.cli.options import config_directory, frequent_settings, groups_in_help, print_options
from tmas.cli.prompts import write_built_in
from tmas.errors import UserError

COMMANDS = {
    "solve": ("tmas.cli.solve:solve_command", "solve problems; the same command again resumes"),
    "demo": (
        "tmas.cli.demo:demo_command",
        "TMAS and two baselines with the tiny policy that comes with the package",
    ),
    "serve": ("tmas.cli.serve:serve_command", "an OpenAI-compatible server that runs the method for each request"),
    "evaluate": ("tmas.cli.evaluate:evaluate_command", "accuracy by iteration and at equal compute, tokens"),
    "report": ("tmas.cli.report:print_report", "one HTML file: figures, tables, every call; training curves"),
    "subset": ("tmas.cli.evaluate:subset_command", "the problems that a model seldom solves"),
    "gold-check": ("tmas.cli.evaluate:gold_check_command", "whether a benchmark's own answers come out right"),
    "collect": ("tmas.cli.data:collect_command", "public problem sets as one cleaned pool"),
    "filter": ("tmas.cli.data:filter_command", "the problems that a policy solves sometimes"),
    "distill": ("tmas.cli.data:distill_command", "a teacher's runs on them"),
    "build": ("tmas.cli.data:build_command", "training rows and cold-start chats from these runs"),
    "sft": ("tmas.cli.training:sft_command", "the cold start: fine-tune a policy on teacher traces"),
    "train": ("tmas.cli.training:train_command", "train a policy by reinforcement learning on verl"),
    "export": ("tmas.cli.training:export_command", "a trained policy as a Hugging Face folder"),
}
"""``module:function`` of (settings as plain values, console), imported when the command is given; and what it does."""
SETTINGS = {
    "solve": "tmas.settings:SolveSettings",
    "demo": "tmas.cli.demo:DemoSettings",
    "serve": "tmas.serve.settings:ServeSettings",
    "evaluate": "tmas.evaluation.evaluate:EvaluateSettings",
    "report": "tmas.report.report:ReportSettings",
    "subset": "tmas.evaluation.subset:SubsetSettings",
    "gold-check": "tmas.evaluation.gold_check:GoldCheckSettings",
    "collect": "data_prep.collect:CollectSettings",
    "filter": "data_prep.difficulty:FilterSettings",
    "distill": "data_prep.distill:DistillSettings",
    "build": "data_prep.build_settings:BuildSettings",
    "sft": "tmas.training.sft.settings:SFTSettings",
    "train": "tmas.training.rl.settings:TrainSettings",
    "export": "tmas.training.export:ExportSettings",
}
"""The class that holds the settings of each command: ``tmas options`` and ``--help`` read their descriptions."""
OPTIONS = "all settings of a command, or the choices of one of its groups: tmas options COMMAND [GROUP]"
PROMPTS = "the built-in prompts as files, to change some of them and give them as prompts=FOLDER"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``tmas``: carry out a command. Raises ``SystemExit`` with its exit code unless it is 0.

    ``arguments``: those of the process by default. A :class:`UserError`, a missing file and Ctrl-C each become one
    message. Every other exception is a bug and keeps its traceback; Python then exits with code 1.
    """
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        _carry_out(command, rest)
    except UserError as error:
        fail(str(error), WRONG_INPUT)
    except KeyboardInterrupt:
        fail("Interrupted. Run the same command again to resume.", INTERRUPTED)
    except OSError as error:
        fail(f"{error.strerror}: {error.filename}" if error.filename else str(error), STOPPED)


def _carry_out(command: str, arguments: Sequence[str]) -> None:
    if command in ("-h", "--help", "help"):
        print(usage())
    elif command == "prompts":
        write_built_in(arguments)
    elif command == "options":
        print_options(arguments, SETTINGS)
    elif command not in COMMANDS:
        fail(f"unknown command {command!r}\n\n{usage()}", WRONG_INPUT)
    else:
        register_resolvers()
        for settings in compose_settings(command, arguments, config_directory()):
            logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
            pkgutil.resolve_name(COMMANDS[command][0])(settings, Console())


def usage() -> str:
    """What there is to give."""
    described = {name: what for name, (_, what) in COMMANDS.items()} | {"options": OPTIONS, "prompts": PROMPTS}
    lines = "\n".join(f"  tmas {name:<12}{what}" for name, what in described.items())
    return f"""\
tmas COMMAND key=value ...: scaling test-time compute with a team of agents

{lines}

tmas COMMAND --help explains a command; --cfg job prints the composed configuration without running anything."""


def register_resolvers() -> None:
    """Functions that the files in conf/ call: folders, the parts of a help text, and small computations.

    verl's folder is found without importing verl.
    """
    resolvers: dict[str, Callable[..., Any]] = {
        "conf_directory": lambda: str(config_directory()),
        "verl_config_directory": _verl_config_directory,
        "command_groups": groups_in_help,
        "frequent_settings": _frequent_settings,
        "add": lambda *terms: sum(terms),
        "if_named": lambda model: model if model.get("name") is not None else None,
    }
    for name, function in resolvers.items():
        OmegaConf.register_new_resolver(name, function, replace=True)


def _frequent_settings(name: str, keys: str) -> str:
    command = name.replace("_", "-")
    return frequent_settings(command, SETTINGS[command], keys.split())


def _verl_config_directory() -> str:
    found = importlib.util.find_spec("verl")
    if found is None or not found.submodule_search_locations:
        fail("training needs verl: `make install`, or see README for GPUs", WRONG_INPUT)
    return str(Path(found.submodule_search_locations[0], "trainer", "config"))
