"""The command line: ``tmas COMMAND key=value ...``. Each command is a Hydra config in conf/ and a line below."""

from __future__ import annotations

import importlib.util
import logging
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError
from rich.console import Console

from tmas.cli.exits import INTERRUPTED, STOPPED, WRONG_INPUT, fail
from tmas.cli.options import config_directory, frequent_settings, groups_in_help, print_options
from tmas.cli.prompts import write_built_in
from tmas.run.directory import RunRefused
from tmas.run.trace import TraceError

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


def main() -> None:
    """Entry point of ``tmas``; ends the process with the command's exit code."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in ("-h", "--help", "help"):
        print(usage())
        return
    if command == "prompts":
        write_built_in(sys.argv[2:])
        return
    if command == "options":
        print_options(sys.argv[2:], SETTINGS)
        return
    if command not in COMMANDS:
        fail(f"unknown command {command!r}\n\n{usage()}", WRONG_INPUT)
    sys.argv = [f"tmas {command}", *sys.argv[2:]]
    register_resolvers()

    @hydra.main(config_path=str(config_directory()), config_name=config_name(command), version_base="1.3")
    def carry_out(config: DictConfig) -> None:
        _carry_out(COMMANDS[command][0], config)

    carry_out()


def config_name(command: str) -> str:
    """The name of the command's file in conf/, without ``.yaml``."""
    return command.replace("-", "_")


def usage() -> str:
    """What there is to give."""
    described = {name: what for name, (_, what) in COMMANDS.items()} | {"options": OPTIONS, "prompts": PROMPTS}
    lines = "\n".join(f"  tmas {name:<12}{what}" for name, what in described.items())
    return f"""\
tmas COMMAND key=value ...: scaling test-time compute with a team of agents

{lines}

tmas COMMAND --help explains a command; --cfg job prints the composed configuration without running anything."""


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
