"""Lists of problem ids. A benchmark that is part of a larger data set is selected by such a list."""

from __future__ import annotations

from pathlib import Path

from tmas.errors import UserError
from tmas.problems.files import UnreadableFile, read_content

MAX_BYTES = 100_000_000
"""Maximum size of a list of ids: far more than any benchmark needs."""


def read_ids(file_or_name: Path) -> frozenset[str]:
    """Read a list of ids: one id a line; empty lines and lines that begin with ``#`` are ignored.

    ``file_or_name``: a file, or the name of a list that the package has (``hle_math_100``). Raises
    :class:`~tmas.errors.UserError` if there is no such list, or if it has no id.
    """
    shipped = Path(__file__).parent / f"{file_or_name.name}.txt"
    path = shipped if file_or_name == Path(file_or_name.name) and shipped.is_file() else file_or_name
    try:
        lines = [line.strip() for line in read_content(path, MAX_BYTES).decode().splitlines()]
    except (UnreadableFile, UnicodeDecodeError) as error:
        names = ", ".join(sorted(file.stem for file in Path(__file__).parent.glob("*.txt")))
        raise UserError(
            f"the list of problem ids cannot be read: {error}",
            where=path,
            remedy=f"Give a file with one id a line, or the name of a list of the package ({names}).",
        ) from error
    found = frozenset(line for line in lines if line and not line.startswith("#"))
    if not found:
        raise UserError("the list of problem ids has no id", where=path)
    return found
