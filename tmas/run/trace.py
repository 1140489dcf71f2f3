"""The trace of one problem: every finished call and every recorded decision, appended to one JSONL file.

Resume is replay: a method runs again from its start, and the trace answers what was already done. A call is on disk
(``fdatasync``) before its outcome is used. An open trace keeps its decisions in memory, but only the offsets of its
calls.

Lines are objects with ``type``: ``prompt`` (messages, written once and referred to by hash), ``call`` (key, request,
packing notes, and ``reply`` or ``failure``), ``decision`` (name, value). Each line ends with its checksum.

A damaged line is set aside when the trace is opened, and its call is made again. The new reply may differ, so calls
that depended on the old one may have been recorded for other requests than the replay makes now. In a repaired trace
they are made again, too. A decision named ``repaired`` marks such a trace until its problem is solved.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from tmas.errors import UserError
from tmas.files import complete_lines, cut_torn_line, digest, text_digest, whole_file
from tmas.records import CallKey, Failure, Message, PackingNote, Reply, Request
from tmas.records.checksums import add_checksum
from tmas.records.reading import DefectiveFile, UnknownVersion
from tmas.records.trace_lines import CallLine, DecisionLine, PromptLine, RecordedRequest, trace_bytes, trace_line
from tmas.run.damage import Damage, set_aside

REPAIRED = "repaired"
"""Name of the decision that marks a trace from which damaged lines were removed."""
REMEDY = (
    "Delete predictions.jsonl of the run, if there is one, and run its command again. Damaged lines are set aside,"
    " their calls are made again, and all other calls are answered from the traces."
)
MISSING_PROMPT = "damaged line (no such prompt before it)"


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
    """The trace of one problem, open for one writer.

    A torn last line, left by a kill, is cut off. Damaged lines are set aside (:func:`~tmas.run.damage.set_aside`).
    Raises :class:`TraceError` for a line of another schema version, and ``BlockingIOError`` while another process has
    the file open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open()
        with ExitStack() as close_on_error:
            close_on_error.callback(self.close)
            damage, lacks_prompts = self._load()
            if damage:
                set_aside(path, damage)
            if damage or (lacks_prompts and not self._is_repaired):
                numbers = {one.line.number for one in damage}
                kept = (line.content for line in complete_lines(path) if line.number not in numbers)
                mark = add_checksum(trace_bytes(DecisionLine(name=REPAIRED, value=len(numbers))))
                self._rewrite(chain([mark], kept))
            cut_torn_line(path, self._end)
            close_on_error.pop_all()

    def _open(self) -> int:
        """Open and lock the file. Opens it again if another process has replaced it before it was locked."""
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                raise BlockingIOError(errno.EWOULDBLOCK, "another process still writes", str(self.path)) from None
            if self.path.exists() and os.path.samestat(os.fstat(file), self.path.stat()):
                return file
            os.close(file)

    def _load(self) -> tuple[list[Damage], bool]:
        """Index the complete lines. Returns the damaged ones, and whether a call refers to a prompt that is missing."""
        self._calls: dict[str, tuple[str, int, int]] = {}
        self._decisions: dict[str, Any] = {}
        self._prompts: set[str] = set()
        self._used: set[str] = set()
        self._end = 0
        damage: list[Damage] = []
        lacks_prompts = False
        for raw in complete_lines(self.path):
            try:
                line = trace_line(raw.content, f"{self.path}:{raw.number}")
            except UnknownVersion as error:
                raise TraceError(error.what, where=error.where) from None
            except DefectiveFile as error:
                damage.append(Damage(raw, error.what))
                self._end = raw.end
            else:
                lacks_prompts |= isinstance(line, CallLine) and line.prompt not in self._prompts
                self._index(line, len(raw.content))
        return damage, lacks_prompts

    def _rewrite(self, lines: Iterable[bytes]) -> None:
        """Replace the file atomically by ``lines``, and index it again."""
        with whole_file(self.path) as new:
            new.writelines(lines)
        replaced, self._file = self._file, self._open()
        os.close(replaced)
        self._load()

    def _index(self, line: PromptLine | CallLine | DecisionLine, length: int) -> None:
        if isinstance(line, CallLine):
            self._calls[str(line.key)] = (line.digest, self._end, length)
        elif isinstance(line, DecisionLine):
            self._decisions[line.name] = line.value
        else:
            self._prompts.add(line.digest)
        self._end += length

    @property
    def _is_repaired(self) -> bool:
        return REPAIRED in self._decisions

    def __len__(self) -> int:
        return len(self._calls)

    def has_calls(self, prefix: str) -> bool:
        """Whether a call is recorded whose key begins with ``prefix``."""
        return any(name.startswith(prefix) for name in self._calls)

    def find(self, key: CallKey, request: Request) -> Reply | Failure | None:
        """Return the recorded outcome of a call, None if there is none.

        Raises :class:`TraceError` if another request was recorded under the same key. In a repaired trace the call is
        treated as not recorded instead.
        """
        if str(key) not in self._calls:
            return None
        recorded, offset, length = self._calls[str(key)]
        line = trace_line(os.pread(self._file, length, offset), f"{self.path}: byte {offset}")
        assert isinstance(line, CallLine)
        if recorded != digest(request.model_dump()) and not _differs_in_lengths_alone(line, request):
            if self._is_repaired:
                return None
            raise TraceError(
                f"{key} was recorded for another request, so the trace was written by another run", where=self.path
            )
        if self._is_repaired:
            self._used.add(str(key))
            if line.prompt not in self._prompts:  # its line was damaged
                self._append(PromptLine(digest=line.prompt, messages=request.messages))
        return line.outcome

    async def add(
        self,
        key: CallKey,
        request: Request,
        outcome: Reply | Failure,
        packing: Sequence[PackingNote] = (),
        started: float = 0.0,
    ) -> None:
        """Record a finished call; returns once it is on disk. ``started``: Unix time in seconds."""
        fields = request.model_dump()
        request_digest = digest(fields)
        messages = fields.pop("messages")
        prompt = digest(messages)
        call = CallLine(
            key=key,
            digest=request_digest,
            prompt=prompt,
            request=RecordedRequest(**fields),
            started=started,
            packing=tuple(packing),
            reply=None if isinstance(outcome, Failure) else outcome,
            failure=outcome if isinstance(outcome, Failure) else None,
        )
        known = prompt in self._prompts
        self._append(*(() if known else (PromptLine(digest=prompt, messages=request.messages),)), call)
        self._used.add(str(key))
        with self._named():
            await asyncio.to_thread(os.fdatasync, self._file)

    def decision(self, name: str) -> Any | None:
        """The value of the decision ``name``; None if there is none."""
        return self._decisions.get(name)

    def decisions(self, prefix: str) -> dict[str, Any]:
        """The decisions whose names begin with ``prefix``: name -> value."""
        return {name: value for name, value in self._decisions.items() if name.startswith(prefix)}

    def record_decision(self, name: str, value: Any) -> None:
        """Record a decision that a replay must repeat. It replaces an earlier one of the same name."""
        self._append(DecisionLine(name=name, value=value))

    def _append(self, *entries: PromptLine | CallLine | DecisionLine) -> None:
        lines = [add_checksum(trace_bytes(entry)) for entry in entries]
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
        """Add the name of the file to errors of the operating system."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def finish(self) -> None:
        """Remove the mark and the unused calls of a repaired trace, after its problem was solved.

        Unused are calls that were made again, and calls that only followed from them. They are set aside. In the
        new file, the prompts come first. A trace that was not repaired does not change.
        """
        if not self._is_repaired:
            return
        used = {self._calls[name][1] for name in self._used}
        spans: dict[str, tuple[int, int]] = {}  # offset and length of each prompt
        needed: dict[str, None] = {}
        kept: list[tuple[int, int]] = []
        unused: list[Damage] = []
        for raw in complete_lines(self.path):
            line = trace_line(raw.content, f"{self.path}:{raw.number}")
            span = (raw.start, len(raw.content))
            if isinstance(line, PromptLine):
                spans[line.digest] = span
            elif isinstance(line, CallLine) and raw.start not in used:
                unused.append(Damage(raw, "not used any more: a call that it depends on was made again"))
            elif isinstance(line, CallLine):
                needed[line.prompt] = None
                kept.append(span)
            elif line.name != REPAIRED:
                kept.append(span)
        if unused:
            set_aside(self.path, unused)
        order = [*(spans[prompt] for prompt in needed), *kept]
        self._rewrite(os.pread(self._file, length, start) for start, length in order)

    def close(self) -> None:
        os.close(self._file)


def read_trace(
    path: Path, skip_damaged: bool = False, end: int | None = None
) -> Iterator[PromptLine | CallLine | DecisionLine]:
    """The lines of a trace file, calls with their ``messages``. A last line that a kill has cut off is skipped.

    Raises :class:`TraceError` at a damaged line and at a call whose prompt is missing. In a repaired trace, such a call
    is skipped: it is not used any more, or the resumed run has not reached it yet. ``skip_damaged``: skip damaged
    lines, and yield calls whose prompt is missing without messages, also in a repaired trace. ``end``: read only the
    lines that end within this number of bytes.
    """
    prompts: dict[str, tuple[Message, ...]] = {}
    is_repaired = False
    for raw in complete_lines(path):
        if end is not None and raw.end > end:
            return
        place = f"{path}:{raw.number}"
        try:
            line = trace_line(raw.content, place)
        except UnknownVersion as error:
            raise TraceError(error.what, where=place) from None
        except DefectiveFile as error:
            if skip_damaged:
                continue
            raise TraceError(error.what, where=place, remedy=REMEDY) from None
        if isinstance(line, PromptLine):
            prompts[line.digest] = line.messages
        elif isinstance(line, DecisionLine):
            is_repaired |= line.name == REPAIRED
        elif line.prompt in prompts:
            line = line.model_copy(update={"messages": prompts[line.prompt]})
        elif is_repaired and not skip_damaged:
            continue
        elif not skip_damaged:
            raise TraceError(MISSING_PROMPT, where=place, remedy=REMEDY)
        yield line


def read_calls(path: Path) -> Iterator[CallLine]:
    """The calls in a trace file; see :func:`read_trace`."""
    return (line for line in read_trace(path) if isinstance(line, CallLine))


def _differs_in_lengths_alone(line: CallLine, request: Request) -> bool:
    """Whether the recorded request is ``request``, except that its schema limits the lengths of texts.

    Older versions sent such limits. Their runs can still be resumed.
    """
    asked = request.model_dump()
    if line.prompt != digest(asked.pop("messages")):
        return False
    schema = _without_lengths(line.request.output_schema)
    return line.request.model_copy(update={"output_schema": schema}) == RecordedRequest(**asked)


def _without_lengths(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _without_lengths(value) for name, value in node.items() if name not in ("minLength", "maxLength")}
    return [_without_lengths(value) for value in node] if isinstance(node, list) else node
