"""``tmas prompts``: writes the built-in prompts as files that a user can change."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tmas.errors import UserError
from tmas.prompts import BUILT_IN


def write_built_in(arguments: Sequence[str]) -> None:
    """``tmas prompts FOLDER``. Its only argument is a folder, so it does not use Hydra."""
    parser = argparse.ArgumentParser("tmas prompts", description="Write all built-in prompts as .jinja files.")
    parser.add_argument("folder", type=Path, help="it is created; a file there that differs is not overwritten")
    folder: Path = parser.parse_args(arguments).folder
    if folder.exists() and not folder.is_dir():
        raise UserError("this is a file, not a folder", where=folder, remedy="Name a new folder or an empty one.")
    BUILT_IN.write_all(folder)
    print(f"Wrote {len(BUILT_IN.texts)} prompts. Change some, delete the others if you like, and add prompts={folder}.")
