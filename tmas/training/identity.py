"""Refuses to resume a training run with other settings.

The identity (fingerprint) of a run contains every setting that its result depends on. It is recorded in the output
directory. A run can only resume there if it has the same identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from tmas.prompts import BUILT_IN
from tmas.run.directory import RunRefused

PROMPT_PREFIX = "prompts."
"""Prefix of the identity's keys for prompt files: ``prompts.NAME`` has the hash of the file NAME."""


def refuse_another_run(
    now: dict[str, Any], path: Path, output_dir: Path, unrecorded: Mapping[str, Any] | None = None
) -> None:
    """Raise ``RunRefused`` with the differing keys if the identity in the file ``path`` differs from ``now``.

    ``unrecorded``: values of the run for keys that older versions did not record in the file.
    """
    built_in = {f"{PROMPT_PREFIX}{name}": BUILT_IN.hash(name) for name in BUILT_IN.texts}
    recorded = orjson.loads(path.read_bytes())
    # Older runs always used the built-in prompts and did not record their hashes.
    was = {**{key: built_in[key] for key in now if key in built_in}, **(unrecorded or {}), **recorded}
    now = orjson.loads(orjson.dumps(now))
    differing = sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key))
    if differing:
        lines = [f"{key}: {was.get(key)!r} in the run, {now.get(key)!r} now" for key in differing]
        raise RunRefused.with_differences(output_dir, lines)
