"""Settings of a chat endpoint (address, key, retries) and the meaning of its errors."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tmas.errors import UserError
from tmas.redaction import add_secret, clean

MISCONFIGURED_STATUSES = frozenset({301, 302, 303, 307, 308, 401, 402, 404, 405})
"""Statuses for a wrong key, model or URL, or an account without credit. No call can succeed, unless one did before: an
endpoint that worked may recover."""
RETRYABLE = frozenset({408, 409, 425, 429})
"""Statuses for which a retry may help. A retry may also help for every 5xx status."""
CONTEXT = re.compile(r"context.?(length|window|size)|max(imum)?.model.len|(prompt|input) is too long", re.IGNORECASE)
"""How servers say that the prompt is too long for the model."""
UNKNOWN_MODEL = re.compile(r"model.{0,80}(not exist|not found|not a valid|unknown|not supported)", re.IGNORECASE)
"""How servers say, with any status, that they do not have a model."""


class OptionalField(NamedTuple):
    """A request field that a server may refuse.

    ``pattern``: occurs in the server's error message. ``note``: the note on the reply when the field is left out.
    """

    pattern: re.Pattern[str]
    note: str | None


OPTIONAL_FIELDS = {
    "response_format": OptionalField(
        re.compile(r"response_format|schema|structured.output|grammar", re.IGNORECASE), "schema_refused"
    ),
    "n": OptionalField(re.compile(r"(?<![\\\w])n(?!\w)|one completion|multiple (completions|choices)"), "n_refused"),
    "seed": OptionalField(re.compile(r"\bseed\b", re.IGNORECASE), "seed_refused"),
    "stream_options": OptionalField(re.compile(r"stream_options|include_usage"), None),
    "priority": OptionalField(re.compile(r"priority", re.IGNORECASE), None),
}
MAX_BRIEF_CHARACTERS = len("HTTP 400: ") + 300
"""Maximum length of :attr:`RequestError.brief`."""
MAX_MESSAGE_CHARACTERS = 2**16
"""Maximum length of :attr:`RequestError.message`. An error in a stream can be as long as a reply."""
MAX_NAMES, MAX_NAME_CHARACTERS = 20, 100
"""Maximum number of models that an error names, and maximum length of each name."""

TokenLimitField = Literal["max_tokens", "max_completion_tokens"]


class EndpointDown(Exception):
    """The whole endpoint is down. The run stops and can be resumed. ``remedy``: what to do, in full sentences."""

    def __init__(self, base_url: str, error: str, remedy: str = "") -> None:
        super().__init__(base_url, error, remedy)
        self.base_url, self.error, self.remedy = base_url, error, remedy

    def __str__(self) -> str:
        problem = f"the endpoint {self.base_url} is down: {self.error}"
        return f"{problem}. {self.remedy}" if self.remedy else problem


class UnknownModel(EndpointDown):
    """The server does not have the requested model ``name``, according to its own list ``served``."""

    def __init__(self, base_url: str, name: str, served: Sequence[str]) -> None:
        super().__init__(base_url, f"it has no model {name!r}")
        self.args = (base_url, name, served)
        self.name, self.served = name, tuple(one[:MAX_NAME_CHARACTERS] for one in served)

    def __str__(self) -> str:
        more = f" and {len(self.served) - MAX_NAMES} more" if len(self.served) > MAX_NAMES else ""
        names = ", ".join(self.served[:MAX_NAMES])
        return f"the server {self.base_url} has no model {self.name!r}. It serves {names}{more}."


class RetrySettings(BaseModel):
    """Timeouts and retries for an endpoint, and the limit on its replies. Times are in seconds.

    The duration of a call is not limited as long as text arrives: ``first_token_timeout`` applies before the first
    text, ``idle_timeout`` between two pieces of text. The length of a reply is limited by ``max_bytes_per_token``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    connect_timeout: float = Field(default=30.0, gt=0, description="Seconds to wait for a connection.")
    first_token_timeout: float = Field(
        default=3600.0, gt=0, description="Seconds to wait for the first token of a reply."
    )
    idle_timeout: float = Field(
        default=600.0,
        gt=0,
        description="Seconds to wait between two pieces of a reply. Comments in a stream do not count.",
    )
    max_attempts: int = Field(default=8, ge=1, description="Attempts of a call on each server, the first included.")
    max_attempts_at_start: int = Field(
        default=3,
        ge=1,
        description="Attempts of a call on each server, the first included, while no server of the endpoint has"
        " answered yet and no connection is possible (refused, or the host is unknown). With a larger number,"
        " calls wait longer for a server that is still starting.",
    )
    backoff_base: float = Field(
        default=1.0,
        ge=0,
        description="Longest wait before the first retry in seconds. It doubles with every further retry. The actual"
        " wait is drawn at random between half of it and all of it.",
    )
    backoff_max: float = Field(default=60.0, ge=0, description="Longest wait before a retry in seconds.")
    retry_after_max: float = Field(
        default=600.0, ge=0, description="Longest wait in seconds that a server may ask for with Retry-After."
    )
    max_bytes_per_token: int = Field(
        default=64,
        ge=8,
        description="A reply with more than this many bytes for each of the n x sampling.max_tokens tokens is aborted"
        " and recorded as a failure. Text has about 4 bytes per token.",
    )


class EndpointSettings(RetrySettings):
    """Where a chat server is, how to speak to it, and how long to wait for it."""

    base_url: str | tuple[str, ...] = Field(description="The server's URL, or those of several servers of one model.")
    api_key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="NAME of the environment variable that holds the key. null: no key.",
    )
    token_limit_field: TokenLimitField = Field(
        default="max_tokens", description="Request field that limits the completion."
    )
    send_priority: bool = Field(default=False, description="Send vLLM's priority with each request.")
    stream: bool = Field(
        default=True,
        description="Receive replies piece by piece. false: whole replies, each within first_token_timeout seconds.",
    )

    @field_validator("base_url")
    @classmethod
    def _check_urls(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(value, str):
            return checked_url(value)
        urls = tuple(map(checked_url, value))
        if len(set(urls)) < len(urls):
            raise ValueError("must name each server once")
        return urls

    @property
    def base_urls(self) -> tuple[str, ...]:
        return (self.base_url,) if isinstance(self.base_url, str) else self.base_url

    def most_attempts(self, never_ran: bool) -> int:
        """Maximum number of attempts of a call on each server. ``never_ran``: no server has been reached so far.

        A server at a fixed address that never ran will not come up by itself. The run's own servers have no fixed
        address (``base_urls`` is empty), and are restarted.
        """
        at_start = never_ran and bool(self.base_urls)
        return min(self.max_attempts, self.max_attempts_at_start) if at_start else self.max_attempts

    def read_key(self) -> str | None:
        """Read the key from the environment; None if the endpoint needs none."""
        return self.api_key_env and read_key(self.api_key_env, "api_key_env")


def read_key(variable: str, setting: str) -> str:
    """Read the key from an environment variable. ``setting`` names the variable and is shown in the error message.

    Raises :class:`UserError` if the variable is not set or empty.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"the environment variable {variable} ({setting}) holds no key", remedy=f"Set {variable}.")
    add_secret(key)
    return key


def checked_url(base_url: str) -> str:
    """The base URL of a server, without a slash at its end. Raises ``ValueError`` if it cannot be one."""
    url = urlsplit(base_url)
    path = url.path.rstrip("/")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("must be an http:// or https:// URL, such as http://host:8000/v1")
    if "@" in url.netloc or url.query or url.fragment:
        raise ValueError("must not contain a user, password or query: name the key's variable in api_key_env")
    if not path or path.endswith("/completions"):
        ending = "leave out /chat/completions" if path else "it needs a path, usually /v1"
        raise ValueError(f"must be the URL to which /chat/completions is added, such as http://host:8000/v1: {ending}")
    return base_url.rstrip("/")


@dataclass(eq=False)
class RequestError(Exception):
    """One HTTP request failed.

    ``message``: cut and cleaned, because it may repeat what the server sent. ``status``: HTTP status, or None if the
    connection broke, stalled (``hung``) or delivered an incomplete response. ``retry_after``: seconds that the server
    asked to wait. ``is_final``: a retry would fail in the same way. ``has_served``: a chat request to any server of
    the endpoint had succeeded before. ``is_unreachable``: there was no connection, for example because the server
    refused it.

    Two fields are set when a call is given up: ``base_url`` is the server that failed last, and ``since`` is the
    monotonic time of the call's first failure.
    """

    message: str
    status: int | None = None
    retry_after: float = 0.0
    hung: bool = False
    is_final: bool = False
    has_served: bool = False
    is_unreachable: bool = False
    base_url: str = ""
    since: float = 0.0

    def __post_init__(self) -> None:
        self.message = clean(self.message[:MAX_MESSAGE_CHARACTERS])

    @property
    def brief(self) -> str:
        """The message, cut to a readable length."""
        return self.message[:MAX_BRIEF_CHARACTERS]

    @property
    def is_retryable(self) -> bool:
        """Whether a retry may help."""
        if self.status is None:
            return not self.is_final
        return self.status in RETRYABLE or self.status >= 500 or (self.has_served and self.looks_misconfigured)

    @property
    def looks_misconfigured(self) -> bool:
        """Whether the status means a wrong key, model or URL. An endpoint that has served before may recover."""
        return self.status in MISCONFIGURED_STATUSES

    @property
    def may_mean_unknown_model(self) -> bool:
        """Whether the server may have refused the name of the model. A wrong URL gets a 404, too."""
        return self.status == 404 or (self.status in (400, 403, 422) and UNKNOWN_MODEL.search(self.message) is not None)

    @property
    def remedy(self) -> str:
        """What the user can do; empty if it is not known."""
        return "Check the server's URL, and that the server is running." if self._may_be_wrong_url else ""

    @property
    def _may_be_wrong_url(self) -> bool:
        return self.is_unreachable or self.status in (404, 405)

    @property
    def is_prompt_too_long(self) -> bool:
        """Whether the prompt is too long for the model."""
        return self.status in (400, 413, 422) and CONTEXT.search(self.message) is not None

    def refused_field(self, sent: Container[str]) -> str | None:
        """Return the optional field among those ``sent`` that the server refused, if any."""
        if self.status not in (400, 422) or self.is_prompt_too_long:
            return None
        return next(
            (name for name, field in OPTIONAL_FIELDS.items() if name in sent and field.pattern.search(self.message)),
            None,
        )


def parse_retry_after(header: str) -> float:
    """Parse a Retry-After header (seconds or a date) into seconds; 0 if it is neither."""
    if re.fullmatch(r"\d+(\.\d+)?", header):
        return float(header)
    try:
        return (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return 0.0
