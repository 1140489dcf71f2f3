"""Separates a model's reasoning from its answer text."""

from __future__ import annotations

from tmas.records import Completion

OPEN, CLOSE = "<think>", "</think>"


def split_thinking(content: str, server_reasoning: str, finish_reason: str = "stop") -> Completion:
    """Build a completion from ``content`` and the reasoning that the server has already separated ("" if none).

    Text before the last ``</think>`` is reasoning, and so is text from a later, unclosed ``<think>`` on. If there is a
    ``<think>`` but no ``</think>``, all text is reasoning. If no answer text remains, ``finish_reason`` tells whether
    the reply was truncated. Both parts are stripped.
    """
    text, thought = _split_at_tags(content)
    parts = [part.strip() for part in (server_reasoning, thought) if part is not None and part.strip()]
    if thought is None and not server_reasoning:
        return Completion(text=text, finish_reason=finish_reason)
    thinking = "server" if server_reasoning else "tags"
    return Completion(text=text, reasoning="\n".join(parts), thinking=thinking, finish_reason=finish_reason)


def _split_at_tags(content: str) -> tuple[str, str | None]:
    """Return (answer text, reasoning). The reasoning is None if there are no tags."""
    if CLOSE in content:
        thought, _, after = content.rpartition(CLOSE)
        text, _, unclosed = after.partition(OPEN)
        return text.strip(), thought.strip().removeprefix(OPEN) + unclosed
    if OPEN in content:
        before, _, thought = content.partition(OPEN)
        return "", f"{before.strip()}{thought}".strip()
    return content.strip(), None
