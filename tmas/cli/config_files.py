"""Where the configuration files of the commands are."""

from __future__ import annotations

from pathlib import Path


def config_directory() -> Path:
    """The folder conf/: inside the installed package, or at the top level of a checkout."""
    package = Path(__file__).parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def config_name(command: str) -> str:
    """The name of the command's file in conf/, without ``.yaml``."""
    return command.replace("-", "_")
