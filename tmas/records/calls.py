"""The records of model calls: key, request, reply, usage and failure.

Records are frozen and refuse unknown fields. A run directory written by another version is therefore either read
exactly or refused. A failure is a record with a reason, never an empty string or a zero.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

SCHEMA_VERSION = 1
"""Version of these records on disk. Raise it with every change that could break a reader."""


class Record(BaseModel):
    """Base of all records. It is immutable and refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Record):
    """A problem: the ``question`` and, optionally, the gold ``answer``, which no agent ever sees."""

    problem_id: str = Field(min_length=1)
    question: str = Field(min_length=1)
    answer: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class FailureReason(StrEnum):
    """Why a call, or a value parsed from its reply, is missing."""

    TRUNCATED = "truncated"  # the reply reached max_tokens
    SHORTENED = "shortened"  # the reply reached max_tokens; its whole sentences were kept, so there is a summary
    UNPARSABLE = "unparsable"  # the reply cannot be parsed
    ENDPOINT = "endpoint"  # the server refused, or failed repeatedly while it answered others
    TIMEOUT = "timeout"  # the server stopped making progress
    CONTEXT = "context"  # the prompt does not fit the model's context after all shortening
    BUDGET = "budget"  # the budget of tokens or money is exhausted
    WORKER = "worker"  # the processes that worked on the problem died, one after the other
    JUDGE = "judge"  # a judge gave no verdict
    CODE = "code"  # a judge's verdict does not repeat the code of its prompt


NOT_SAMPLED = frozenset({FailureReason.ENDPOINT, FailureReason.TIMEOUT, FailureReason.BUDGET, FailureReason.WORKER})
"""A candidate that is missing for one of these reasons says nothing about the model. It is counted, but left out of all
rates."""


class CallKey(Record):
    """Identifies one call of one problem, in this run and in every replay of it.

    ``offset``: number of verifications that the candidate had before this call asked for more of them.
    """

    problem_id: str
    iteration: int
    role: str
    index: int
    offset: int = Field(default=0, exclude_if=lambda offset: offset == 0)
    attempt: int = 0

    def __str__(self) -> str:
        offset = f"+{self.offset}" if self.offset else ""
        return f"{self.problem_id}/it{self.iteration}/{self.role}[{self.index}{offset}]#{self.attempt}"


class Failure(Record):
    """A missing result, with the reason.

    ``completion``: if a reply could not be read, the index of the completion in the reply of ``key``. It is not
    recorded.
    """

    reason: FailureReason
    message: str
    key: CallKey | None = None
    completion: int = Field(default=0, exclude=True)


class Message(Record):
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


class Sampling(Record):
    """Decoding settings of one role."""

    temperature: float = Field(default=1.0, ge=0, description="Sampling temperature. 0: greedy decoding.")
    top_p: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="Sample only from the likeliest tokens whose probabilities sum to this share.",
    )
    max_tokens: int = Field(
        default=130_000,
        ge=1,
        description="Maximum length of a completion in tokens, thinking included. Every prompt leaves this much of the"
        " context free. With model.max_window_tokens a prompt may be longer, and its completion is then shorter.",
    )
    extra: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Further fields of the request, sent to the server unchanged: top_k, min_p, chat_template_kwargs,"
        " ...",
    )


class Request(Record):
    """A request to a chat server: ``n`` completions of one prompt, optionally constrained by a JSON schema."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    n: int = Field(default=1, ge=1)
    seed: int | None = None
    output_schema: dict[str, Any] | None = None


class Usage(Record):
    """Token counts as the server reported them. ``seconds`` is wall-clock time summed over calls."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in Usage.model_fields})

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Completion(Record):
    """One completion, with the thinking separated. Only ``text`` may enter other prompts.

    ``thinking``: where the reasoning was: in the server's own field, between tags, or nowhere. ``finish_reason``: the
    server's value (``stop``, ``length``, ...).
    """

    text: str
    reasoning: str | None = None
    thinking: Literal["server", "tags", "none"] = "none"
    finish_reason: str = "stop"


class Reply(Record):
    """A server's answer to a :class:`Request`: ``n`` completions by index, and their usage."""

    completions: tuple[Completion, ...]
    usage: Usage
    notes: tuple[str, ...] = ()


class PackingNote(Record):
    """One step of shortening a prompt: the name of the piece and its size in tokens before and after."""

    piece: str
    tokens_before: int
    tokens_after: int
