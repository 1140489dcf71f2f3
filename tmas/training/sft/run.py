"""The output directory of ``tmas sft``: whether a run may go on in it, and what it leaves there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tmas.files import append_lines, file_digest, read_lines, write_json, write_lines
from tmas.run.directory import RunRefused, lock_file
from tmas.settings import flatten
from tmas.training.identity import refuse_another_run
from tmas.training.sft.rows import LeftOut


class TrainingFailed(Exception):
    """The loss is no number any more; the last checkpoint is from before that."""


class SFTRun:
    """One run in ``path``. ``identity`` is what its outcome depends on; ``files`` count by their content.

    Raises :class:`~tmas.run.directory.RunRefused` where a run with another identity lies. Reading is for
    every process, writing (:meth:`begin`, :meth:`log`, ...) for the first one alone.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], files: Iterable[Path]) -> None:
        self.path = path
        self.final = path / "final"
        self.checkpoints = path / "checkpoints"
        self._metrics = path / "metrics.jsonl"
        self._manifest = path / "manifest.json"
        self._identity = {**flatten(identity), "train_files": [file_digest(file) for file in files]}
        self._logged = time.monotonic()
        self._lock: int | None = None
        if self._manifest.exists():
            refuse_another_run(self._identity, self._manifest, self.path)

    def begin(self, left_out: Iterable[LeftOut]) -> None:
        """Take the directory for this process, and write what is known before the first update."""
        self.path.mkdir(parents=True, exist_ok=True)
        foreign = {entry.name for entry in self.path.iterdir()} - {".lock", ".manifest.json.new"}
        if foreign and not self._manifest.exists():
            raise RunRefused(f"{self.path} is not empty and holds no run: use another output_dir")
        self._lock = lock_file(self.path / ".lock")
        write_json(self._manifest, self._identity)
        rows = ({"file": str(r.file), "place": r.place, "reason": r.reason, "message": r.message} for r in left_out)
        write_lines(self.path / "left_out.jsonl", rows)

    def close(self) -> None:
        """Leave the directory to others."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that was written to its end; one that a kill has torn is passed over."""
        complete = [marker.parent for marker in self.checkpoints.glob("checkpoint-*/complete")]
        return max(complete, key=_step, default=None)

    def mark_complete(self, step: int) -> None:
        """Once every process has written its part of the checkpoint of ``step``."""
        (self.checkpoints / f"checkpoint-{step}" / "complete").touch()

    def cut_metrics(self, step: int) -> None:
        """Forget what was logged after ``step``: it is about to be done again."""
        self._logged = time.monotonic()
        write_lines(self._metrics, [line for line in read_lines(self._metrics) if line["step"] <= step])

    def log(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Append to metrics.jsonl, with the seconds since the line before; returns the line as written."""
        now = time.monotonic()
        whole = {**line, "seconds": round(now - self._logged, 3)}
        self._logged = now
        append_lines(self._metrics, [whole])
        return whole


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
