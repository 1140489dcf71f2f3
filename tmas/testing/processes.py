"""Finds other processes on this machine through /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def writing_to(prefix: Path) -> dict[int, str]:
    """Processes whose output goes to a file with a path that starts with ``prefix``: command lines by process id."""
    prefix = prefix.parent.resolve() / prefix.name
    return {pid: _words(pid) for pid in _all() if _output(pid).startswith(str(prefix))}


def naming(words: str) -> list[int]:
    """Ids of other processes with ``words`` in their command line."""
    return [pid for pid in _all() if pid != os.getpid() and words in _words(pid)]


def marked(mark: str) -> dict[int, str]:
    """Processes with ``mark`` (``NAME=VALUE`` or a prefix of it) in their environment: command lines by process id."""
    return {pid: _words(pid) for pid in _all() if mark in _read(pid, "environ")}


def _all() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _output(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/1")
    except OSError:
        return ""


def _words(pid: int) -> str:
    return _read(pid, "cmdline")


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
