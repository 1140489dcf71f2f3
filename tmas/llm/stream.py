"""Reads one chat completion from the bytes of a response: server-sent events, or one plain JSON body."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from tmas.llm.endpoint import RequestError
from tmas.llm.limits import ReplyLimits, reply_limits
from tmas.llm.thinking import split_thinking
from tmas.records import Completion, Usage
from tmas.records.token_counts import USAGE_IMPLAUSIBLE, USAGE_MISSING, is_plausible_usage
from tmas.redaction import clean, without_secrets

DONE = b"[DONE]"
ABORTED = frozenset({"abort", "error"})
"""Finish reasons with which vLLM reports an aborted generation."""
COMMON_REASONS = frozenset({"stop", "length", "unknown"})
"""Finish reasons that are recorded as they are. A server may send any text: all others are cleaned and cut."""
MAX_SHOWN_BYTES = 5000
"""An error message shows at most this many bytes of a malformed chunk."""
MAX_FINISH_REASON_CHARACTERS = 40
"""A finish reason is recorded with at most this many characters."""
SPARE_CHOICES = 100
"""Choices that a chunk may have in addition to those requested. These are ignored; to skip a million takes seconds."""


class PayloadSplitter(Protocol):
    """Splits the bytes of a response body into payloads for :meth:`StreamedReply.add_all`."""

    def feed(self, data: bytes) -> list[bytes]: ...

    def close(self) -> list[bytes]: ...


class EventLines:
    """Server-sent events: each ``data:`` line is one payload. ``longest``: limit on the bytes of a line."""

    def __init__(self, longest: int = sys.maxsize) -> None:
        self._rest, self._longest = bytearray(), longest

    def feed(self, data: bytes) -> list[bytes]:
        ended, newline, rest = data.rpartition(b"\n")
        lines = []
        if newline:  # join only at the end of a line: it may arrive in many pieces
            lines = (bytes(self._rest) + ended).split(b"\n")
            self._rest.clear()
        _append(self._rest, rest, self._longest)
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]

    def close(self) -> list[bytes]:
        return self.feed(b"\n")


class PlainBody:
    """A plain JSON body: the whole body is one payload. ``longest``: limit on its bytes."""

    def __init__(self, longest: int = sys.maxsize) -> None:
        self._body, self._longest = bytearray(), longest

    def feed(self, data: bytes) -> list[bytes]:
        _append(self._body, data, self._longest)
        return []

    def close(self) -> list[bytes]:
        return [bytes(self._body), DONE]


def _append(buffer: bytearray, data: bytes, longest: int) -> None:
    buffer += data
    if len(buffer) > longest:
        raise too_long(f"{longest:,} bytes without a line break")


def too_long(limit: str) -> RequestError:
    """The error for a reply that exceeds ``limit``. A retry would get the same reply."""
    return RequestError(f"the reply exceeds {limit}: the server ignores max_tokens", is_final=True)


@dataclass(slots=True)
class StreamedChoice:
    """The parts received so far of one of the ``n`` choices."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    finish_reason: str | None = None


class StreamedReply:
    """Assembles a chat completion from its payloads.

    ``n`` and ``max_tokens``: what was requested. ``prompt_bytes``: size of the request. ``prompt_characters``: length
    of its messages. ``limits``: limits on the size of this reply.

    While the reply arrives, ``tokens`` is the server's token count if it sends one, else the number of chunks with
    text, and ``has_end_mark`` says whether the server has sent its end mark. :meth:`build` sets ``completions`` and
    ``usage``. ``dropped``: request fields that this server refused. ``notes``: request fields that had to be left out,
    and other remarks.
    """

    def __init__(
        self,
        n: int = 1,
        max_tokens: int = 1,
        prompt_bytes: int = 0,
        limits: ReplyLimits | None = None,
        prompt_characters: int = 0,
    ) -> None:
        self.has_end_mark = False
        self.tokens = 0
        self.dropped: frozenset[str] = frozenset()
        self.notes: list[str] = []
        self.completions: tuple[Completion, ...] = ()
        self.usage = Usage()
        self.n, self._max_tokens = n, max_tokens
        self._prompt_bytes, self._prompt_characters = prompt_bytes, prompt_characters
        self._limits = limits or reply_limits(max_tokens, n, 64)
        self._length = 0  # characters of all choices
        self._usage_reported: Any = None
        # The plausible counts in _usage_reported. They were checked when the reply had _counts_at characters.
        self._counts: dict[str, int] = {}
        self._counts_at = 0
        self._finished_choices = 0
        self._choices: dict[int, StreamedChoice] = {}

    def add_all(self, payloads: list[bytes]) -> None:
        """Add payloads. Raises :class:`RequestError` for an error payload and for a malformed chunk."""
        for payload in payloads:
            if payload == DONE:
                self.has_end_mark = True
            else:
                self._add(payload)

    def _add(self, payload: bytes) -> None:
        try:
            try:
                chunk = orjson.loads(payload)
            except orjson.JSONDecodeError:
                chunk = _with_null_for_nan(payload)
            self._add_chunk(chunk)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise RequestError(f"malformed chunk ({error!r}): {payload[:MAX_SHOWN_BYTES]!r}") from None

    @property
    def complete_choices(self) -> int:
        """Number of choices that are complete."""
        return len(self._choices) if self.has_end_mark else self._finished_choices

    def build(self, seconds: float) -> None:
        """Set ``completions`` and ``usage``; ``seconds``: duration. Raises :class:`RequestError` if incomplete."""
        choices = [choice for _, choice in sorted(self._choices.items())]
        reasons = [choice.finish_reason for choice in choices]
        if not choices:
            raise RequestError("the response has no choices")
        if not self.has_end_mark and None in reasons:
            raise RequestError(f"the stream ended early, after {self.tokens} tokens")
        try:
            if ABORTED.intersection(reasons):
                raise RequestError(f"the server aborted the generation: finish reasons {reasons}")
            self.completions = tuple(map(_completion, choices))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RequestError(f"malformed response: {error!r}") from None
        counts = self._counts if self._counts_at == self._length else self._plausible_counts(self._usage_reported)
        self.usage = Usage(calls=1, seconds=seconds, **counts)
        if not counts:
            self.notes.append(USAGE_IMPLAUSIBLE if self._usage_reported else USAGE_MISSING)

    def _add_chunk(self, chunk: dict[str, Any]) -> None:
        if error := chunk.get("error"):
            raise _server_error(error)
        parts = chunk.get("choices") or ()
        if len(parts) > self.n + SPARE_CHOICES:
            raise ValueError(f"{len(parts)} choices")
        for part in parts:
            self._add_choice(part)
        if reported := chunk.get("usage"):
            self._usage_reported, self._counts, self._counts_at = (
                reported,
                self._plausible_counts(reported),
                self._length,
            )
            self.tokens = max(self.tokens, self._counts.get("completion_tokens", 0))

    def _add_choice(self, part: dict[str, Any]) -> None:
        index = int(part.get("index", 0))
        if not 0 <= index < self.n:  # more choices than requested
            return
        choice = self._choices.get(index) or self._choices.setdefault(index, StreamedChoice())
        delta = part.get("delta") or part.get("message") or {}
        content, reasoning = delta.get("content"), delta.get("reasoning_content") or delta.get("reasoning")
        if content:
            choice.content.append(content)
            self._length += len(content)
        if reasoning:
            choice.reasoning.append(reasoning)
            self._length += len(reasoning)
        if content or reasoning:
            self.tokens += 1
            if self._length > self._limits.text:
                raise too_long(f"{self._limits.text:,} characters")
        if finish_reason := part.get("finish_reason"):
            self._finished_choices += choice.finish_reason is None
            choice.finish_reason = finish_reason

    def _plausible_counts(self, reported: Any) -> dict[str, int]:
        """The token counts that the server reported; empty if it reported none or they cannot be true."""
        if not isinstance(reported, dict):
            return {}
        details = reported.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        counts = {
            "prompt_tokens": reported.get("prompt_tokens"),
            "cached_prompt_tokens": cached or reported.get("prompt_cache_hit_tokens") or 0,  # the latter is DeepSeek's
            "completion_tokens": reported.get("completion_tokens"),
        }
        plausible = is_plausible_usage(
            **counts,
            n=self.n,
            max_tokens=self._max_tokens,
            prompt_bytes=self._prompt_bytes,
            prompt_characters=self._prompt_characters,
            completion_characters=self._length,
        )
        return counts if plausible else {}


def _with_null_for_nan(payload: bytes) -> Any:
    """Parse JSON with NaN or Infinity, which some servers write. Both become null."""
    # parse_int=float: orjson cannot write integers of more than 64 bits.
    return orjson.loads(orjson.dumps(json.loads(payload, parse_int=float)))


def _server_error(error: Any) -> RequestError:
    code = error.get("code") if isinstance(error, dict) else None
    is_status = isinstance(code, int) and 400 <= code < 600
    return RequestError(f"error in the response: {error}", status=code if is_status else None)


def _completion(choice: StreamedChoice) -> Completion:
    content, reasoning = without_secrets("".join(choice.content)), without_secrets("".join(choice.reasoning))
    reason = choice.finish_reason or "unknown"
    if reason not in COMMON_REASONS:
        reason = clean(reason)[:MAX_FINISH_REASON_CHARACTERS]
    return split_thinking(content, reasoning, reason)
