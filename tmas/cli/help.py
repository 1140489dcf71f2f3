"""``tmas COMMAND --help``: what a command does, an example, its groups, and the settings most often used.

The texts come from ``hydra.help`` in the command's file in conf/ and from the settings classes. No settings are
composed, which takes less time than Hydra's own ``--help``, and ``tmas train --help`` needs no verl.
"""

from __future__ import annotations

from collections.abc import Iterable

from tmas.cli.options import group_lines, help_of, label_and_text, options_of_command

TEMPLATE = """\
{header}

{groups}Settings most often used (key=value; null: see the description):
{settings}

tmas options COMMAND lists all settings. --cfg job prints the composed configuration without running anything."""


def help_text(command: str, settings_class: str) -> str:
    """The help of a command. ``settings_class``: the class of its settings as ``module:class``."""
    written = help_of(command)
    groups = "".join(f"{line}\n" for line in [*lines, ""]) if (lines := group_lines(command)) else ""
    settings = _frequent_settings(command, settings_class, written["footer"].split())
    return TEMPLATE.format(header=written["header"].strip(), groups=groups, settings=settings)


def _frequent_settings(command: str, settings_class: str, keys: Iterable[str]) -> str:
    """The settings ``keys`` of a command with their defaults and descriptions."""
    options = {option.key: option for option in options_of_command(command, settings_class)}
    lines: list[str] = []
    for key in keys:
        option = options[key]
        default = f"={option.default}" if option.default not in ("", "null") else ""
        lines += label_and_text(f"{key}{default}", option.description)
    return "\n".join(lines)
