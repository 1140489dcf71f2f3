"""``tmas options COMMAND [SECTION]``: the settings of a command and the choices of its configuration groups.

The settings classes contain every name, type, default and description. ``--help`` and ``docs/options.md`` show them as
well. ``tmas options --markdown`` prints docs/options.md.
"""

from __future__ import annotations

import argparse
import pkgutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import orjson
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tmas.cli.config_files import config_directory, config_name
from tmas.cli.exits import WRONG_INPUT, fail
from tmas.methods import METHODS
from tmas.methods.base import MethodSettings as AnyMethod
from tmas.prompts import Prompts
from tmas.settings import flatten

WIDTH = 120
TYPE_NAMES = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path", Prompts: "folder"}
PLACEHOLDERS = {"roles": "ROLE", "prices": "MODEL"}
"""Placeholder for the keys of a mapping in the list of settings, by the mapping's name. Defaults to NAME."""

LONG_JUDGE_PREFIX = "reward.custom_reward_function.reward_kwargs.settings.judge."
"""Prefix of the settings of tmas train that are listed under the short prefix ``judge.``."""
METHOD = "method"
"""The key whose settings depend on the method that is chosen."""


class SettingEntry(NamedTuple):
    """One setting. ``key``: dotted. ``type``: in words. ``default``: as on the command line; empty if there is none."""

    key: str
    type: str
    default: str
    description: str


class GroupChoice(NamedTuple):
    """One file of a configuration group, and the first comment in it."""

    name: str
    comment: str


# --- settings


def options_of_command(command: str, settings_class: str) -> list[SettingEntry]:
    """The settings of a command, with the defaults that its own file in conf/ sets.

    ``settings_class``: the settings class as ``module:class``. The settings of the method are those of TMAS.
    """
    composed = yaml.safe_load((config_directory() / f"{config_name(command)}.yaml").read_text("utf-8"))
    defaults = {key: "" if value == "???" else _format_default(value) for key, value in flatten(composed).items()}
    options: list[SettingEntry] = []
    for option in options_of(pkgutil.resolve_name(settings_class)):
        if option.key.startswith(LONG_JUDGE_PREFIX):  # listed under its short name
            continue
        options += options_of(METHODS["tmas"].settings_type, "method.") if option.key == METHOD else [option]
    return [option._replace(default=defaults.get(option.key, option.default)) for option in options]


def options_of(
    settings: type[BaseModel], prefix: str = "", defaults: BaseModel | None = None
) -> Iterator[SettingEntry]:
    """All settings in ``settings`` and the classes nested in it. ``defaults`` replaces the defaults of the class."""
    for name, field in settings.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        default = getattr(defaults, name) if defaults is not None else field.get_default(call_default_factory=True)
        yield from _options(key, field, default)


def _options(key: str, field: FieldInfo, default: Any) -> Iterator[SettingEntry]:
    """The entry of a field, or the entries of the settings class that it contains."""
    optional = NoneType in get_args(field.annotation)
    for part in _parts(field.annotation):
        if get_origin(part) is dict and _is_settings(get_args(part)[1]):
            inner = get_args(part)[1]
            yield from options_of(inner, f"{key}.{PLACEHOLDERS.get(key.rpartition('.')[2], 'NAME')}.")
            return
        if part is AnyMethod:
            yield SettingEntry(key, "settings", "", field.description or "")
            return
        if _is_settings(part):
            if optional:
                yield SettingEntry(key, "settings or null", _format_default(default), field.description or "")
            yield from options_of(part, f"{key}.", default if isinstance(default, part) else None)
            return
    yield SettingEntry(key, _type_name(field.annotation), _format_default(default), field.description or "")


def _parts(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; any other annotation alone."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _is_settings(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation is not AnyMethod


def _type_name(annotation: Any) -> str:
    """The type in words: ``integer or null``, ``boxed | stated``, ``list of path``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        members = [_type_name(argument) for argument in arguments if argument is not NoneType]
        return " or ".join([*members, *(["null"] if NoneType in arguments else [])])
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (list, tuple):
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return "mapping"
    return TYPE_NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _format_default(default: Any) -> str:
    """A default as the command line accepts it. Empty if the setting is required."""
    if default is PydanticUndefined:
        return ""
    if isinstance(default, BaseModel):
        default = default.model_dump(mode="json")
    if isinstance(default, Prompts):
        default = default.folder
    return default if isinstance(default, str) else orjson.dumps(default, default=str).decode()


def help_of(command: str) -> dict[str, str]:
    """``hydra.help`` in the command's file: ``header``, what it does, and ``footer``, the settings most often used."""
    written = yaml.safe_load((config_directory() / f"{config_name(command)}.yaml").read_text("utf-8"))
    return written["hydra"]["help"]


# --- configuration groups


def groups_of(command: str) -> dict[str, list[GroupChoice]]:
    """The configuration groups that ``GROUP=NAME`` chooses from in ``command``, with their choices.

    These are the groups in the command's defaults list and those that its experiments choose. A group below another
    key (``data@benchmarks.aime24.fields``) is left out.
    """
    conf = config_directory()
    name = command.replace("-", "_")
    experiments = conf / name / "experiment"
    if not experiments.is_dir():
        experiments = conf / "solve" / "experiment"
    groups: dict[str, list[GroupChoice]] = {}
    files = [conf / f"{name}.yaml"]
    while files:
        for group in _chosen_groups(files.pop()):
            folder = experiments if group == "experiment" else conf / group
            if group not in groups and folder.is_dir():
                groups[group] = [GroupChoice(file.stem, _comment(file)) for file in sorted(folder.glob("*.yaml"))]
                files += sorted(folder.glob("*.yaml")) if group == "experiment" else []
    return groups


def _chosen_groups(file: Path) -> Iterator[str]:
    """The groups in a file's defaults list: ``override /reward@reward: hybrid`` chooses from the group ``reward``."""
    defaults = yaml.safe_load(file.read_text("utf-8")).get("defaults", [])
    for key in (key for entry in defaults if isinstance(entry, dict) for key in entry):
        group, _, package = key.removeprefix("override ").removeprefix("/").partition("@")
        if package in ("", group):
            yield group


def _comment(file: Path) -> str:
    """The first comment of a configuration file, up to the end of its paragraph."""
    lines: list[str] = []
    for line in file.read_text("utf-8").splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


# --- for a terminal


def print_options(arguments: Sequence[str], settings: Mapping[str, str]) -> None:
    """``tmas options COMMAND [SECTION]``. ``settings``: the settings class of each command."""
    parser = argparse.ArgumentParser(
        "tmas options", description="List the settings of a command or of one of its sections, and a group's choices."
    )
    parser.add_argument("command", nargs="?", choices=settings, metavar="COMMAND", help=", ".join(settings))
    parser.add_argument(
        "section", nargs="?", metavar="SECTION", help="a configuration group, or the first part of some settings' keys"
    )
    parser.add_argument("--markdown", action="store_true", help="print docs/options.md, for all commands")
    parsed = parser.parse_args(arguments)
    if parsed.markdown:
        print(options_page(settings), end="")
        return
    if parsed.command is None:
        parser.error("give a COMMAND, or --markdown")
    if parsed.section is None:
        print(_settings_text(parsed.command, settings[parsed.command]))
        return
    groups = groups_of(parsed.command)
    options = options_of_command(parsed.command, settings[parsed.command])
    listed = [option for option in options if option.key.startswith(f"{parsed.section}.")]
    if parsed.section not in groups and not listed:
        available = f"its groups are {', '.join(groups)}" if groups else "it has no groups"
        fail(f"tmas {parsed.command} has no section or group {parsed.section!r}: {available}", WRONG_INPUT)
    print(_section_text(parsed.section, groups.get(parsed.section, []), listed))


def _settings_text(command: str, settings_class: str) -> str:
    blocks = [_block(option) for option in options_of_command(command, settings_class)]
    if METHOD in groups_of(command):
        blocks.append(f"Other methods have other settings: tmas options {command} {METHOD}")
    if command == "train":
        blocks.append(VERL)
    return "\n".join([f"Settings of tmas {command} (key=value):", "", *blocks, "", *group_lines(command)])


def _section_text(section: str, choices: Sequence[GroupChoice], options: Sequence[SettingEntry]) -> str:
    """The ``choices`` of a group, if the section is one, and the settings. Each method has settings of its own."""
    lines = [line for choice in choices for line in label_and_text(f"{section}={choice.name}", choice.comment)]
    settings: dict[str, Iterable[SettingEntry]] = {section: options} if options else {}
    if section == METHOD:
        settings = {f"{METHOD}={name}": options_of(m.settings_type, f"{METHOD}.") for name, m in METHODS.items()}
    for name, entries in settings.items():
        lines += [*([""] if lines else []), f"Settings of {name}:", "", *map(_block, entries)]
    return "\n".join(lines)


VERL = """\
Every key of verl's own configuration can be set as well. tmas train --cfg job prints all of them with their values;
verl's documentation and the files in verl/trainer/config explain them."""


def _block(option: SettingEntry) -> str:
    """One setting for a terminal: a line with key and default, then lines with type and description."""
    default = f"={option.default}" if option.default else ""
    text = textwrap.wrap(f"{option.type}. {option.description}", WIDTH - 6)
    return "\n".join([f"  {option.key}{default}", *(f"      {line}" for line in text)])


def label_and_text(label: str, text: str, width: int = 34) -> list[str]:
    """``text`` next to its label, or below a long label. ``width``: characters for the label."""
    wrapped = textwrap.wrap(text, WIDTH - width) or [""]
    if len(label) + 4 > width:
        return [f"  {label}", *(f"{'':{width}}{line}" for line in wrapped)]
    first, *others = wrapped
    return [f"  {label:<{width - 2}}{first}".rstrip(), *(f"{'':{width}}{line}" for line in others)]


def group_lines(command: str) -> list[str]:
    """The groups of a command with their choices, as lines for a terminal. Empty if the command has no groups."""
    groups = groups_of(command)
    if not groups:
        return []
    name = command.replace("_", "-")
    lines = [f"Groups (GROUP=NAME chooses; tmas options {name} GROUP explains the choices):"]
    for group, choices in groups.items():
        lines += label_and_text(group, ", ".join(choice.name for choice in choices), 16)
    return lines


# --- the page docs/options.md


def options_page(settings: Mapping[str, str]) -> str:
    """The text of docs/options.md: the settings and groups of all commands."""
    parts = [HEAD]
    for command, settings_class in settings.items():
        options = options_of_command(command, settings_class)
        lists_elsewhere = METHOD in groups_of(command)
        own = [option for option in options if not (lists_elsewhere and option.key.startswith(f"{METHOD}."))]
        parts.append(f"\n## tmas {command}\n\n```text\n{help_of(command)['header'].strip()}\n```\n\n{_table(own)}")
        if len(own) < len(options):
            parts.append("\nThe settings of each method are listed below, under `method=NAME`.\n")
        if command == "train":
            parts.append(f"\n{VERL}\n")
        for group, choices in groups_of(command).items():
            rows = "".join(f"| `{group}={choice.name}` | {_cell(choice.comment)} |\n" for choice in choices)
            parts.append(f"\n| `{group}=` | |\n| --- | --- |\n{rows}")
    for name, method in METHODS.items():
        parts.append(f"\n## method={name}\n\n{_table(options_of(method.settings_type, 'method.'))}")
    return "".join(parts)


HEAD = """\
# Commands and settings

A command is `tmas COMMAND KEY=VALUE ...`; `tmas --help` lists them. Their exit codes are:

| code | meaning |
| --- | --- |
| 0 | The command did what it was asked to do. |
| 1 | A check did not pass, for example in `tmas gold-check`. A bug has the same code and shows a traceback. |
| 2 | Wrong input: a setting, a file, a folder or an address. It is reported before any work begins. |
| 3 | Stopped by a server, the operating system or a failed training. The same command resumes. |
| 130 | Interrupted by Ctrl-C or SIGTERM. The same command resumes. |

Exceptions: `tmas view` ends with 0 after Ctrl-C or SIGTERM, `tmas status` with `every` after Ctrl-C, and `tmas serve`
after SIGTERM.

This page lists the settings of each command, with type, default and description, and the configuration groups that
`GROUP=NAME` chooses from. A setting without a default is required. The choice of a group can change the defaults of
its settings: `tmas COMMAND --cfg job` prints the values in force. `tmas options COMMAND` prints the same lists, and
`tmas options COMMAND SECTION` the part for a group or for the settings that begin with `SECTION.`.

`make options` writes this page from the settings classes.
"""


def _table(options: Iterable[SettingEntry]) -> str:
    rows = "".join(
        f"| `{o.key}` | {_cell(o.type)} | {f'`{_cell(o.default)}`' if o.default else ''} | {_cell(o.description)} |\n"
        for o in options
    )
    return f"| setting | type | default | description |\n| --- | --- | --- | --- |\n{rows}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
