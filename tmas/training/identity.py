"""Whether an output directory holds another run: its recorded identity is compared with that of the run that starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from tmas.prompts import BUILT_IN
from tmas.run.directory import RunRefused

PROMPT = "prompts."
"""Keys of an identity under this prefix and the name of a prompt file hold the hash of that file."""


def refuse_another_run(now: dict[str, Any], path: Path, output_dir: Path) -> None:
    """Raises ``RunRefused`` where the identity in the file ``path`` is not ``now``."""
    built_in = {f"{PROMPT}{name}": BUILT_IN.hash(name) for name in BUILT_IN.texts}
    recorded = orjson.loads(path.read_bytes())
    was = {**{key: built_in[key] for key in now if key in built_in}, **recorded}  # older runs had no others
    now = orjson.loads(orjson.dumps(now))
    differing = sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key))
    if differing:
        lines = [f"{key}: {was.get(key)!r} in the run, {now.get(key)!r} now" for key in differing]
        raise RunRefused.with_differences(output_dir, lines)
