"""Loads benchmarks from the Hugging Face hub. ``problems=hub`` reads the benchmark of the preset ``data=NAME``.

They are written once, as JSONL, to ``$XDG_CACHE_HOME/tmas/benchmarks``, and then read like any problem file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tmas.errors import UserError
from tmas.files import text_digest, write_lines


class HubSource(BaseModel):
    """Rows of a data set on the Hugging Face hub."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(description="Name of the data set, as load_dataset takes it.")
    name: str | None = Field(default=None, description="Configuration of the data set. null: its only one.")
    split: str = Field(description="Split of the data set.")
    revision: str | None = Field(
        default=None,
        description="Commit or tag of the data set. null: the newest when the rows are first downloaded; later runs"
        " read the downloaded file.",
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Maps a column's name in the local file to its name on the hub, where they differ.",
    )
    where: dict[str, str] = Field(
        default_factory=dict, description='Keep only rows with these values, by column. "": an empty value.'
    )


class HubError(UserError):
    """The data set cannot be loaded. The message says why and what to do."""


def fetch(source: HubSource, columns: Sequence[str]) -> Path:
    """Return a JSONL file of the rows with ``columns`` (by their local names), downloaded if it is missing.

    Raises :class:`HubError` if the data set cannot be loaded or lacks a column.
    """
    digest = text_digest(f"{source.model_dump_json()} {columns}", 12)
    target = _cache() / f"{source.path.strip('/').replace('/', '--')}-{digest}.jsonl"
    if not target.exists():
        write_lines(target, _rows(source, columns))
    return target


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tmas" / "benchmarks"


def _rows(source: HubSource, columns: Sequence[str]) -> list[dict[str, Any]]:
    data = _load(source)
    remote = {column: source.columns.get(column, column) for column in columns}
    needed = [*dict.fromkeys([*remote.values(), *source.where])]
    if missing := [column for column in needed if column not in data.column_names]:
        raise HubError(f"{source.path} has no column {missing[0]!r} (the columns are {', '.join(data.column_names)})")
    selected: Iterable[dict[str, Any]] = data.select_columns(needed)  # images are never decoded
    return [
        {column: row[remote_name] for column, remote_name in remote.items()}
        for row in selected
        if all((row[column] or "") == value for column, value in source.where.items())
    ]


def _load(source: HubSource) -> Any:
    try:
        from datasets import load_dataset
    except ImportError:
        raise HubError("problems=hub needs the package datasets: pip install datasets") from None
    try:
        return load_dataset(source.path, source.name, split=source.split, revision=source.revision)
    except (OSError, ValueError) as error:  # the hub's own errors are all one of these
        raise HubError(f"{source.path} cannot be loaded from the hub: {error}{_advice(source, error)}") from error


def _advice(source: HubSource, error: Exception) -> str:
    if "gated" not in str(error).lower():
        return ""
    return (
        f"\nThe data set is gated: accept the terms on the page of {source.path}, then `hf auth login`, or set "
        "HF_TOKEN to a token that may read it. Or use a local file: problems=FILE"
    )
