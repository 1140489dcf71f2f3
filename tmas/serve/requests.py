"""Reads and validates a chat completion request: its question and its settings for the method.

A field that this server does not support is a request error; it is never ignored. For example, the method sees one
problem, so a conversation is refused, and the server sets the sampling.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tmas.methods.base import MethodSettings
from tmas.serve.errors import ApiError
from tmas.serve.settings import RequestLimits
from tmas.settings import Limits, RunSettings

MODEL = "tmas"
NO_EFFECT: dict[str, Any] = {
    "n": 1,
    "tools": [],
    "response_format": {"type": "text"},
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logprobs": False,
    "store": False,
}
"""Values of unsupported fields that have no effect. Some clients send them, so they are accepted, and null as well."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class _RequestModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class StreamOptions(_RequestModel):
    include_usage: bool = False


class RequestOptions(_RequestModel):
    """The field ``tmas`` of a request: settings of the method for this request. ``seed`` None: a random seed."""

    n_candidates: int | None = Field(default=None, ge=1)
    n_verifications: int | None = Field(default=None, ge=1)
    max_iterations: int | None = Field(default=None, ge=1)
    epsilon: float | None = Field(default=None, ge=0, le=1)
    tokens_per_problem: int | None = Field(default=None, ge=1)
    seed: Seed | None = None

    def settings(self, default: RunSettings, limits: RequestLimits) -> RunSettings:
        """The run settings for this request: ``default`` with these options.

        ``limits``: the server's upper limits. Raises :class:`ApiError` for an option that the method does not have, for
        a wrong value, and for a value above its limit.
        """
        method = self._method(default.method, limits)
        tokens = self.tokens_per_problem or limits.tokens_per_problem
        if tokens is not None:
            _check_limit("tokens_per_problem", tokens, limits.tokens_per_problem)
        seed = secrets.randbits(31) if self.seed is None else self.seed
        return default.model_copy(update={"method": method, "seed": seed, "limits": Limits(tokens_per_problem=tokens)})

    def _method(self, method: MethodSettings, limits: RequestLimits) -> MethodSettings:
        overrides = self.model_dump(exclude={"tokens_per_problem", "seed"}, exclude_none=True)
        for name, value in overrides.items():
            if not hasattr(method, name):
                message = f"the method of this server, {method.name}, has no such setting"
                raise _bad_request(f"tmas.{name}", message)
            if name in RequestLimits.model_fields:
                _check_limit(name, value, getattr(limits, name) or getattr(method, name))
        try:
            return type(method).model_validate(method.model_dump() | overrides)
        except ValidationError as error:
            raise _first_error(error, "tmas.") from None


class ChatRequest(_RequestModel):
    """The supported fields of a chat completion request.

    ``seed``: OpenAI's name for ``tmas.seed``. ``user``: accepted and ignored.
    """

    model: str
    messages: list[dict[str, Any]]
    stream: bool = False
    stream_options: StreamOptions | None = None
    seed: Seed | None = None
    user: str | None = None
    tmas: RequestOptions = RequestOptions()

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def options(self) -> RequestOptions:
        return self.tmas if self.seed is None else self.tmas.model_copy(update={"seed": self.seed})


def read_request(data: bytes) -> ChatRequest:
    """Parse the body of a request. Raises :class:`ApiError` for invalid JSON and for everything that is not supported.

    :func:`read_question` reads the messages.
    """
    try:
        body = orjson.loads(data)  # refuses invalid Unicode, NaN and very deep nesting
    except orjson.JSONDecodeError as error:
        raise _bad_request(None, f"the body is not JSON: {error}", "invalid_json") from None
    if not isinstance(body, dict):
        raise _bad_request(None, "the body is not a JSON object", "invalid_json")
    fields = {name: value for name, value in body.items() if value is not None and NO_EFFECT.get(name) != value}
    try:
        request = ChatRequest.model_validate(fields)
    except ValidationError as error:
        raise _first_error(error) from None
    if request.model != MODEL:
        raise ApiError(404, "model_not_found", f"the only model here is {MODEL}", "model")
    if request.stream_options and not request.stream:
        raise _bad_request("stream_options", "supported only with stream=true")
    if request.seed is not None and request.tmas.seed is not None:
        raise _bad_request("seed", "set twice, as seed and as tmas.seed: leave one out")
    return request


def read_question(messages: list[dict[str, Any]], max_characters: int) -> str:
    """The text of the only message. ``max_characters``: its maximum length.

    Raises :class:`ApiError` if there are several messages, for a role other than user, for content other than text, for
    any other field of the message or of its parts, and for a question that is empty or too long.
    """
    if len(messages) != 1 or messages[0].get("role") != "user":
        raise _bad_request("messages", "must be exactly one message with the role user: the method sees one problem")
    _check_fields(messages[0], {"role", "content"}, "messages.0")
    content = messages[0].get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    if not all(_is_text(part) for part in parts):
        raise _bad_request("messages.0.content", "only text is supported")
    for number, part in enumerate(parts):
        _check_fields(part, {"type", "text"}, f"messages.0.content.{number}")
    question = "\n".join(part["text"] for part in parts).strip()
    if not question:
        raise _bad_request("messages.0.content", "contains no question")
    if len(question) > max_characters:
        message = f"messages.0.content: {len(question)} characters; this server allows at most {max_characters}"
        raise ApiError(413, "question_too_long", message, "messages.0.content")
    return question


def _check_fields(given: dict[str, Any], known: set[str], place: str) -> None:
    """Raise :class:`ApiError` for a field that is neither known nor null, as at the top level of a request."""
    for name, value in given.items():
        if name not in known and value is not None:
            raise _bad_request(f"{place}.{name}", "not supported", "unsupported_field")


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _check_limit(name: str, value: int, limit: int | None) -> None:
    if limit is not None and value > limit:
        raise _bad_request(f"tmas.{name}", f"{value} is more than {limit}, the limit of this server", "over_limit")


def _first_error(error: ValidationError, prefix: str = "") -> ApiError:
    first = error.errors(include_input=False, include_url=False)[0]
    name = prefix + ".".join(map(str, first["loc"]))
    if first["type"] != "extra_forbidden":
        return _bad_request(name, first["msg"])
    exception = f", except for {orjson.dumps(NO_EFFECT[name]).decode()}" if name in NO_EFFECT else ""
    return _bad_request(name, f"not supported{exception}", "unsupported_field")


def _bad_request(param: str | None, message: str, code: str = "invalid_value") -> ApiError:
    return ApiError(400, code, f"{param}: {message}" if param else message, param)
