"""Reads one chat completion from the bytes of a response: server-sent events, or one plain JSON body."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from tmas.llm.endpoint import RequestError
from tmas.llm.thinking import split_thinking
from tmas.records import Completion, Usage

DONE = b"[DONE]"
ABORTED = frozenset({"abort", "error"})
"""Finish reasons with which vLLM reports an aborted generation."""


class PayloadSplitter(Protocol):
    """Splits the bytes of a response body into payloads for :meth:`StreamedReply.add_all`."""

    def feed(self, data: bytes) -> list[bytes]: ...

    def close(self) -> list[bytes]: ...


class EventLines:
    """Server-sent events: each ``data:`` line is one payload."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]

    def close(self) -> list[bytes]:
        return self.feed(b"\n")


class PlainBody:
    """A plain JSON body: the whole body is one payload."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        self._parts.append(data)
        return []

    def close(self) -> list[bytes]:
        return [b"".join(self._parts), DONE]


@dataclass(slots=True)
class StreamedChoice:
    """The parts received so far of one of the ``n`` choices."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    finish_reason: str | None = None


class StreamedReply:
    """Assembles a chat completion from its payloads.

    ``tokens``: the server's token count if it sends one, else the number of chunks with text. ``has_end_mark``: the
    server has sent its end mark. ``notes``: request fields that had to be left out, and other remarks.
    """

    def __init__(self) -> None:
        self.has_end_mark = False
        self.tokens = 0
        self.notes: list[str] = []
        self.completions: tuple[Completion, ...] = ()
        self.usage = Usage()
        self._server_usage: dict[str, Any] | None = None
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
            self._add_chunk(orjson.loads(payload))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RequestError(f"malformed chunk ({error!r}): {payload!r}") from None

    @property
    def complete_choices(self) -> int:
        """Number of choices that are complete."""
        return len(self._choices) if self.has_end_mark else self._finished_choices

    def build(self, seconds: float) -> None:
        """Set ``completions`` and ``usage``; ``seconds``: duration. Raises :class:`RequestError` if incomplete."""
        choices = [choice for _, choice in sorted(self._choices.items())]
        reasons = [choice.finish_reason for choice in choices]
        if not choices:
            raise RequestError("the answer has no choices")
        if not self.has_end_mark and None in reasons:
            raise RequestError(f"the stream ended early, after {self.tokens} chunks")
        try:
            if ABORTED.intersection(reasons):
                raise RequestError(f"the server aborted the generation: finish reasons {reasons}")
            self.completions = tuple(map(_completion, choices))
            self.usage = Usage(
                calls=1, seconds=seconds, **(_usage_counts(self._server_usage) if self._server_usage else {})
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RequestError(f"malformed answer: {error!r}") from None
        if not self._server_usage:
            self.notes.append("usage_missing")

    def _add_chunk(self, chunk: dict[str, Any]) -> None:
        if error := chunk.get("error"):
            raise _server_error(error)
        for part in chunk.get("choices") or ():
            self._add_choice(part)
        if counts := chunk.get("usage"):
            self._server_usage = counts
            self.tokens = max(self.tokens, counts["completion_tokens"])

    def _add_choice(self, part: dict[str, Any]) -> None:
        index = int(part.get("index", 0))
        choice = self._choices.get(index) or self._choices.setdefault(index, StreamedChoice())
        delta = part.get("delta") or part.get("message") or {}
        content, reasoning = delta.get("content"), delta.get("reasoning_content") or delta.get("reasoning")
        if content:
            choice.content.append(content)
        if reasoning:
            choice.reasoning.append(reasoning)
        if content or reasoning:
            self.tokens += 1
        if finish_reason := part.get("finish_reason"):
            self._finished_choices += choice.finish_reason is None
            choice.finish_reason = finish_reason


def _server_error(error: Any) -> RequestError:
    code = error.get("code") if isinstance(error, dict) else None
    is_status = isinstance(code, int) and 400 <= code < 600
    return RequestError(f"error in the answer: {error}", status=code if is_status else None)


def _completion(choice: StreamedChoice) -> Completion:
    content, reasoning = "".join(choice.content), "".join(choice.reasoning)
    return split_thinking(content, reasoning, choice.finish_reason or "unknown")


def _usage_counts(usage: dict[str, Any]) -> dict[str, int]:
    details = usage.get("prompt_tokens_details") or {}
    return {
        "prompt_tokens": usage["prompt_tokens"],
        "cached_prompt_tokens": details.get("cached_tokens") or 0,
        "completion_tokens": usage["completion_tokens"],
    }
