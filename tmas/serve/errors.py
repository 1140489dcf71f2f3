"""What a client is told when its request comes to nothing: OpenAI's shape of an error, and a status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RETRY_AFTER = 10
"""Seconds that a client is asked to wait before it tries again, where that may help."""
TYPES = {
    401: "authentication_error",
    422: "no_answer_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
"""By status; all others are the request's fault."""


class ApiError(Exception):
    """``code``: for programs. ``param``: the field of the request at fault. ``facts``: further members of the body."""

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, facts: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param, self.facts = status, code, message, param, facts or {}

    @property
    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "code": self.code, "param": self.param}, **self.facts}

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(RETRY_AFTER)} if self.status in (429, 503) else {}
