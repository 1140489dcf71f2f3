"""The errors that callers handle. Every other exception is a bug, and a command shows its traceback.

Three further errors stop a run that can be resumed. They are defined where they are raised:
:class:`~tmas.llm.endpoint.EndpointDown`, :class:`~tmas.engines.vllm.ServerFailed` and
:class:`~tmas.engines.ray_cluster.ClusterFailed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHOWN = 20
"""Maximum number of defects that the message of :class:`FileDefects` lists."""


class UserError(Exception):
    """A mistake that the user can correct, in a file, a setting, a folder or an address.

    ``what``: what is wrong, without a final full stop. ``where``: the file, with line and field, or the setting.
    ``remedy``: what to do, in full sentences. A command prints the three without a traceback and exits with code 2.

    This is not a ``ValueError``. Python and its libraries raise ``ValueError`` for bugs, and an ``except ValueError``
    must not catch both. Inside a pydantic validator raise ``ValueError``: pydantic collects it in a
    ``ValidationError``.
    """

    def __init__(self, what: str, *, where: Path | str | None = None, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        problem = self.what if self.where is None else f"{self.where}: {self.what}"
        if self.remedy is None:
            return problem
        return f"{problem}\n{self.remedy}" if "\n" in problem else f"{problem}. {self.remedy}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Supports pickling, also of subclasses with other arguments: Ray and process pools send these errors."""
        return _restore, (type(self), self.args), self.__dict__


def _restore(kind: type[UserError], arguments: tuple[Any, ...]) -> UserError:
    return kind.__new__(kind, *arguments)


class FileDefects(UserError):
    """A file, or several, with defects. The message lists the first 20 of them, one per line; ``defects`` holds all."""

    def __init__(self, defects: Sequence[str], remedy: str | None = None) -> None:
        self.defects = tuple(defects)
        more = [f"and {len(defects) - SHOWN:,} more"] if len(defects) > SHOWN else []
        super().__init__("\n".join([*defects[:SHOWN], *more]), remedy=remedy)
