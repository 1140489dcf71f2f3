"""Reads and validates a chat completion request: its fields, and its settings for the method.

docs/serve.md has a table of all fields. A field that the method cannot use is ignored and named in the response. With
``serve.strict`` it is an error instead. A field that changes the form of the reply is an error in any case.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tmas.methods.base import MethodSettings
from tmas.serve.errors import ApiError, bad_request
from tmas.serve.models import RequestLimits, settings_of, with_sampling
from tmas.serve.settings import ServerSettings
from tmas.settings import Limits, RunSettings

NO_EFFECT: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "tools": ([],),
    "tool_choice": ("auto", "none"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "store": (False,),
}
"""Values of unsupported fields that have no effect. Some clients send them, so they are accepted, as null is."""
FORM_OF_REPLY = frozenset({"n", "tool_choice", "response_format", "modalities", "audio", "logprobs"})
"""Fields that ask for another form of the reply. A client that sets one could not use a reply without it."""
SAMPLING = ("temperature", "top_p")
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
        """The run settings for this request: these options applied to ``default``.

        ``default``: the run settings of the request's model. ``limits``: the server's upper limits. Raises
        :class:`ApiError` for an option that the method does not have, for a wrong value, and for a value above its
        limit.
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
                message = f"the method of this model, {method.name}, has no such setting"
                raise bad_request(f"tmas.{name}", message)
            if name in RequestLimits.model_fields:
                _check_limit(name, value, getattr(limits, name) or getattr(method, name))
        try:
            return type(method).model_validate(method.model_dump() | overrides)
        except ValidationError as error:
            raise _first_error(error, "tmas.") from None


class ChatRequest(_RequestModel):
    """The supported fields of a chat completion request.

    ``seed``: OpenAI's name for ``tmas.seed``. ``user``: accepted and ignored. ``include_reasoning``: whether the reply
    has the progress as reasoning; None: only a stream has it. ``ignored``: names of fields without effect.
    """

    model: str
    messages: list[dict[str, Any]]
    stream: bool = False
    stream_options: StreamOptions | None = None
    include_reasoning: bool | None = None
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: Seed | None = None
    user: Any = None
    tmas: RequestOptions = RequestOptions()
    ignored: tuple[str, ...] = Field(default=(), exclude=True)

    @property
    def include_usage(self) -> bool:
        return self.stream and self.stream_options is not None and self.stream_options.include_usage

    def settings(self, models: Mapping[str, RunSettings], limits: RequestLimits) -> RunSettings:
        """The run settings for this request. ``models``: the run settings of each model, by its name.

        Raises :class:`ApiError` for an unknown model; :meth:`RequestOptions.settings` has the other errors.
        """
        options = self.tmas if self.seed is None else self.tmas.model_copy(update={"seed": self.seed})
        settings = options.settings(settings_of(self.model, models), limits)
        return with_sampling(settings, temperature=self.temperature, top_p=self.top_p)


def read_request(data: bytes, server: ServerSettings) -> ChatRequest:
    """Parse the body of a request. :func:`~tmas.serve.conversation.read_question` reads its messages.

    Raises :class:`ApiError` for invalid JSON, for wrong values, and for unsupported fields that cannot be ignored.
    """
    try:
        body = orjson.loads(data)  # refuses invalid Unicode, NaN and very deep nesting
    except orjson.JSONDecodeError as error:
        raise bad_request(None, f"the body is not JSON: {error}", "invalid_json") from None
    if not isinstance(body, dict):
        raise bad_request(None, "the body is not a JSON object", "invalid_json")
    fields = {name: value for name, value in body.items() if value is not None and not _has_no_effect(name, value)}
    ignored = _ignored(fields, server)
    options = fields.get("stream_options")
    if isinstance(options, dict):
        known = options.keys() if server.strict else StreamOptions.model_fields
        fields["stream_options"] = {k: v for k, v in options.items() if k in known and v is not None}
    try:
        left_out = frozenset(ignored)  # a set, because a request can have 100,000 fields
        request = ChatRequest.model_validate({k: v for k, v in fields.items() if k not in left_out})
    except ValidationError as error:
        raise _first_error(error) from None
    if request.stream_options and not request.stream and server.strict:
        raise bad_request("stream_options", "supported only with stream=true")
    if request.seed is not None and request.tmas.seed is not None:
        raise bad_request("seed", "set twice, as seed and as tmas.seed: leave one out")
    return request.model_copy(update={"ignored": tuple(ignored)})


def _has_no_effect(name: str, value: Any) -> bool:
    return value in NO_EFFECT.get(name, ())


def _ignored(fields: Mapping[str, Any], server: ServerSettings) -> list[str]:
    """The names of the fields that are ignored. Raises :class:`ApiError` for one that must not be ignored."""
    known = ChatRequest.model_fields.keys() - {"ignored"}
    ignored = [name for name in fields if name not in known or (name in SAMPLING and not server.apply_sampling)]
    temperature = fields.get("temperature")
    if isinstance(temperature, int | float) and 0 <= temperature < server.min_temperature:
        ignored.append("temperature")
    unsupported = [*ignored, *(name for name in SAMPLING if name in fields)] if server.strict else ignored
    for name in unsupported:
        if server.strict or name in FORM_OF_REPLY:
            values = " or ".join(orjson.dumps(value).decode() for value in NO_EFFECT.get(name, ()))
            raise bad_request(name, f"not supported{f', except for {values}' if values else ''}", "unsupported_field")
    return list(dict.fromkeys(ignored))


def _check_limit(name: str, value: int, limit: int | None) -> None:
    if limit is not None and value > limit:
        raise bad_request(f"tmas.{name}", f"{value} is more than {limit}, the limit of this server", "over_limit")


def _first_error(error: ValidationError, prefix: str = "") -> ApiError:
    first = error.errors(include_input=False, include_url=False)[0]
    name = prefix + ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return bad_request(name, "not supported", "unsupported_field")
    return bad_request(name, first["msg"])
