"""A chat completion request, read: the question, what it sets of the method, and what it must not ask for.

What has no meaning here is refused and never dropped: the method sees one problem, and the server sets its sampling.
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
NEUTRAL: dict[str, Any] = {
    "n": 1,
    "tools": [],
    "response_format": {"type": "text"},
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logprobs": False,
    "store": False,
}
"""Values of unsupported fields that ask for nothing, and that clients send; null is one of every field."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class _RequestModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class StreamOptions(_RequestModel):
    include_usage: bool = False


class RequestOptions(_RequestModel):
    """The field ``tmas``: settings of the method for this request alone. ``seed`` None: one is drawn."""

    n_candidates: int | None = Field(default=None, ge=1)
    n_verifications: int | None = Field(default=None, ge=1)
    max_iterations: int | None = Field(default=None, ge=1)
    epsilon: float | None = Field(default=None, ge=0, le=1)
    tokens_per_problem: int | None = Field(default=None, ge=1)
    seed: Seed | None = None

    def settings(self, default: RunSettings, most: RequestLimits) -> RunSettings:
        """Those of the run; raises :class:`ApiError` for what the method does not have or ``most`` does not allow."""
        method = self._method(default.method, most)
        tokens = self.tokens_per_problem or most.tokens_per_problem
        if tokens is not None:
            _within("tokens_per_problem", tokens, most.tokens_per_problem)
        seed = secrets.randbits(31) if self.seed is None else self.seed
        return default.model_copy(update={"method": method, "seed": seed, "limits": Limits(tokens_per_problem=tokens)})

    def _method(self, method: MethodSettings, most: RequestLimits) -> MethodSettings:
        given = self.model_dump(exclude={"tokens_per_problem", "seed"}, exclude_none=True)
        for name, value in given.items():
            if not hasattr(method, name):
                raise _refused(f"tmas.{name}", f"the method of this server, {method.name}, has none")
            if name in RequestLimits.model_fields:
                _within(name, value, getattr(most, name) or getattr(method, name))
        try:
            return type(method).model_validate(method.model_dump() | given)
        except ValidationError as error:
            raise _first_of(error, "tmas.") from None


class ChatRequest(_RequestModel):
    """The fields of a chat completion request that mean something here.

    ``seed`` is OpenAI's name of ``tmas.seed``. ``user`` may be given and changes nothing.
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
    """Raises :class:`ApiError` for all that is not supported; the messages are read by :func:`read_question`."""
    try:
        body = orjson.loads(data)  # which takes no broken Unicode, no NaN and no bottomless nesting
    except orjson.JSONDecodeError as error:
        raise _refused(None, f"the body is not JSON: {error}", "invalid_json") from None
    if not isinstance(body, dict):
        raise _refused(None, "the body is not a JSON object", "invalid_json")
    given = {name: value for name, value in body.items() if value is not None and NEUTRAL.get(name) != value}
    try:
        request = ChatRequest.model_validate(given)
    except ValidationError as error:
        raise _first_of(error) from None
    if request.model != MODEL:
        raise ApiError(404, "model_not_found", f"the only model here is {MODEL}", "model")
    if request.stream_options and not request.stream:
        raise _refused("stream_options", "only with stream=true")
    if request.seed is not None and request.tmas.seed is not None:
        raise _refused("seed", "given twice, as tmas.seed as well")
    return request


def read_question(messages: list[dict[str, Any]], max_characters: int) -> str:
    """The text of the one message; raises :class:`ApiError`."""
    if len(messages) != 1 or messages[0].get("role") != "user":
        raise _refused("messages", "exactly one is supported, with the role user: the method sees a single problem")
    content = messages[0].get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    if not all(_is_text(part) for part in parts):
        raise _refused("messages.0.content", "only text is supported")
    question = "\n".join(part["text"] for part in parts).strip()
    if not question:
        raise _refused("messages.0.content", "holds no question")
    if len(question) > max_characters:
        message = f"messages.0.content: {len(question)} characters, of at most {max_characters} on this server"
        raise ApiError(413, "question_too_long", message, "messages.0.content")
    return question


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _within(name: str, value: int, limit: int | None) -> None:
    if limit is not None and value > limit:
        raise _refused(f"tmas.{name}", f"{value} is more than this server allows, which is {limit}", "over_limit")


def _first_of(error: ValidationError, prefix: str = "") -> ApiError:
    first = error.errors(include_input=False, include_url=False)[0]
    name = prefix + ".".join(map(str, first["loc"]))
    if first["type"] != "extra_forbidden":
        return _refused(name, first["msg"])
    other = f", other than {orjson.dumps(NEUTRAL[name]).decode()}" if name in NEUTRAL else ""
    return _refused(name, f"not supported{other}", "unsupported_field")


def _refused(param: str | None, message: str, code: str = "invalid_value") -> ApiError:
    return ApiError(400, code, f"{param}: {message}" if param else message, param)
