"""The settings of a run, typed and checked: what Hydra composes from conf/ and what Python callers build directly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from tmas.llm.endpoint import EndpointSettings, RetrySettings, TokenLimitField
from tmas.methods import AnyMethodSettings, all_roles
from tmas.methods.tmas import TMASSettings
from tmas.problems.loader import ProblemFields
from tmas.prompts import BUILT_IN, PromptsSetting
from tmas.records import Sampling

ROLES = all_roles()
"""The roles of all methods, the five of the paper first; each can have its own endpoint, model and sampling."""


class Settings(BaseModel):
    """Base: immutable, unknown keys refused; a wrong value is not repeated in the error (it could be a secret)."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


BaseUrl = str | Annotated[tuple[str, ...], Field(min_length=1)]
"""Of one server, or of several that serve the same model."""


class SamplingOverride(Settings):
    """What a role samples differently; null inherits. ``extra`` is merged."""

    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    extra: dict[str, JsonValue] = Field(default_factory=dict)


class RoleOverride(Settings):
    """What a role's model has of its own; null inherits from the model."""

    name: str | None = None
    base_url: BaseUrl | None = None
    api_key_env: str | None = None
    token_limit_field: TokenLimitField | None = None
    send_priority: bool | None = None
    context_length: int | None = Field(default=None, ge=64)
    tokenizer: str | None = None
    sampling: SamplingOverride = SamplingOverride()


class ModelSettings(Settings):
    """A model behind an OpenAI-compatible endpoint.

    ``name``: as the server knows it. ``base_url``: one, or those of several servers that share the calls. ``path``:
    folder or hub name that ``serving=vllm`` loads. ``context_length`` in tokens; null asks the server (vLLM tells).
    ``tokenizer``: ``auto`` takes ``path`` where there is one; a folder, a ``tokenizer.json`` or a hub name;
    ``estimate`` counts bytes. ``api_key_env``: the variable that holds the key. ``token_limit_field``: the field that
    the server takes ``max_tokens`` in; OpenAI's reasoning models take ``max_completion_tokens`` alone.
    ``send_priority``: with each request, for vLLM with ``--scheduling-policy priority``, as ``serving=vllm`` starts it.
    """

    name: str
    base_url: BaseUrl | None = None
    path: str | None = None
    api_key_env: str | None = None
    token_limit_field: TokenLimitField = "max_tokens"
    send_priority: bool = False
    context_length: int | None = Field(default=None, ge=64)
    tokenizer: str = "auto"
    send_seed: bool = True
    sampling: Sampling = Sampling()
    patience: RetrySettings = RetrySettings()
    roles: dict[str, RoleOverride] = Field(default_factory=dict)

    @field_validator("roles")
    @classmethod
    def _are_known(cls, roles: dict[str, RoleOverride]) -> dict[str, RoleOverride]:
        if unknown := sorted(roles.keys() - set(ROLES)):
            raise ValueError(f"no such role: {', '.join(unknown)} (there are {', '.join(ROLES)})")
        return roles

    def for_role(self, role: str) -> ModelSettings:
        """The settings with the role's own put over them. Another ``base_url`` inherits no key and no priority."""
        own = self.roles.get(role, RoleOverride())
        changed = {k: v for k, v in own.model_dump(exclude={"sampling"}).items() if v is not None}
        if own.base_url and own.base_url != self.base_url:
            changed.setdefault("api_key_env", None)
            changed.setdefault("send_priority", False)
        sampling = {k: v for k, v in own.sampling.model_dump(exclude={"extra"}).items() if v is not None}
        sampling["extra"] = {**self.sampling.extra, **own.sampling.extra}
        return self.model_copy(update={**changed, "sampling": self.sampling.model_copy(update=sampling), "roles": {}})

    def absolute(self) -> Self:
        """With local paths that hold in any working directory: those of Ray's processes are not this one's."""
        roles = {
            name: own.model_copy(update={"tokenizer": _absolute(own.tokenizer)}) for name, own in self.roles.items()
        }
        paths = {"path": _absolute(self.path), "tokenizer": _absolute(self.tokenizer)}
        return self.model_copy(update={**paths, "roles": roles})

    def endpoint(self) -> EndpointSettings:
        """The connection part; raises ``ValueError`` where no ``base_url`` is set."""
        if self.base_url in (None, ""):
            raise ValueError("model.base_url is not set: give an OpenAI-compatible endpoint, or serving=vllm")
        return EndpointSettings(
            base_url=self.base_url,
            api_key_env=self.api_key_env,
            token_limit_field=self.token_limit_field,
            send_priority=self.send_priority,
            **self.patience.model_dump(),
        )


def _absolute(name: str | None) -> str | None:
    """``name`` may be one of a hub: that stays as it is."""
    return str(Path(name).resolve()) if name and Path(name).exists() else name


SET_ELSEWHERE = {
    "host": "serving.host",
    "port": "the run itself",
    "served-model-name": "model.name",
    "tensor-parallel-size": "serving.tensor_parallel_size",
    "max-model-len": "model.context_length",
    "scheduling-policy": "the run itself",
    "api-key": "the run itself",
}
"""Flags of ``vllm serve`` that have a setting of their own."""
SAME_RESULTS = {
    "max-num-seqs", "max-num-batched-tokens", "gpu-memory-utilization", "cpu-offload-gb", "block-size",
    "enforce-eager", "compilation-config", "enable-prefix-caching", "async-scheduling",
    "pipeline-parallel-size", "data-parallel-size", "api-server-count",
    "stream-interval", "enable-prompt-tokens-details", "structured-outputs-config",
    "enable-log-requests", "disable-log-stats", "uvicorn-log-level", "download-dir",
}  # fmt: skip
"""Flags of ``vllm serve`` that set speed, memory, logs and the layout of JSON, not what the model computes."""


class ServingSettings(Settings):
    """Where the model is served. ``endpoint``: by servers that run already. ``vllm``: by some of the run's own.

    ``replicas`` servers, each on ``tensor_parallel_size`` GPUs of one node. One alone binds ``host`` (loopback) on this
    machine; several, or ``ray.address``, are placed by Ray and bind their nodes' addresses in the cluster. ``args`` are
    further ``vllm serve`` flags (``max-num-seqs: 64``; true: bare flag; false or null: left out); ``env`` its
    environment. ``startup_timeout`` in seconds.
    """

    name: Literal["endpoint", "vllm"] = "endpoint"
    host: str = "127.0.0.1"
    replicas: int = Field(default=1, ge=1)
    tensor_parallel_size: int = Field(default=1, ge=1)
    startup_timeout: float = Field(default=1800.0, gt=0)
    args: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)

    @field_validator("args")
    @classmethod
    def _are_free(cls, args: dict[str, Any]) -> dict[str, Any]:
        args = {name.replace("_", "-"): value for name, value in args.items()}  # vLLM takes both
        if taken := sorted(args.keys() & SET_ELSEWHERE.keys()):
            raise ValueError("; ".join(f"{name} is set by {SET_ELSEWHERE[name]}" for name in taken))
        if found := secrets_in(args):
            raise ValueError(f"settings are written down: no flag of theirs may hold a secret, as {found[0]} does")
        return args

    @field_validator("env")
    @classmethod
    def _holds_no_secret(cls, env: dict[str, str]) -> dict[str, str]:
        if found := secrets_in(env):
            raise ValueError(f"settings are written down: set {', '.join(found)} in the environment of the command")
        return env

    def base_url(self, port: int) -> str:
        """Of a server of the run's own on ``port``."""
        return f"http://{self.host}:{port}/v1"

    def identity(self) -> dict[str, Any]:
        """The flags in ``args`` that change what the model computes: all but those known not to."""
        given = {name: value for name, value in self.args.items() if value is not None and value is not False}
        return {f"serving.args.{name}": value for name, value in given.items() if name not in SAME_RESULTS}


class Limits(BaseModel):
    """Hard budgets in tokens, prompt and completion together; null: none. May be raised when a run is resumed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens_per_problem: int | None = Field(default=None, ge=1)
    tokens_per_run: int | None = Field(default=None, ge=1)


class RaySettings(Settings):
    """``address``: the Ray cluster to join (``auto``: this machine's); null: where one is needed it is started here.

    ``workers``: processes that work on the problems; null: one on each node. Where nothing asks for Ray (an address,
    workers, or several replicas) there is none, and the run's own process works on them.
    """

    address: str | None = None
    workers: int | None = Field(default=None, ge=1)


class RunSettings(Settings):
    """A run, whatever the problems are and wherever it is written.

    ``concurrency``: completions in flight; ``active_problems``: problems open at once; ``seed``: of all draws and
    requests. ``prompts``: a folder whose files replace built-in prompts.
    """

    model: ModelSettings
    method: AnyMethodSettings = Field(default_factory=TMASSettings)
    serving: ServingSettings = ServingSettings()
    seed: int = 0
    concurrency: int = Field(default=800, ge=1)
    active_problems: int = Field(default=512, ge=1)
    limits: Limits = Limits()
    ray: RaySettings = RaySettings()
    prompts: PromptsSetting = BUILT_IN

    @model_validator(mode="after")
    def _is_served(self) -> Self:
        if self.serving.name == "vllm" and not self.model.path:
            raise ValueError("serving=vllm needs model.path: a folder or hub name to load")
        for model in self.role_models().values():
            model.endpoint()
        return self

    @model_validator(mode="after")
    def _counts_tokens_in_one_place(self) -> Self:
        if self.limits.tokens_per_run and self.on_ray and self.ray.workers != 1:
            raise ValueError(
                "limits.tokens_per_run is counted in one process: on Ray it needs ray.workers=1 "
                "(limits.tokens_per_problem does not)"
            )
        return self

    @property
    def on_ray(self) -> bool:
        """Whether workers on a Ray cluster do the work, and Ray places the run's own servers."""
        several = self.serving.name == "vllm" and self.serving.replicas > 1
        return several or self.ray.address is not None or self.ray.workers is not None

    @property
    def serves_on_ray(self) -> bool:
        """Whether Ray places the run's own servers."""
        return self.serving.name == "vllm" and self.on_ray

    def role_models(self) -> dict[str, ModelSettings]:
        """The model of each role. One on the run's own servers has no ``base_url`` yet: ``()``."""
        model = self.model
        if self.serving.name == "vllm":
            model = model.model_copy(update={"base_url": (), "send_priority": True})
        return {role: model.for_role(role) for role in self.method.roles}

    def identity(self) -> dict[str, Any]:
        """What the outcome depends on, flat: a run that differs in any of it is another run.

        Where the model is served, how patiently, with which key and how concurrently is not part of it; the flags of
        a server of the run's own are, where they may change replies.
        """
        models = {role: self.model.for_role(role) for role in self.method.roles}
        kept = {"name", "path", "context_length", "tokenizer", "send_seed", "sampling"}
        chosen = {"seed": self.seed, "method": self.method.model_dump(mode="json")}
        plain = {role: m.model_dump(mode="json", include=kept) for role, m in models.items()}
        return {**flat({**chosen, "model": plain}), **self.serving.identity()}

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


def secrets_in(names: Iterable[str]) -> list[str]:
    """The names of environment variables that by their name hold a secret, which no setting may: it is written down."""
    return [name for name in names if re.search(r"(KEY|TOKEN|SECRET|PASSWORD)$", name, re.IGNORECASE)]


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    items: dict[str, Any] = {}
    for key, value in nested.items():
        inner = isinstance(value, Mapping) and value
        items.update(flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value})
    return items
