"""The model behind an OpenAI-compatible server, and the settings in which single roles differ from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, JsonValue, field_validator

from tmas.llm.endpoint import EndpointSettings, RetrySettings, TokenLimitField, checked_url
from tmas.methods import all_roles
from tmas.records import Sampling
from tmas.records.prices import Price
from tmas.settings.base import Settings

ROLES = all_roles()
"""The roles of all methods, the paper's five roles first. Each role can have its own endpoint, model and sampling."""


def _checked_urls(urls: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """See :func:`~tmas.llm.endpoint.checked_url`. An empty text stays: it counts as not set."""
    if isinstance(urls, str):
        return urls and checked_url(urls)
    return tuple(map(checked_url, urls))


BaseUrl = Annotated[str | Annotated[tuple[str, ...], Field(min_length=1)], AfterValidator(_checked_urls)]
"""The base URL of one server, or the base URLs of several servers of the same model."""


AnySampling = TypeVar("AnySampling", Sampling, "SamplingOverride")


class SamplingOverride(Settings):
    """Decoding settings of one role that differ from those of the model."""

    temperature: float | None = Field(
        default=None, ge=0, description="Sampling temperature of this role. null: that of the model."
    )
    top_p: float | None = Field(default=None, gt=0, le=1, description="top_p of this role. null: that of the model.")
    max_tokens: int | None = Field(
        default=None, ge=1, description="Maximum length of this role's completions in tokens. null: that of the model."
    )
    extra: dict[str, JsonValue] = Field(
        default_factory=dict, description="Further request fields of this role, merged over those of the model."
    )

    def over(self, sampling: AnySampling) -> AnySampling:
        """``sampling`` with the values of this override, where they are set. ``extra`` is merged."""
        changed = {k: v for k, v in self.model_dump(exclude={"extra"}).items() if v is not None}
        return sampling.model_copy(update={**changed, "extra": {**sampling.extra, **self.extra}})


class RoleOverride(Settings):
    """Overrides of :class:`ModelSettings` for one role."""

    name: str | None = Field(default=None, description="Name of this role's model on its server. null: model.name.")
    base_url: BaseUrl | None = Field(
        default=None,
        description="This role's server or servers. null: model.base_url. model.api_key_env and model.send_priority do"
        " not apply to a server other than model.base_url.",
    )
    api_key_env: str | None = Field(
        default=None,
        description="NAME of the environment variable that holds this role's key. null: model.api_key_env, if the role"
        " has no other base_url.",
    )
    token_limit_field: TokenLimitField | None = Field(
        default=None, description="Request field for the completion limit. null: model.token_limit_field."
    )
    send_priority: bool | None = Field(
        default=None,
        description="Whether requests carry vLLM's priority. null: model.send_priority, if the role has no other"
        " base_url.",
    )
    context_length: int | None = Field(
        default=None, ge=64, description="Context length of this role's model in tokens. null: model.context_length."
    )
    max_window_tokens: int | None = Field(
        default=None,
        ge=64,
        description="Maximum of prompt and completion together in tokens, for this role. null:"
        " model.max_window_tokens.",
    )
    tokenizer: str | None = Field(default=None, description="Tokenizer of this role's model. null: model.tokenizer.")
    sampling: SamplingOverride = Field(default=SamplingOverride(), description="Decoding settings of this role.")
    price: Price = Field(
        default=Price(),
        description="Price of this role's model. If it is not set: model.price for a role that uses model.name and"
        " model.base_url, otherwise the list price in the setting prices.",
    )


class ModelSettings(Settings):
    """A model behind an OpenAI-compatible server."""

    name: str = Field(description="Name of the model on its server.")
    base_url: BaseUrl | None = Field(
        default=None,
        description="OpenAI-compatible server, such as http://HOST:8000/v1, or a list of servers of the same model. A"
        " call goes to the server that has its prompt cached, or to a less busy one. null: only with serving=vllm.",
    )
    path: str | None = Field(
        default=None,
        description="Folder or hub name of the model that serving=vllm loads. null: only without serving=vllm.",
    )
    api_key_env: str | None = Field(
        default=None,
        description="NAME of the environment variable that holds the key; never the key itself. null: no key.",
    )
    token_limit_field: TokenLimitField = Field(
        default="max_tokens",
        description="Request field for the completion limit. OpenAI's reasoning models accept max_completion_tokens"
        " only.",
    )
    send_priority: bool = Field(
        default=False,
        description="Send vLLM's priority with each request, so that its queue serves the problem furthest behind"
        " first. The server needs --scheduling-policy priority; serving=vllm sets both.",
    )
    context_length: int | None = Field(
        default=None,
        ge=64,
        description="Context length of the model in tokens: what the server can hold. null: ask the server (vLLM"
        " reports it).",
    )
    max_window_tokens: int | None = Field(
        default=None,
        ge=64,
        description="Maximum of prompt and completion together in tokens. A completion may use what its prompt leaves,"
        " up to sampling.max_tokens. Half of this maximum, or sampling.max_tokens if that is less, is always kept free"
        " for the completion. null: only context_length limits the window, and sampling.max_tokens are always kept"
        " free for the completion. The paper: 130000.",
    )
    tokenizer: str = Field(
        default="auto",
        description="Tokenizer that counts prompts: a folder, a tokenizer.json or a hub name. auto: that of path, or"
        " estimate if there is no path. estimate: by the number of bytes.",
    )
    send_seed: bool = Field(
        default=True, description="Send a seed with each request, derived from the run's seed and the call's name."
    )
    sampling: Sampling = Field(default=Sampling(), description="Decoding settings of all roles.")
    price: Price = Field(
        default=Price(),
        description="Price of the model, for costs and budgets in money. Takes precedence over the list"
        " price in the setting prices.",
    )
    patience: RetrySettings = Field(default=RetrySettings(), description="Time limits and retries.")
    roles: dict[str, RoleOverride] = Field(
        default_factory=dict, description="Settings of single roles that differ from those of the model."
    )

    @field_validator("roles")
    @classmethod
    def _roles_exist(cls, roles: dict[str, RoleOverride]) -> dict[str, RoleOverride]:
        if unknown := sorted(roles.keys() - set(ROLES)):
            raise ValueError(f"no such role: {', '.join(unknown)} (choose from {', '.join(ROLES)})")
        return roles

    def for_role(self, role: str) -> ModelSettings:
        """The model settings of ``role`` with its overrides.

        A role with another ``base_url`` inherits no key, no priority and no price. Another ``name`` inherits no price.
        """
        own = self.roles.get(role, RoleOverride())
        if own.base_url == "":  # not set
            own = own.model_copy(update={"base_url": None})
        changed = {k: v for k, v in own.model_dump(exclude={"sampling", "price"}).items() if v is not None}
        is_elsewhere = own.base_url and own.base_url != self.base_url
        if is_elsewhere:
            changed.setdefault("api_key_env", None)
            changed.setdefault("send_priority", False)
        if own.price.is_known or is_elsewhere or changed.get("name", self.name) != self.name:
            changed["price"] = own.price
        return self.model_copy(update={**changed, "sampling": own.sampling.over(self.sampling), "roles": {}})

    @property
    def hosts(self) -> set[str | None]:
        """The host names of the servers; empty for the run's own servers."""
        urls = (self.base_url,) if isinstance(self.base_url, str) else self.base_url or ()
        return {urlsplit(url).hostname for url in urls}

    def with_absolute_paths(self) -> Self:
        """The settings with absolute paths, because Ray's processes have other working directories."""
        roles = {
            name: own.model_copy(update={"tokenizer": _absolute_if_exists(own.tokenizer)})
            for name, own in self.roles.items()
        }
        paths = {"path": _absolute_if_exists(self.path), "tokenizer": _absolute_if_exists(self.tokenizer)}
        return self.model_copy(update={**paths, "roles": roles})

    def endpoint(self) -> EndpointSettings:
        """The connection settings. Raises ``ValueError`` if ``base_url`` is not set."""
        if self.base_url in (None, ""):
            raise ValueError("model.base_url is not set: give an OpenAI-compatible endpoint, or serving=vllm")
        return EndpointSettings(
            base_url=self.base_url,
            api_key_env=self.api_key_env,
            token_limit_field=self.token_limit_field,
            send_priority=self.send_priority,
            **self.patience.model_dump(),
        )


def _absolute_if_exists(name: str | None) -> str | None:
    """The absolute path of ``name`` if it exists. Otherwise it is a hub name and stays as it is."""
    return str(Path(name).resolve()) if name and Path(name).exists() else name
