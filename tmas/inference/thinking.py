"""Tells what a model thought from what it says."""

from __future__ import annotations

from tmas.records import Completion

OPEN, CLOSE = "<think>", "</think>"


def split_thinking(content: str, server_reasoning: str, finish_reason: str = "stop") -> Completion:
    """Make a completion of a choice's ``content`` and the reasoning that the server itself took off it ("" for none).

    Without the server's help, everything before the last ``</think>`` is reasoning, and what follows a ``<think>`` that
    is never closed; where that leaves no text at all, ``finish_reason`` tells whether it was truncated. Both parts come
    stripped.
    """
    if server_reasoning:
        text, reasoning, thinking = content, server_reasoning, "server"
    elif CLOSE in content:
        thought, _, said = content.rpartition(CLOSE)
        text, _, unclosed = said.partition(OPEN)
        reasoning, thinking = thought.strip().removeprefix(OPEN) + unclosed, "tags"
    elif OPEN in content:
        text, reasoning, thinking = "", content.strip().removeprefix(OPEN), "tags"
    else:
        return Completion(text=content.strip(), finish_reason=finish_reason)
    return Completion(text=text.strip(), reasoning=reasoning.strip(), thinking=thinking, finish_reason=finish_reason)
