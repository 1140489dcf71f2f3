"""Limits on the size of a reply. A larger reply is aborted: it shows that the server ignores ``max_tokens``."""

from __future__ import annotations

from typing import NamedTuple

SPARE_BYTES = 2**16
"""Bytes that every reply may have beyond those of its tokens, for field names, comments and other JSON."""
FRAMING = 8
"""The limit on a stream, as a multiple of the limit on its text: an event with one token has 200 to 400 bytes."""


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
