"""The largest reply that a request can have. A larger one is ended, because the server ignores ``max_tokens``."""

from __future__ import annotations

from typing import NamedTuple

SPARE_BYTES = 2**16
"""Bytes that a reply may have in addition: names of fields, comments, and the text around a short reply."""
FRAMING = 8
"""Bytes of a stream per byte of text, at most. An event holds one token in 200 to 400 bytes of JSON."""


class ReplyLimits(NamedTuple):
    """Limits on one reply. ``text``: characters of all its choices. ``line``: bytes of a line, or of a plain JSON body.

    ``stream``: bytes of all lines together.
    """

    text: int
    line: int
    stream: int


def reply_limits(max_tokens: int, n: int, max_bytes_per_token: int) -> ReplyLimits:
    """The limits on a reply with ``n`` choices of at most ``max_tokens`` tokens each."""
    text = max_tokens * n * max_bytes_per_token + SPARE_BYTES
    return ReplyLimits(text, text, FRAMING * text)
