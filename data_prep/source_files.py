"""Reads the files of a source row by row.

Parquet and JSON lines are streamed, so that large files need little memory. JSON and CSV files are read as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow
from pyarrow import parquet

from tmas.data_prep.sources import Source
from tmas.problems.files import READERS, FileRow, UnreadableFile, open_regular
from tmas.problems.loader import ProblemFileError

_BATCH = 1000
_BUFFER = 1 << 20


def read_source(source: Source) -> Iterator[FileRow]:
    """Yield all rows of a source, each with its file and line. A row that cannot be parsed has a ``defect``.

    Raises :class:`ProblemFileError` for a file that cannot be read.
    """
    columns = {dotted.split(".")[0] for dotted in (source.question, source.answer)}
    for name, path in _files(source):
        for row in _rows(Path(name).suffix.lower(), path, columns):
            yield FileRow(f"{name}:{row.place}", row.values, row.defect)


def _files(source: Source) -> list[tuple[str, Path]]:
    """Name and path of each file. Files on the hub are downloaded into the cache of ``datasets``."""
    if source.files:
        return [(str(path), path) for path in source.files]
    import datasets

    found: list[tuple[str, Path]] = []
    for subset in source.subsets or (None,):
        try:
            builder = datasets.load_dataset_builder(str(source.dataset), subset, revision=source.revision)
        except ValueError as error:  # an unknown subset
            raise ProblemFileError([f"{source.dataset}: {error}"]) from error
        splits = builder.config.data_files or {}
        if source.split not in splits:
            raise ProblemFileError([f"{source.dataset}: has no split {source.split!r}"])
        names = [str(name) for name in splits[source.split]]
        places = datasets.DownloadManager(dataset_name=builder.dataset_name).download(names)
        found += [(name, Path(place)) for name, place in zip(names, places, strict=True)]
    return found


def _rows(suffix: str, path: Path, columns: set[str]) -> Iterator[FileRow]:
    if suffix not in READERS:
        raise ProblemFileError([f"{path}: its suffix is none of {', '.join(READERS)}"])
    yield from _parquet(path, columns) if suffix == ".parquet" else _text_file(path, suffix)


def _parquet(path: Path, columns: set[str]) -> Iterator[FileRow]:
    number = 0
    try:
        with (
            open_regular(path) as content,
            parquet.ParquetFile(content, buffer_size=_BUFFER, pre_buffer=False) as file,
        ):
            if missing := columns - set(file.schema_arrow.names):
                names = ", ".join(map(repr, file.schema_arrow.names))
                raise ProblemFileError(
                    [f"{path}: no column {name!r} (the columns are {names})" for name in sorted(missing)]
                )
            for batch in file.iter_batches(_BATCH, columns=sorted(columns)):
                for values in batch.to_pylist():
                    number += 1
                    yield FileRow(f"row {number}", values)
    except UnreadableFile as error:
        raise ProblemFileError([f"{path}: {error}"]) from error
    except (pyarrow.ArrowException, OSError) as error:
        raise ProblemFileError([f"{path}: cannot be read after row {number}: {error}"]) from error


def _text_file(path: Path, suffix: str) -> Iterator[FileRow]:
    try:
        with open_regular(path) as file:
            if suffix != ".jsonl":
                yield from READERS[suffix](file.read())
                return
            for number, line in enumerate(file, 1):
                yield from (FileRow(str(number), row.values, row.defect) for row in READERS[suffix](line))
    except UnreadableFile as error:
        raise ProblemFileError([f"{error.place_in(path)}: {error}"]) from error
    except OSError as error:
        raise ProblemFileError([f"{path}: {error.strerror}"]) from error
