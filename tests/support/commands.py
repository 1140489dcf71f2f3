"""Runs ``tmas`` commands for tests, in this process or in a new one.

:func:`tmas` calls the command line's ``main`` in this process, which saves seconds of imports.
:func:`tmas_process` starts the real program. Each command has at least one test with a real process.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from tmas.cli.main import main

TMAS = [sys.executable, "-m", "tmas.cli"]
"""The program, as the first words of a command."""


@dataclass(frozen=True)
class CommandResult:
    """Exit code and output of a command, named as in :class:`subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def tmas(*words: object, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> CommandResult:
    """Run ``tmas WORDS ...`` in this process. ``env``: variables in addition to those of this process."""
    out, err = _text_file(), _text_file()
    with (
        _process_state_restored(),
        mock.patch.dict(os.environ, env or {}),
        mock.patch.object(sys, "argv", ["tmas", *map(str, words)]),
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = _exit_code()
    return CommandResult(code, _content(out), _content(err))


def tmas_process(
    *words: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``tmas WORDS ...`` in a new process. The arguments are those of :func:`tmas`."""
    command, environment = [*TMAS, *map(str, words)], {**os.environ, **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=cwd)


def _exit_code() -> int:
    """Call ``main`` and return the exit code that the interpreter would have."""
    try:
        main()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    return 0


@contextlib.contextmanager
def _process_state_restored() -> Iterator[None]:
    """Restore what a command changes in its process: the root logger, the limit of open files, Hydra's singletons.

    Inside the context the root logger has no handlers, because with pytest's handlers ``logging.basicConfig`` would
    do nothing.
    """
    root, limits = logging.getLogger(), resource.getrlimit(resource.RLIMIT_NOFILE)
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None


def _text_file() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _content(file: io.TextIOWrapper) -> str:
    assert isinstance(file.buffer, io.BytesIO)
    return file.buffer.getvalue().decode()
