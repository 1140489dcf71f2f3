"""Builds the JSON body of a chat completion request, and joins several streamed replies into one reply."""

from __future__ import annotations

from typing import Any

from tmas.errors import UserError
from tmas.llm.endpoint import OPTIONAL_FIELDS
from tmas.llm.stream import StreamedReply
from tmas.records import Failure, Reply, Request, Usage


def chat_body(
    request: Request, n: int, index: int, token_limit_field: str, priority: int | None = None
) -> dict[str, Any]:
    """Build the JSON body of a request for ``n`` choices, of which the first is choice ``index`` of ``request``.

    The seed is the request's seed + ``index``: vLLM gives choice i of a request with several choices the seed + i.
    """
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        token_limit_field: sampling.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if clash := sampling.extra.keys() & (body.keys() | OPTIONAL_FIELDS.keys()):
        raise UserError(f"may not set {sorted(clash)}", where="sampling.extra")
    if n > 1:
        body["n"] = n
    if request.seed is not None:
        body["seed"] = request.seed + index
    if priority is not None:
        body["priority"] = priority
    if request.output_schema is not None:
        schema = {"name": "reply", "schema": request.output_schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body | sampling.extra


def joined(replies: list[StreamedReply | Failure], n: int) -> Reply | Failure:
    """Join the streamed replies into one reply, or return the first failure among them."""
    completions, usage, notes = [], Usage(), set()
    for reply in replies:
        if isinstance(reply, Failure):
            return reply
        completions += reply.completions
        usage += reply.usage
        notes.update(reply.notes)
    return Reply(completions=tuple(completions[:n]), usage=usage, notes=tuple(sorted(notes)))
