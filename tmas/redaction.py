"""Redaction: removes API keys from every text that leaves the process, and control characters from every message.

A server can echo the key in an error, in a malformed header, or in the text of a reply. Everything that reads a key
registers it with :func:`add_secret`. From then on :func:`without_secrets` removes it from model text, and :func:`clean`
from messages for logs, exceptions and records. :func:`clean_logger` returns loggers whose records are clean for every
handler, also for those of a program that uses tmas as a library. :class:`CleanFormatter` cleans the lines of other
libraries' loggers, too; the commands and the Ray actors use it (:func:`log_to_stderr`).
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Iterator
from urllib.parse import quote

MASK = "***"
SHORTEST_SECRET = 8
"""Shorter keys, such as EMPTY, are placeholders. Removing them would damage ordinary text."""

_FORMS: list[str] = []
"""What is searched for: each secret as it is, URL-encoded, in hex and in base64. Longer texts come first, because one
secret may be the beginning of another."""
_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[@-Z\\-_])?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except tabs and newlines, characters that change the direction of text, and lone surrogates."""


def add_secret(key: str) -> None:
    """Remove ``key`` from all texts from now on. A key with fewer than 8 characters is ignored."""
    if len(key) >= SHORTEST_SECRET:
        _FORMS[:] = sorted({*_FORMS, *_forms(key)}, key=len, reverse=True)


def without_secrets(text: str) -> str:
    """Return ``text`` with every known key replaced by ``***``, also in base64, in hex and in URL encoding."""
    if text:
        for form in _FORMS:
            if form in text:
                text = text.replace(form, MASK)
    return text


def clean(message: str) -> str:
    """Return ``message`` without known keys, terminal escape sequences and control characters."""
    message = without_secrets(message)
    if not message.isprintable():
        message = without_secrets(_CONTROL.sub("", _ESCAPE_SEQUENCE.sub("", message)))
    return _without_cut_keys(message)


def _without_cut_keys(message: str) -> str:
    """Remove keys whose end is missing, because a library has shortened the message."""
    for form in _FORMS:
        beginning = form[: max(SHORTEST_SECRET, len(form) // 2)]
        if beginning in message:
            # One pass: a server that repeats half a key 100,000 times must not cost a copy of the message each time.
            before, *after = message.split(beginning)
            rest = form[len(beginning) :]
            message = MASK.join([before, *(_without_rest(text, rest) for text in after)])
    return message


def _without_rest(text: str, rest: str) -> str:
    """Remove from the start of ``text`` what it still has of a key. ``rest``: the rest of the key."""
    return text[next(n for n in range(len(rest), -1, -1) if text.startswith(rest[:n])) :]


class CleanFormatter(logging.Formatter):
    """Formats a log record, with its traceback, and cleans the result."""

    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(record))


class CleanFilter(logging.Filter):
    """Cleans a log record: its message and its traceback, as the formatters of :mod:`logging` print them."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = clean(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = clean(logging.Formatter().formatException(record.exc_info))
        return True


_CLEAN = CleanFilter()


def clean_logger(name: str) -> logging.Logger:
    """The logger ``name``, whose records are cleaned before any handler gets them."""
    logger = logging.getLogger(name)
    logger.addFilter(_CLEAN)  # adding it again has no effect
    return logger


def log_to_stderr() -> None:
    """Print warnings and errors of all loggers to stderr, clean, unless this process has configured logging."""
    logs = logging.StreamHandler()
    logs.setFormatter(CleanFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[logs])


def _forms(key: str) -> Iterator[str]:
    raw = key.encode(errors="surrogateescape")
    yield key
    yield quote(raw, safe="")
    yield re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), quote(raw, safe=""))
    yield raw.hex()
    # How a key looks in base64 depends on its byte offset, modulo 3, in the text that is encoded. The first and last
    # characters are left out if they also hold bits of neighbouring bytes.
    for offset, first in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.b64encode(b"\0" * offset + raw).decode()[first : 8 * (offset + len(raw)) // 6]
        yield encoded
        yield encoded.replace("+", "-").replace("/", "_")
