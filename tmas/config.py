"""The settings of a run, typed and checked: what Hydra composes from conf/ and what Python callers build directly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from tmas.inference.endpoint import EndpointSettings
from tmas.inference.session import Limits
from tmas.methods import MethodSettings
from tmas.methods.tmas import TMASSettings
from tmas.problems import ProblemFields
from tmas.records import Sampling

ROLES = ("solution", "verification", "summary", "experience", "guideline")
"""The five roles of the paper; each can have its own endpoint, model and sampling."""


class Settings(BaseModel):
    """Base: immutable, unknown keys refused; a wrong value is not repeated in the error (it could be a secret)."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SamplingOverride(Settings):
    """What a role samples differently; null inherits. ``extra`` is merged."""

    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    extra: dict[str, JsonValue] = Field(default_factory=dict)


class RoleOverride(Settings):
    """What a role's model has of its own; null inherits from the model."""

    name: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    context_length: int | None = Field(default=None, ge=64)
    tokenizer: str | None = None
    sampling: SamplingOverride = SamplingOverride()


class Patience(Settings):
    """How patient to be with an endpoint; see :class:`~tmas.inference.endpoint.EndpointSettings`. Seconds."""

    connect_timeout: float = 30.0
    first_token_timeout: float = 3600.0
    idle_timeout: float = 600.0
    max_attempts: int = 8
    backoff_base: float = 1.0
    backoff_max: float = 60.0
    retry_after_max: float = 600.0


class ModelSettings(Settings):
    """A model behind an OpenAI-compatible endpoint.

    ``name``: as the server knows it. ``path``: folder or hub name that ``serving=vllm`` loads. ``context_length`` in
    tokens; null asks the server (vLLM tells). ``tokenizer``: ``auto`` takes ``path`` where there is one; a folder, a
    ``tokenizer.json`` or a hub name; ``estimate`` counts bytes. ``api_key_env``: the variable that holds the key.
    """

    name: str
    base_url: str | None = None
    path: str | None = None
    api_key_env: str | None = None
    context_length: int | None = Field(default=None, ge=64)
    tokenizer: str = "auto"
    send_seed: bool = True
    sampling: Sampling = Sampling()
    patience: Patience = Patience()
    roles: dict[str, RoleOverride] = Field(default_factory=dict)

    @field_validator("roles")
    @classmethod
    def _are_known(cls, roles: dict[str, RoleOverride]) -> dict[str, RoleOverride]:
        if unknown := sorted(roles.keys() - set(ROLES)):
            raise ValueError(f"no such role: {', '.join(unknown)} (there are {', '.join(ROLES)})")
        return roles

    def for_role(self, role: str) -> ModelSettings:
        """The settings with the role's own put over them. Another ``base_url`` does not inherit the key."""
        own = self.roles.get(role, RoleOverride())
        changed = {k: v for k, v in own.model_dump(exclude={"sampling"}).items() if v is not None}
        if own.base_url and own.base_url != self.base_url:
            changed.setdefault("api_key_env", own.api_key_env)
        sampling = {k: v for k, v in own.sampling.model_dump(exclude={"extra"}).items() if v is not None}
        sampling["extra"] = {**self.sampling.extra, **own.sampling.extra}
        return self.model_copy(update={**changed, "sampling": self.sampling.model_copy(update=sampling), "roles": {}})

    def endpoint(self) -> EndpointSettings:
        """The connection part; raises ``ValueError`` where no ``base_url`` is set."""
        if not self.base_url:
            raise ValueError("model.base_url is not set: give an OpenAI-compatible endpoint, or serving=vllm")
        return EndpointSettings(base_url=self.base_url, api_key_env=self.api_key_env, **self.patience.model_dump())


class ServingSettings(Settings):
    """Where the model is served. ``endpoint``: by a server that runs already. ``vllm``: by one of the run's own.

    ``args`` are further ``vllm serve`` flags (``max-num-seqs: 64``; true: bare flag; false or null: left out);
    ``env`` its environment; it binds ``host`` (loopback) on a free port. ``startup_timeout`` in seconds.
    """

    name: Literal["endpoint", "vllm"] = "endpoint"
    host: str = "127.0.0.1"
    tensor_parallel_size: int = Field(default=1, ge=1)
    startup_timeout: float = Field(default=1800.0, gt=0)
    args: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)


class RunSettings(Settings):
    """A run, whatever the problems are and wherever it is written.

    ``concurrency``: calls in flight; ``active_problems``: problems open at once; ``seed``: of all draws and requests.
    """

    model: ModelSettings
    method: MethodSettings = Field(default_factory=TMASSettings, discriminator="name")
    serving: ServingSettings = ServingSettings()
    seed: int = 0
    concurrency: int = Field(default=800, ge=1)
    active_problems: int = Field(default=512, ge=1)
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _is_served(self) -> Self:
        if self.serving.name == "endpoint":
            for role in ROLES:
                self.model.for_role(role).endpoint()
        elif not self.model.path:
            raise ValueError("serving=vllm needs model.path: a folder or hub name to load")
        return self

    def identity(self) -> dict[str, Any]:
        """What the outcome depends on, flat: a run that differs in any of it is another run.

        Where the model is served, how patiently, with which key and how concurrently is not part of it.
        """
        models = {role: self.model.for_role(role) for role in ROLES}
        kept = {"name", "path", "context_length", "tokenizer", "send_seed", "sampling"}
        chosen = {"seed": self.seed, "method": self.method.model_dump(mode="json")}
        return flat({**chosen, "model": {role: m.model_dump(mode="json", include=kept) for role, m in models.items()}})

    def terms(self) -> dict[str, Any]:
        """What a finished problem was finished under: the method's settings and the limits."""
        return {"method": self.method.model_dump(mode="json"), "limits": self.limits.model_dump(mode="json")}


class SolveSettings(RunSettings):
    """Everything ``tmas solve`` takes; see conf/solve.yaml."""

    problems: Path
    output_dir: Path
    data: ProblemFields = ProblemFields()
    on_bad_problem: Literal["refuse", "skip"] = "refuse"
    max_problems: int | None = Field(default=None, ge=1)


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    items: dict[str, Any] = {}
    for key, value in nested.items():
        inner = isinstance(value, Mapping) and value
        items.update(flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value})
    return items
