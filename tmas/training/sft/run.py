"""The output directory of ``tmas sft``: checks that a run may resume in it, and writes its files."""

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
    """The loss became infinite or not a number. The last checkpoint is from before that."""


class SFTRun:
    """One run in the directory ``path``.

    ``identity``: the settings that the result depends on. ``files``: the training files; a hash of their content is
    added to the identity. Raises :class:`~tmas.run.directory.RunRefused` if ``path`` has a run with another identity.

    Every process may read. Only the process with rank 0 may write (:meth:`begin`, :meth:`log` and others).
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
        """Lock the directory, and write manifest.json and left_out.jsonl.

        Raises :class:`~tmas.run.directory.RunRefused` if the directory has files, but no run.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        foreign = {entry.name for entry in self.path.iterdir()} - {".lock", ".manifest.json.new"}
        if foreign and not self._manifest.exists():
            raise RunRefused(f"{self.path} is not empty and contains no run: use another output_dir")
        self._lock = lock_file(self.path / ".lock")
        write_json(self._manifest, self._identity)
        rows = ({"file": str(r.file), "place": r.place, "reason": r.reason, "message": r.message} for r in left_out)
        write_lines(self.path / "left_out.jsonl", rows)

    def close(self) -> None:
        """Release the lock of the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint. One whose writing was interrupted is ignored."""
        complete = [marker.parent for marker in self.checkpoints.glob("checkpoint-*/complete")]
        return max(complete, key=_step, default=None)

    def mark_complete(self, step: int) -> None:
        """Mark the checkpoint of ``step`` as complete. Call it when every process has written its part."""
        (self.checkpoints / f"checkpoint-{step}" / "complete").touch()

    def truncate_metrics(self, step: int) -> None:
        """Remove the lines of metrics.jsonl after ``step``, because these steps are about to be repeated."""
        self._logged = time.monotonic()
        write_lines(self._metrics, [line for line in read_lines(self._metrics) if line["step"] <= step])

    def log(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Append ``line`` to metrics.jsonl with the seconds since the last line. Returns the line as written."""
        now = time.monotonic()
        timed = {**line, "seconds": round(now - self._logged, 3)}
        self._logged = now
        append_lines(self._metrics, [timed])
        return timed


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
