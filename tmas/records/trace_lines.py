"""Records of the lines of a trace."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, ValidationInfo, field_validator, model_validator

from tmas.records.calls import SCHEMA_VERSION, CallKey, Failure, Message, PackingNote, Record, Reply, Sampling
from tmas.records.checksums import WrongChecksum, remove_checksum
from tmas.records.reading import (
    WRONG_CHECKSUM,
    DefectiveFile,
    UnknownVersion,
    Version,
    is_of_other_version,
    line_defect,
)
from tmas.records.token_counts import USAGE_IMPLAUSIBLE, is_plausible_usage


class PromptLine(Record):
    """Messages, written once and referred to by their digest."""

    v: Version = SCHEMA_VERSION
    type: Literal["prompt"] = "prompt"
    digest: str
    messages: tuple[Message, ...]


class RecordedRequest(Record):
    """A request without its messages."""

    model: str
    sampling: Sampling
    n: int
    seed: int | None
    output_schema: dict[str, Any] | None


class CallLine(Record):
    """A finished call, with either a reply or a failure.

    ``digest``: digest of the whole request. ``prompt``: digest of its messages. ``messages`` is not on disk: readers
    fill it in from the prompt line.
    """

    v: Version = SCHEMA_VERSION
    type: Literal["call"] = "call"
    key: CallKey
    digest: str
    prompt: str
    request: RecordedRequest
    started: float = 0.0
    packing: tuple[PackingNote, ...] = ()
    reply: Reply | None = None
    failure: Failure | None = None
    messages: tuple[Message, ...] = Field(default=(), exclude=True)

    @field_validator("reply")
    @classmethod
    def _without_implausible_usage(cls, reply: Reply | None, info: ValidationInfo) -> Reply | None:
        """Replace an implausible usage by a note. Older versions recorded any usage that a server reported.

        A reply that is not read from JSON comes from the client, which has checked its usage.
        """
        request: RecordedRequest | None = info.data.get("request")
        if reply is None or request is None or info.mode != "json":
            return reply
        usage = reply.usage
        counts = (usage.prompt_tokens, usage.cached_prompt_tokens, usage.completion_tokens)
        if is_plausible_usage(*counts, n=request.n, max_tokens=request.sampling.max_tokens):
            return reply
        without = usage.model_copy(update={"prompt_tokens": 0, "cached_prompt_tokens": 0, "completion_tokens": 0})
        notes = tuple(sorted({*reply.notes, USAGE_IMPLAUSIBLE}))
        return reply.model_copy(update={"usage": without, "notes": notes})

    @model_validator(mode="after")
    def _has_one_outcome(self) -> CallLine:
        if (self.reply is None) == (self.failure is None):
            raise ValueError("a call has either a reply or a failure")
        if self.reply and len(self.reply.completions) != self.request.n:
            raise ValueError(f"{len(self.reply.completions)} completions for a request of {self.request.n}")
        return self

    @property
    def outcome(self) -> Reply | Failure:
        outcome = self.reply or self.failure
        assert outcome is not None
        return outcome


class DecisionLine(Record):
    """A recorded decision. It may depend on time or order, so a replay repeats it from this line."""

    v: Version = SCHEMA_VERSION
    type: Literal["decision"] = "decision"
    name: str
    value: Any


TraceLine = Annotated[PromptLine | CallLine | DecisionLine, Field(discriminator="type")]
_LINE: TypeAdapter[PromptLine | CallLine | DecisionLine] = TypeAdapter(TraceLine)


def trace_line(line: bytes, place: str) -> PromptLine | CallLine | DecisionLine:
    """Parse a line of a trace, with or without a checksum.

    Raises :class:`DefectiveFile` or, for a line of another schema version, its subclass :class:`UnknownVersion`. The
    message names ``place``.
    """
    try:
        return _LINE.validate_json(remove_checksum(line))
    except WrongChecksum:
        raise DefectiveFile(WRONG_CHECKSUM, where=place) from None
    except ValidationError as error:
        kind = UnknownVersion if is_of_other_version(error) else DefectiveFile
        raise kind(line_defect(error), where=place) from None


def trace_bytes(line: PromptLine | CallLine | DecisionLine) -> bytes:
    """Serialise a line of a trace, without empty ``packing``, ``reply`` and ``failure`` fields and without checksum."""
    absent = {name for name in ("packing", "reply", "failure") if not getattr(line, name, True)}
    return line.model_dump_json(exclude=absent).encode() + b"\n"
