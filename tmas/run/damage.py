"""Copies damaged lines of a run's files to ``FILE.damaged``, so that the run can be resumed without them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tmas.files import RawLine, append_lines
from tmas.records.run_files import DamagedLine
from tmas.redaction import clean_logger

log = clean_logger(__name__)
SUFFIX = ".damaged"


@dataclass(frozen=True)
class Damage:
    """A line of a file that cannot be used, and why."""

    line: RawLine
    reason: str


def set_aside(file: Path, damage: Sequence[Damage]) -> None:
    """Append lines of ``file`` to ``FILE.damaged``, each with its line number and the reason, and log a warning.

    They are on the disk when this returns. The caller removes them from ``file`` afterwards.
    """
    target = file.with_name(file.name + SUFFIX)
    append_lines(
        target,
        (
            DamagedLine(
                file=file.name,
                line=one.line.number,
                reason=one.reason,
                content=one.line.content.decode(errors="backslashreplace").removesuffix("\n"),
            )
            for one in damage
        ),
    )
    with target.open("rb") as written:
        os.fsync(written)
    for one in damage:
        log.warning("%s:%d: %s. The line was set aside in %s", file, one.line.number, one.reason, target.name)
