"""Composes settings from ``KEY=VALUE`` arguments with Hydra, and turns Hydra's errors into :class:`UserError`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from tmas.cli.config_files import config_name
from tmas.errors import UserError
from tmas.records.prices import ListPrice

T = TypeVar("T")
_UNKNOWN_KEY = re.compile(r"Could not override '([^']+)'\.|Could not delete from config\. '([^']+)' does not exist")
_DUPLICATE_KEY = re.compile(r"Could not append to config\. An item is already at '([^']+)'")
_PRICE_FIELDS = "|".join(ListPrice.model_fields)
_FREE_KEY_OVERRIDE = re.compile(
    rf"((serving\.env|(model(\.roles\.\w+)?|judge)\.sampling\.extra)\.[^.=]+|prices\.[^.=]+\.({_PRICE_FIELDS}))="
)
"""Matches a ``KEY=VALUE`` with a free key, which the user chooses: the last one, or the model's name in ``prices``.
Hydra accepts a new key only after a ``+``, so :func:`compose_settings` writes ``++`` before it."""
_MISSING = re.compile(r"Missing mandatory value: ([\w.]+)")
_COMMA = re.compile(r"Ambiguous value for argument '([^\n]+)'\n")


def compose_settings(command: str, arguments: Sequence[str], directory: Path) -> list[dict[str, Any]]:
    """The composed settings of ``command`` as plain values, one dictionary for each Hydra job.

    There is one job; several with ``--multirun``; none if Hydra prints something instead (``--help``, ``--cfg``,
    ``--info``). ``directory``: the folder conf/. The command itself does not run inside Hydra, so every Hydra exception
    is about the arguments. Raises :class:`UserError` for wrong arguments.
    """
    arguments = [f"++{word}" if _FREE_KEY_OVERRIDE.match(word) else word for word in arguments]
    jobs: list[dict[str, Any] | UserError] = []

    @hydra.main(config_path=str(directory), config_name=config_name(command), version_base="1.3")
    def collect(config: DictConfig) -> None:
        try:
            jobs.append(_to_plain_values(config, command))
        except UserError as error:  # raised after Hydra has returned, because Hydra would print it in its own form
            jobs.append(error)

    _refuse_unknown_options(command, arguments)
    try:
        with _command_line(command, arguments):
            _compose_once(collect, arguments)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise _HydraErrorExplainer(command, arguments, directory).explain(error) from None
    settings: list[dict[str, Any]] = []
    for job in jobs:
        if isinstance(job, UserError):
            raise job
        settings.append(job)
    return settings


def validated(make: Callable[..., T], *values: Any) -> T:
    """Return ``make(*values)``, which builds settings. Raises :class:`UserError` that lists all wrong settings."""
    try:
        return make(*values)
    except ValidationError as error:
        wrong = ((".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in error.errors())
        defects = [f"{key}: {message}" if key else message for key, message in wrong]
        raise UserError("\n  ".join(["wrong settings:", *defects])) from None


@contextmanager
def _command_line(command: str, arguments: Sequence[str]) -> Iterator[None]:
    """Set ``sys.argv``, which Hydra reads, and HYDRA_FULL_ERROR, with which Hydra raises errors instead of exiting."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = [f"tmas {command}", *arguments], "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def _compose_once(collect: Callable[[], None], arguments: Sequence[str]) -> None:
    """Call ``collect`` without Hydra's first composition, which takes as long as the second one.

    Hydra's first composition only reads ``hydra.mode``, which says whether there is one job. If no argument begins
    with a dash, this function assumes one job. The assumption is wrong if an argument or a file sets another mode.
    Hydra then raises an error about the mode, or about a setting with several values, and this function calls
    ``collect`` again and lets Hydra read the mode.
    """
    if any(word.startswith("-") for word in arguments):
        return collect()
    read_mode = Hydra.get_mode
    Hydra.get_mode = lambda *_, **__: RunMode.RUN
    try:
        return collect()
    except (AssertionError, HydraException) as error:
        if isinstance(error, HydraException) and not _COMMA.search(str(error)):
            raise
    finally:
        Hydra.get_mode = read_mode
    return collect()


def _refuse_unknown_options(command: str, arguments: Sequence[str]) -> None:
    """Raise :class:`UserError` for an option that Hydra does not have. Hydra would print its own usage and exit.

    The list of options is in a private module: Hydra has no public function for it.
    """
    _, unknown = get_args_parser().parse_known_args([*arguments])
    if unknown:
        remedy = f"A setting is given as KEY=VALUE, without dashes. `tmas {command} --help` shows an example."
        raise UserError(f"tmas {command} has no such option", where=unknown[0], remedy=remedy)


def _to_plain_values(config: DictConfig, command: str) -> dict[str, Any]:
    """The configuration as plain values. Raises :class:`UserError` for values that are missing or unresolved."""
    remedy = f"Give each as KEY=VALUE. `tmas {command} --help` shows an example."
    try:
        if missing := sorted(OmegaConf.missing_keys(config)):
            raise UserError(f"not set: {', '.join(missing)}", remedy=remedy)
        return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        if found := _MISSING.search(str(error)):  # missing_keys stops at the first list that uses a missing value
            raise UserError(f"not set: {found[1]}", remedy=remedy) from None
        # an interpolation ${...} that cannot be resolved
        raise UserError(str(error).splitlines()[0], where=error.full_key) from None


class _HydraErrorExplainer:
    """Turns a Hydra exception about the arguments of ``command`` into a :class:`UserError` with a remedy."""

    def __init__(self, command: str, arguments: Sequence[str], directory: Path) -> None:
        self._command = command
        self._overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
        self._directory = directory

    def explain(self, error: Exception) -> UserError:
        if isinstance(error, OverrideParseException):
            return _syntax_error(error, self._command)
        if isinstance(error, MissingConfigException) and error.options:
            group, _, choice = str(error.missing_cfg_file).rpartition("/")
            return self._unknown_choice(group, choice, error.options)
        text = str(error)
        if found := _UNKNOWN_KEY.search(text):
            return self._unknown_key(found[1] or found[2])
        if found := _DUPLICATE_KEY.search(text):
            remedy = f"Give {found[1]}=VALUE without the +."
            return UserError("this setting already exists", where=f"+{found[1]}", remedy=remedy)
        if found := _COMMA.search(text):
            remedy = "Write a list as KEY=[A,B] and a text with a comma as 'KEY=\"A,B\"'."
            return UserError("the value has a comma", where=found[1], remedy=remedy)
        if text.startswith("Config group override must be a string"):
            return self._not_a_name(text)
        if isinstance(error, ValueError) and not isinstance(error, OmegaConfBaseException):
            raise error  # a bug: Hydra raises no other ValueError about arguments
        return UserError(text.partition("\nConfig search path:")[0].strip())

    def _not_a_name(self, text: str) -> UserError:
        """The error for a group whose value is a number or null instead of a name."""
        for group, value in (override.split("=", 1) for override in self._overrides):
            choices = [file.stem for folder in self._folders(group) for file in folder.glob("*.yaml")]
            if choices and value not in choices:
                return self._unknown_choice(group, value, choices)
        return UserError(text)

    def _unknown_choice(self, group: str, choice: str, choices: Iterable[str]) -> UserError:
        choices = sorted(choices)
        suggestions = get_close_matches(choice, choices, n=1)
        hint = f"Did you mean {group}={suggestions[0]}?" if suggestions else f"The choices are {', '.join(choices)}."
        return UserError(
            f"the group {group} has no such choice",
            where=f"{group}={choice}",
            remedy=f"{hint} `tmas options {self._command} {group}` lists the choices of {group}.",
        )

    def _unknown_key(self, key: str) -> UserError:
        keys = self._keys(key)
        # Without the sections that contain the key: for model.nmae, do not suggest model.
        candidates = [name for name in keys if not (key.startswith(f"{name}.") and _has_children(name, keys))]
        suggestions = _nearest(key, candidates)
        section = (suggestions[0] if suggestions else key).partition(".")[0]
        hint = f"Did you mean {' or '.join(suggestions)}? " if suggestions else ""
        if key.startswith("serving.args."):
            hint += f"A flag of vllm serve that conf/serving/vllm.yaml does not list needs a plus: +{key}=VALUE. "
        listed = self._where_listed(section if _has_children(section, keys) else None)
        return UserError(f"tmas {self._command} has no such setting", where=key, remedy=f"{hint}{listed}")

    def _keys(self, wrong: str) -> list[str]:
        """All dotted keys of the command, and the names of its groups.

        The groups are chosen as on the command line, except for an override of the unknown key ``wrong``.
        """
        chosen = [o for o in self._overrides if self._is_group(key := o.partition("=")[0].lstrip("+")) and key != wrong]
        with hydra.initialize_config_dir(str(self._directory), version_base="1.3"):
            try:
                config = hydra.compose(config_name(self._command), overrides=chosen, return_hydra_config=True)
            except HydraException:  # a group that the command does not have
                config = hydra.compose(config_name(self._command), return_hydra_config=True)
        groups = [group for group in config.hydra.runtime.choices if not group.startswith("hydra/")]
        with open_dict(config):
            del config["hydra"]
        return list(dict.fromkeys([*_dotted_keys(config), *groups]))

    def _is_group(self, key: str) -> bool:
        return bool(self._folders(key))

    def _folders(self, group: str) -> list[Path]:
        """The folders with a group's choices: the one that all commands share, and the command's own."""
        name = group.partition("@")[0]
        folders = (self._directory / name, self._directory / config_name(self._command) / name)
        return [folder for folder in folders if name and folder.is_dir()]

    def _where_listed(self, section: str | None) -> str:
        if self._command == "train":  # tmas options does not list verl's sections
            ours = "`tmas options train` lists this project's settings"
            return f"{ours}, and `tmas train --cfg job` prints those of verl, too."
        if section is None:
            return f"`tmas options {self._command}` lists all settings."
        return f"`tmas options {self._command} {section}` lists the settings of {section}."


def _syntax_error(error: OverrideParseException, command: str) -> UserError:
    if "=" not in error.override:
        remedy = f"`tmas {command} --help` shows an example."
        return UserError("this is not of the form KEY=VALUE", where=error.override, remedy=remedy)
    [detail, *_] = (line for line in str(error).splitlines() if not line.startswith("Error parsing"))
    remedy = "A value with spaces or special characters needs quotes inside the shell's quotes: 'KEY=\"VALUE\"'."
    return UserError(f"the value cannot be read ({detail})", where=error.override, remedy=remedy)


def _nearest(key: str, keys: Sequence[str]) -> list[str]:
    """At most three keys: first those that end in ``key`` (the user left out the group), then those spelt like it."""
    without_group = [name for name in keys if name.endswith(f".{key}")]
    return list(dict.fromkeys([*without_group, *get_close_matches(key, keys, n=3, cutoff=0.75)]))[:3]


def _has_children(key: str, keys: Iterable[str]) -> bool:
    return any(name.startswith(f"{key}.") for name in keys)


def _dotted_keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in config:
        key = f"{prefix}{name}"
        yield key
        inner = None if OmegaConf.is_missing(config, name) else config._get_node(name)
        if isinstance(inner, DictConfig) and not inner._is_none() and not inner._is_interpolation():
            yield from _dotted_keys(inner, f"{key}.")
