"""Request errors: an HTTP status and a body in OpenAI's error format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RETRY_AFTER = 10
"""Seconds that a client is asked to wait before it retries, for statuses 429 and 503."""
TYPES = {
    401: "authentication_error",
    422: "no_answer_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
"""OpenAI's error type for each status. All other statuses are an ``invalid_request_error``."""


class ApiError(Exception):
    """A request that cannot be answered.

    ``status``: the HTTP status. ``code``: machine-readable reason. ``param``: the wrong field of the request.
    ``details``: further members of the body.
    """

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param, self.details = status, code, message, param, details or {}

    @property
    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "invalid_request_error")
        return {
            "error": {"message": self.message, "type": kind, "code": self.code, "param": self.param},
            **self.details,
        }

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(RETRY_AFTER)} if self.status in (429, 503) else {}


def bad_request(param: str | None, message: str, code: str = "invalid_value") -> ApiError:
    """The error for a wrong field ``param`` of a request; None for the whole body."""
    return ApiError(400, code, f"{param}: {message}" if param else message, param)
