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

from tmas.errors import UserError
from tmas.files import RawLine, complete_lines, cut_torn_line, digest, text_digest
from tmas.records import CallKey, Failure, Message, PackingNote, Reply, Request
from tmas.records.reading import DefectiveFile
from tmas.records.trace_lines import CallLine, DecisionLine, PromptLine, RecordedRequest, trace_bytes, trace_line

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
            for line in complete_lines(path):
                self._read(line)
            cut_torn_line(path, self._end)
            unless_damaged.pop_all()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(errno.EWOULDBLOCK, "another process still writes", str(self.path)) from None

    def _read(self, line: RawLine) -> None:
        self._index(_parsed(self.path, line), len(line.content))

    def _index(self, line: PromptLine | CallLine | DecisionLine, length: int) -> None:
        if isinstance(line, CallLine):
            self._calls[str(line.key)] = (line.digest, self._end, length)
        elif isinstance(line, DecisionLine):
            self._decisions[line.name] = line.value
        else:
            self._prompts.add(line.digest)
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
        return CallLine.model_validate_json(os.pread(self._file, length, offset)).outcome

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
        call = CallLine(
            key=key,
            digest=whole,
            prompt=prompt,
            request=RecordedRequest(**asked),
            started=started,
            packing=tuple(packing),
            reply=None if isinstance(outcome, Failure) else outcome,
            failure=outcome if isinstance(outcome, Failure) else None,
        )
        known = prompt in self._prompts
        self._append(*(() if known else (PromptLine(digest=prompt, messages=request.messages),)), call)
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
        self._append(DecisionLine(name=name, value=value))

    def _append(self, *entries: PromptLine | CallLine | DecisionLine) -> None:
        lines = [trace_bytes(entry) for entry in entries]
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


def read_trace(path: Path) -> Iterator[PromptLine | CallLine | DecisionLine]:
    """The lines of a trace file, calls with their ``messages``. A last line that a kill has cut off is skipped.

    Raises :class:`TraceError` at a damaged line.
    """
    prompts: dict[str, tuple[Message, ...]] = {}
    for raw in complete_lines(path):
        line = _parsed(path, raw)
        if isinstance(line, PromptLine):
            prompts[line.digest] = line.messages
        elif isinstance(line, CallLine):
            if line.prompt not in prompts:
                raise TraceError("damaged line (no such prompt before it)", where=f"{path}:{raw.number}", remedy=REDO)
            line = line.model_copy(update={"messages": prompts[line.prompt]})
        yield line


def read_calls(path: Path) -> Iterator[CallLine]:
    """The calls in a trace file; see :func:`read_trace`."""
    return (line for line in read_trace(path) if isinstance(line, CallLine))


def _parsed(path: Path, line: RawLine) -> PromptLine | CallLine | DecisionLine:
    try:
        return trace_line(line.content, f"{path}:{line.number}")
    except DefectiveFile as error:
        raise TraceError(error.what, where=error.where, remedy=REDO) from None
