"""The command line ``tmas COMMAND key=value ...``. Each command has a file in conf/ and a line in ``COMMANDS``.

Functions import what they need, so that ``tmas --help`` and a mistyped command answer at once.
"""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tmas.cli.exits import INTERRUPTED, STOPPED, WRONG_INPUT, fail
from tmas.errors import UserError

COMMANDS = {
    "solve": ("tmas.cli.solve:solve_command", "solve problems; run the same command again to resume"),
    "check": ("tmas.cli.check:check_command", "check in a minute that a model can play every role, before a run"),
    "demo": (
        "tmas.cli.demo:demo_command",
        "compare TMAS with two baselines, using the tiny policy in the package",
    ),
    "serve": ("tmas.cli.serve:serve_command", "start an OpenAI-compatible server whose models are methods"),
    "status": ("tmas.cli.live:status_command", "show what a live run is doing, or what another run has done"),
    "control": ("tmas.cli.live:control_command", "change the limits of a live run, pause it, or let it continue"),
    "view": ("tmas.cli.view:view_command", "serve the report of a live or finished run on this machine, as it grows"),
    "evaluate": (
        "tmas.cli.evaluate:evaluate_command",
        "score runs: accuracy by iteration and at equal compute, and tokens",
    ),
    "whatif": (
        "tmas.cli.whatif:whatif_command",
        "show what other settings would have given in a finished run, without a model",
    ),
    "report": ("tmas.cli.report:print_report", "write one HTML file with figures, tables, calls and training curves"),
    "subset": ("tmas.cli.evaluate:subset_command", "write the problems that a model seldom solves"),
    "gold-check": ("tmas.cli.evaluate:gold_check_command", "check that a benchmark's gold answers are judged as right"),
    "collect": ("tmas.cli.data:collect_command", "build one cleaned pool from public problem sets"),
    "filter": ("tmas.cli.data:filter_command", "keep the problems of the pool that a policy solves sometimes"),
    "distill": ("tmas.cli.data:distill_command", "run a teacher on problems of the pool"),
    "build": ("tmas.cli.data:build_command", "build training rows and cold-start chats from a teacher's runs"),
    "sft": ("tmas.cli.training:sft_command", "fine-tune a policy on teacher traces (cold start)"),
    "train": ("tmas.cli.training:train_command", "train a policy with reinforcement learning (verl)"),
    "rescore": ("tmas.cli.rescore:rescore_command", "apply another reward to the kept rollouts of a training run"),
    "export": ("tmas.cli.training:export_command", "write a trained policy as a Hugging Face folder"),
}
"""For each command: its function as ``module:function``, and its description. The function takes the settings as plain
values and a console. Its module is imported only when the command runs."""
SETTINGS = {
    "solve": "tmas.settings:SolveSettings",
    "check": "tmas.cli.check:CheckSettings",
    "demo": "tmas.cli.demo:DemoSettings",
    "serve": "tmas.serve.settings:ServeSettings",
    "status": "tmas.cli.live:StatusSettings",
    "control": "tmas.cli.live:ControlSettings",
    "view": "tmas.report.view:ViewSettings",
    "evaluate": "tmas.evaluation.evaluate:EvaluateSettings",
    "whatif": "tmas.evaluation.whatif:WhatIfSettings",
    "report": "tmas.report.report:ReportSettings",
    "subset": "tmas.evaluation.subset:SubsetSettings",
    "gold-check": "tmas.evaluation.gold_check:GoldCheckSettings",
    "collect": "tmas.data_prep.collect:CollectSettings",
    "filter": "tmas.data_prep.difficulty:FilterSettings",
    "distill": "tmas.data_prep.distill:DistillSettings",
    "build": "tmas.data_prep.build_settings:BuildSettings",
    "sft": "tmas.training.sft.settings:SFTSettings",
    "train": "tmas.training.rl.settings:TrainSettings",
    "rescore": "tmas.training.rl.rescore:RescoreSettings",
    "export": "tmas.training.export:ExportSettings",
}
"""The class that holds the settings of each command: ``tmas options`` and ``--help`` read their descriptions."""
WITH_DIRECTORY = ("status", "control", "view", "whatif")
"""Commands that take their setting ``run``, a run directory, as their first word: ``tmas status runs/first``."""
OPTIONS = "list the settings of a command, or of one of its sections or groups: tmas options COMMAND [SECTION]"
PROMPTS = "write the built-in prompts as files that you can change and use with prompts=FOLDER"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``tmas``: run a command. Raises ``SystemExit`` unless the exit code is 0.

    ``arguments``: defaults to the arguments of the process. A :class:`UserError`, an ``OSError`` (a full disk, for
    example) and Ctrl-C each become one message. A file that is missing is wrong input. Every other exception is a bug
    and keeps its traceback; Python then exits with code 1.
    """
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        _dispatch(command, rest)
    except UserError as error:
        fail(str(error), WRONG_INPUT)
    except KeyboardInterrupt:
        fail("Interrupted. Run the same command again to resume.", INTERRUPTED)
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
        code = WRONG_INPUT if is_missing else STOPPED
        fail(f"{error.strerror}: {error.filename}" if error.filename else str(error), code)


def _dispatch(command: str, arguments: Sequence[str]) -> None:
    if command in ("-h", "--help", "help"):
        print(usage())
    elif command == "--version":
        print(f"tmas {version('tmas')}")
    elif command == "prompts":
        from tmas.cli.prompts import write_built_in

        write_built_in(arguments)
    elif command == "options":
        from tmas.cli.options import print_options

        print_options(arguments, SETTINGS)
    elif command not in COMMANDS:
        fail(f"unknown command {command!r}\n\n{usage()}", WRONG_INPUT)
    elif "--help" in arguments or "-h" in arguments:
        from tmas.cli.help import help_text

        print(help_text(command, SETTINGS[command]))
    else:
        _run(command, arguments)


def _run(command: str, arguments: Sequence[str]) -> None:
    from tmas.cli.composing import compose_settings
    from tmas.cli.config_files import config_directory
    from tmas.cli.console import CleanConsole
    from tmas.redaction import log_to_stderr

    register_resolvers()
    if command in WITH_DIRECTORY:
        arguments = _with_named_directory(arguments)
    for settings in compose_settings(command, arguments, config_directory()):
        log_to_stderr()
        pkgutil.resolve_name(COMMANDS[command][0])(settings, CleanConsole())


def _with_named_directory(arguments: Sequence[str]) -> list[str]:
    """Turn a first word that is neither KEY=VALUE nor a flag into ``run=WORD``, quoted for Hydra."""
    from hydra.core.override_parser.types import Quote, QuotedString

    if not arguments or arguments[0].startswith("-") or "=" in arguments[0]:
        return [*arguments]
    first, *others = arguments
    return [f"run={QuotedString(first, Quote.single).with_quotes()}", *others]


def usage() -> str:
    """The help text with all commands."""
    descriptions = {name: text for name, (_, text) in COMMANDS.items()} | {"options": OPTIONS, "prompts": PROMPTS}
    lines = "\n".join(f"  tmas {name:<12}{text}" for name, text in descriptions.items())
    return f"""\
tmas COMMAND key=value ...: scaling test-time compute with a team of agents

{lines}

tmas COMMAND --help explains a command; --cfg job prints the composed configuration without running anything."""


def register_resolvers() -> None:
    """Register the functions that files in conf/ can call: folders and small computations."""
    from omegaconf import OmegaConf

    from tmas.cli.config_files import config_directory

    resolvers: dict[str, Callable[..., Any]] = {
        "conf_directory": lambda: str(config_directory()),
        "verl_config_directory": _verl_config_directory,
        "add": lambda *terms: sum(terms),
        "strategy": lambda engine: "fsdp2" if engine == "dp" else engine,
        "divide": lambda whole, parts: max(1, whole // max(1, parts)),
        "if_named": lambda model: model if model.get("name") is not None else None,
    }
    for name, function in resolvers.items():
        OmegaConf.register_new_resolver(name, function, replace=True)


def _verl_config_directory() -> str:
    """verl's configuration folder, found without importing verl."""
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        fail("training needs verl: run `make install`, or see README for GPUs", WRONG_INPUT)
    return str(Path(spec.submodule_search_locations[0], "trainer", "config"))
