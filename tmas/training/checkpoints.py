"""The list of a training run's own checkpoints, so that ``tmas export`` loads no others by mistake.

verl loads the shards of a checkpoint with pickle, which can run any code. ``checkpoints/manifest.jsonl`` lists the
shards that the run itself saved. The list shows that a checkpoint was saved by this run. It does not protect a folder
that others can write to, because anyone who can change the shards can also change the list.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from tmas.files import append_lines, file_digest, text_digest
from tmas.records import SCHEMA_VERSION, Record
from tmas.records.checksums import checked_line
from tmas.records.reading import Version, read_records

MANIFEST = "manifest.jsonl"
SHARDS = "model_world_size_*_rank_*.pt"


class Shard(Record):
    """A file that is loaded with pickle. ``path``: relative to the folder of the checkpoints. ``bytes``: its size.

    ``pickle``: the first 20 hex digits of the SHA-256 of the pickle in the file. The tensors are not hashed: they run
    no code, and can be hundreds of gigabytes.
    """

    path: str
    bytes: int
    pickle: str


class SavedCheckpoint(Record):
    """A line of ``checkpoints/manifest.jsonl``: the shards of one saved checkpoint of the policy."""

    v: Version = SCHEMA_VERSION
    step: int
    shards: tuple[Shard, ...]


def record_checkpoint(folder: Path, step: int) -> None:
    """Add the checkpoint in ``folder`` (``global_step_N``) to the manifest in its parent folder.

    Shards that are on the disks of other nodes are not listed.
    """
    shards = tuple(_shard(file, folder.parent) for file in sorted(folder.glob(f"actor/{SHARDS}")))
    append_lines(folder.parent / MANIFEST, [SavedCheckpoint(step=step, shards=shards)], checked_line)


def unknown_shards(actor: Path) -> list[Path]:
    """The shards in the folder ``actor`` that are not in the run's manifest, or have changed since they were listed.

    Raises :class:`~tmas.records.reading.DefectiveFile` if the manifest is damaged.
    """
    checkpoints = actor.absolute().parent.parent
    known = [shard for line in read_records(checkpoints / MANIFEST, SavedCheckpoint) for shard in line.shards]
    return [file for file in sorted(actor.absolute().glob(SHARDS)) if _shard(file, checkpoints) not in known]


def _shard(file: Path, checkpoints: Path) -> Shard:
    path = file.relative_to(checkpoints).as_posix()
    return Shard(path=path, bytes=file.stat().st_size, pickle=_pickle_digest(file))


def _pickle_digest(file: Path) -> str:
    """Digest of the pickle in a zip archive of ``torch.save``, or of the whole file if it is not a zip archive."""
    try:
        with zipfile.ZipFile(file) as archive:
            pickles = [name for name in archive.namelist() if name.endswith(".pkl")]
            return text_digest(b"\0".join(archive.read(name) for name in pickles))
    except zipfile.BadZipFile:
        return file_digest(file)
