"""The miniature policy that ships with the package, and held-out problems of its task (docs/miniature.md).

``policy/`` is a Hugging Face folder, ``problems.jsonl`` a problem file. ``prompts/`` has the prompts that the policy
was trained on. The policy knows no other wording, so it needs them even if the built-in prompts have changed since.
``manifest.json`` says how the policy was made and contains the SHA-256 of each file. ``python -m
recipes.miniature.ship`` writes all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from tmas.errors import UserError
from tmas.files import file_digest

FOLDER = Path(__file__).parent
POLICY = FOLDER / "policy"
PROBLEMS = FOLDER / "problems.jsonl"
PROMPTS = FOLDER / "prompts"
MANIFEST = FOLDER / "manifest.json"


class DamagedPolicy(UserError):
    """The shipped files differ from the manifest."""


def read_manifest(folder: Path = FOLDER) -> dict[str, Any]:
    """Return the manifest after checking every file in ``folder`` against it. Raises :class:`DamagedPolicy`."""
    try:
        manifest = orjson.loads((folder / MANIFEST.name).read_bytes())
    except FileNotFoundError:
        raise DamagedPolicy(f"{folder / MANIFEST.name} is missing: reinstall the package") from None
    listed, found = manifest["files"], hashes(folder)
    differing = [
        f"{name} is {'missing' if name not in found else 'changed' if name in listed else 'not listed'}"
        for name in sorted(listed.keys() | found.keys())
        if listed.get(name) != found.get(name)
    ]
    if differing:
        raise DamagedPolicy(
            f"{folder} does not match its manifest.json: {', '.join(differing)}. Reinstall the package, or write the "
            "folder again with `python -m recipes.miniature.ship`"
        )
    return manifest


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each shipped file except the manifest, by its path in ``folder``."""
    return {str(file.relative_to(folder)): file_digest(file, 64) for file in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    for part in (POLICY, PROMPTS):
        yield from sorted(file for file in (folder / part.name).glob("**/*") if file.is_file())
    if (folder / PROBLEMS.name).is_file():
        yield folder / PROBLEMS.name
