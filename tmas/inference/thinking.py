"""Tells what a model thought from what it says."""

from __future__ import annotations

from tmas.records import Completion

OPEN, CLOSE = "<think>", "</think>"


def split_thinking(content: str, server_reasoning: str, finish_reason: str = "stop") -> Completion:
    """Make a completion of a choice's ``content`` and the reasoning that the server itself took off it ("" for none).

    Without the server's help, everything before the last ``</think>`` is reasoning; a thought that is opened but never
    closed leaves no text at all, and ``finish_reason`` tells whether it was truncated. Both parts come stripped.
    """
    if server_reasoning:
        text, reasoning, thinking = content, server_reasoning, "server"
    elif CLOSE in content:
        (reasoning, _, text), thinking = content.rpartition(CLOSE), "tags"
    elif OPEN in content:
        text, reasoning, thinking = "", content, "tags"
    else:
        return Completion(text=content.strip(), finish_reason=finish_reason)
    if thinking == "tags":
        reasoning = reasoning.strip().removeprefix(OPEN)
    return Completion(text=text.strip(), reasoning=reasoning.strip(), thinking=thinking, finish_reason=finish_reason)
