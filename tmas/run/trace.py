"""The trace of one problem: every finished call and every noted decision, appended to one JSONL file.

Resume is replay: a method runs again from its start, and the trace answers what was already done. Lines are on disk
(``fdatasync``) before their content is used. In memory stand only offsets, so a long trace costs little to hold open.

Lines are objects with ``type``: ``prompt`` (messages, written once and referred to by hash), ``call`` (key, request,
packing notes, and ``reply`` or ``failure``), ``decision`` (name, value).
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson

from tmas.errors import UserError
from tmas.files import JsonLine, cut_torn_line, digest, json_line, scan_lines, text_digest
from tmas.records import SCHEMA_VERSION, CallKey, Failure, PackingNote, Reply, Request

REDO = "Move the file away and run the same command again: the problem is solved anew."


class TraceError(UserError):
    """The trace cannot be used: it is damaged, or it was written by another run. Names file and line."""


def trace_name(problem_id: str) -> str:
    """A file name for any problem id: readable where that is safe, unique by hash, never a path."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", problem_id).strip("._")[:40]
    return f"{readable}-{text_digest(problem_id, 12)}.jsonl"


def trace_path(directory: Path, problem_id: str) -> Path:
    """The trace of a problem in a run directory."""
    return directory / "trace" / trace_name(problem_id)


class Trace:
    """Opened for one problem by one writer. A torn last line, left by a kill, is cut off; other damage is an error.

    Raises ``BlockingIOError`` while another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._calls: dict[str, tuple[str, int, int]] = {}
        self._decisions: dict[str, Any] = {}
        self._prompts: set[str] = set()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._end = 0
        with ExitStack() as unless_damaged:
            unless_damaged.callback(self.close)
            self._lock()
            for line in scan_lines(path, TraceError, REDO):
                self._read(line)
            cut_torn_line(path, self._end)
            unless_damaged.pop_all()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(errno.EWOULDBLOCK, "another process still writes", str(self.path)) from None

    def _read(self, line: JsonLine) -> None:
        number, entry = line.number, line.value
        try:
            version = entry["v"]
            if version == SCHEMA_VERSION:
                self._index(entry, line.end - line.start)
        except (KeyError, TypeError, ValueError) as error:
            raise TraceError(f"damaged line ({error})", where=f"{self.path}:{number}", remedy=REDO) from error
        if version != SCHEMA_VERSION:
            raise TraceError(
                f"schema version {version}, this version of tmas reads {SCHEMA_VERSION}", where=f"{self.path}:{number}"
            )

    def _index(self, entry: dict[str, Any], length: int) -> None:
        if entry["type"] == "call":
            self._calls[str(CallKey(**entry["key"]))] = (entry["digest"], self._end, length)
        elif entry["type"] == "decision":
            self._decisions[entry["name"]] = entry["value"]
        else:
            self._prompts.add(entry["digest"])
        self._end += length

    def __len__(self) -> int:
        return len(self._calls)

    def find(self, key: CallKey, request: Request) -> Reply | Failure | None:
        """The recorded outcome of a call, None if there is none. Another request under the same key is an error."""
        if str(key) not in self._calls:
            return None
        recorded, offset, length = self._calls[str(key)]
        if recorded != digest(request.model_dump()):
            raise TraceError(
                f"{key} was recorded for another request, so this is not the run that was started", where=self.path
            )
        entry = orjson.loads(os.pread(self._file, length, offset))
        return Failure(**entry["failure"]) if "failure" in entry else Reply(**entry["reply"])

    async def add(
        self,
        key: CallKey,
        request: Request,
        outcome: Reply | Failure,
        packing: Sequence[PackingNote] = (),
        started: float = 0.0,
    ) -> None:
        """Record a finished call; returns once it is on disk. ``started``: Unix time in seconds."""
        asked = request.model_dump()
        whole, messages = digest(asked), asked.pop("messages")
        prompt = digest(messages)
        entries = [] if prompt in self._prompts else [{"type": "prompt", "digest": prompt, "messages": messages}]
        entry: dict[str, Any] = {
            "type": "call",
            "key": key.model_dump(),
            "digest": whole,
            "prompt": prompt,
            "request": asked,
            "started": started,
        }
        if packing:
            entry["packing"] = [note.model_dump() for note in packing]
        entry["failure" if isinstance(outcome, Failure) else "reply"] = outcome.model_dump(mode="json")
        self._append(*entries, entry)
        with self._named():
            await asyncio.to_thread(os.fdatasync, self._file)

    def decision(self, name: str) -> Any | None:
        """The value noted under ``name``, None if there is none."""
        return self._decisions.get(name)

    def decisions(self, prefix: str) -> list[Any]:
        """The values noted under the names that begin with ``prefix``."""
        return [value for name, value in self._decisions.items() if name.startswith(prefix)]

    def decide(self, name: str, value: Any) -> None:
        """Note a decision that a replay must repeat; a later one under the same name stands instead."""
        self._append({"type": "decision", "name": name, "value": value})

    def _append(self, *entries: dict[str, Any]) -> None:
        lines = [json_line({"v": SCHEMA_VERSION, **entry}) for entry in entries]
        data = b"".join(lines)
        with self._named():
            written = os.write(self._file, data)
            if written < len(data):
                os.ftruncate(self._file, self._end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for entry, line in zip(entries, lines, strict=True):
            self._index(entry, len(line))

    @contextmanager
    def _named(self) -> Iterator[None]:
        """What the system refuses names the file."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def close(self) -> None:
        os.close(self._file)


def read_trace(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a trace file, calls with their ``messages`` put back in; a torn last line is left out."""
    prompts: dict[str, Any] = {}
    for _, _, _, entry in scan_lines(path, TraceError, REDO):
        if entry["type"] == "prompt":
            prompts[entry["digest"]] = entry["messages"]
        elif entry["type"] == "call":
            entry["messages"] = prompts[entry["prompt"]]
        yield entry
