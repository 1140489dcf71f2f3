"""The settings of a run, typed and validated. Hydra composes them from conf/; Python callers build them directly."""

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
"""The roles of all methods, the paper's five roles first. Each role can have its own endpoint, model and sampling."""


class Settings(BaseModel):
    """Base class of settings: immutable, and unknown keys are errors. Errors hide wrong values (secrets)."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


BaseUrl = str | Annotated[tuple[str, ...], Field(min_length=1)]
"""The base URL of one server, or the base URLs of several servers of the same model."""


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


class RoleOverride(Settings):
    """Settings of one role's model that differ from those of the model."""

    name: str | None = Field(default=None, description="This role's model, as its server calls it. null: model.name.")
    base_url: BaseUrl | None = Field(
        default=None,
        description="This role's server or servers. null: model.base_url. Another server gets neither the key nor the"
        " priority of the model.",
    )
    api_key_env: str | None = Field(
        default=None,
        description="NAME of the environment variable that holds this role's key. null: model.api_key_env.",
    )
    token_limit_field: TokenLimitField | None = Field(
        default=None, description="Request field for the completion limit. null: model.token_limit_field."
    )
    send_priority: bool | None = Field(
        default=None, description="Whether requests carry vLLM's priority. null: model.send_priority."
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


class ModelSettings(Settings):
    """A model behind an OpenAI-compatible server."""

    name: str = Field(description="The model, as its server calls it.")
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
        " up to sampling.max_tokens; prompts use at most half of it, unless sampling.max_tokens is smaller. null:"
        " only context_length limits the window, and every prompt leaves sampling.max_tokens free for its completion."
        " The paper: 130000.",
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
    patience: RetrySettings = Field(default=RetrySettings(), description="Time limits and retries.")
    roles: dict[str, RoleOverride] = Field(
        default_factory=dict, description="Settings of single roles that differ from those of the model."
    )

    @field_validator("roles")
    @classmethod
    def _roles_exist(cls, roles: dict[str, RoleOverride]) -> dict[str, RoleOverride]:
        if unknown := sorted(roles.keys() - set(ROLES)):
            raise ValueError(f"no such role: {', '.join(unknown)} (there are {', '.join(ROLES)})")
        return roles

    def for_role(self, role: str) -> ModelSettings:
        """The model settings of ``role`` with its overrides. Another ``base_url`` inherits no key and no priority."""
        own = self.roles.get(role, RoleOverride())
        changed = {k: v for k, v in own.model_dump(exclude={"sampling"}).items() if v is not None}
        if own.base_url and own.base_url != self.base_url:
            changed.setdefault("api_key_env", None)
            changed.setdefault("send_priority", False)
        sampling = {k: v for k, v in own.sampling.model_dump(exclude={"extra"}).items() if v is not None}
        sampling["extra"] = {**self.sampling.extra, **own.sampling.extra}
        return self.model_copy(update={**changed, "sampling": self.sampling.model_copy(update=sampling), "roles": {}})

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


FLAGS_WITH_SETTING = {
    "host": "serving.host",
    "port": "the run itself",
    "served-model-name": "model.name",
    "tensor-parallel-size": "serving.tensor_parallel_size",
    "max-model-len": "model.context_length",
    "scheduling-policy": "the run itself",
    "api-key": "the run itself",
}
"""Flags of ``vllm serve`` that another setting sets, with that setting."""
FLAGS_WITHOUT_EFFECT_ON_REPLIES = {
    "max-num-seqs", "max-num-batched-tokens", "gpu-memory-utilization", "cpu-offload-gb", "block-size",
    "enforce-eager", "compilation-config", "enable-prefix-caching", "async-scheduling",
    "pipeline-parallel-size", "data-parallel-size", "api-server-count",
    "stream-interval", "enable-prompt-tokens-details", "structured-outputs-config",
    "enable-log-requests", "disable-log-stats", "uvicorn-log-level", "download-dir",
}  # fmt: skip
"""Flags of ``vllm serve`` for speed, memory, logs and JSON layout. They do not change what the model computes."""


class ServingSettings(Settings):
    """Where the model is served: by running servers, or by vLLM servers that the run starts."""

    name: Literal["endpoint", "vllm"] = Field(
        default="endpoint",
        description="endpoint: use the running server at model.base_url. vllm: start vLLM for this run and stop it"
        " afterwards.",
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address that a single vLLM server binds. Several servers, or those on Ray, bind their nodes'"
        " addresses.",
    )
    replicas: int = Field(
        default=1, ge=1, description="Number of vLLM servers. More than one are placed on a Ray cluster (ray.address)."
    )
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs of each vLLM server, all on one node.")
    startup_timeout: float = Field(
        default=1800.0, gt=0, description="Seconds that a vLLM server may take to load the model and answer."
    )
    args: dict[str, str | int | float | bool | None] = Field(
        default_factory=dict,
        description="Further flags of vllm serve, such as max-num-seqs: 64. true: a flag without a value. false or"
        " null: leave the flag out. A flag that can change replies (dtype, quantization, ...) cannot change on resume.",
    )
    env: dict[str, str] = Field(
        default_factory=dict, description="Environment variables of the vLLM servers. Must not hold secrets."
    )

    @field_validator("args")
    @classmethod
    def _flags_are_allowed(cls, args: dict[str, Any]) -> dict[str, Any]:
        args = {name.replace("_", "-"): value for name, value in args.items()}  # vLLM accepts both spellings
        if taken := sorted(args.keys() & FLAGS_WITH_SETTING.keys()):
            raise ValueError("; ".join(f"{name} is set by {FLAGS_WITH_SETTING[name]}" for name in taken))
        if names := secret_names(args):
            raise ValueError(f"settings are written to disk, so no flag may hold a secret: remove {', '.join(names)}")
        return args

    @field_validator("env")
    @classmethod
    def _has_no_secrets(cls, env: dict[str, str]) -> dict[str, str]:
        if names := secret_names(env):
            raise ValueError(
                f"settings are written to disk: set {', '.join(names)} in the command's environment instead"
            )
        return env

    def base_url(self, port: int) -> str:
        """The base URL of the run's own server on ``port``."""
        return f"http://{self.host}:{port}/v1"

    def identity(self) -> dict[str, Any]:
        """This class's part of the fingerprint: the flags in ``args`` that may change what the model computes."""
        flags = {name: value for name, value in self.args.items() if value is not None and value is not False}
        return {
            f"serving.args.{name}": value
            for name, value in flags.items()
            if name not in FLAGS_WITHOUT_EFFECT_ON_REPLIES
        }


class Limits(BaseModel):
    """Hard token budgets. They can be raised when a run is resumed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens_per_problem: int | None = Field(
        default=None, ge=1, description="Token budget of each problem, prompt and completion together. null: no limit."
    )
    tokens_per_run: int | None = Field(
        default=None,
        ge=1,
        description="Token budget of the whole run, prompt and completion together. null: no limit. On Ray it needs"
        " ray.workers=1.",
    )


class RaySettings(Settings):
    """How the work is distributed over a Ray cluster (docs/ray.md)."""

    address: str | None = Field(
        default=None,
        description="Ray cluster to join: HOST:6379, or auto for the cluster of this machine. null: start a cluster on"
        " this machine if one is needed, and stop it with the command.",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        description="Number of Ray worker processes that solve problems. null: one on each node if Ray is used,"
        " otherwise the command's own process. output_dir must be on storage that all nodes share.",
    )


class RunSettings(Settings):
    """Settings of a run, without its problems and its run directory."""

    model: ModelSettings = Field(description="The model that plays the roles.")
    method: AnyMethodSettings = Field(default_factory=TMASSettings, description="The method and its settings.")
    serving: ServingSettings = Field(default=ServingSettings(), description="Where the model is served.")
    seed: int = Field(default=0, description="Seed of all random draws and of every request.")
    concurrency: int = Field(
        default=800,
        ge=1,
        description="Completions in flight at once; a request for several completions counts as several.",
    )
    active_problems: int = Field(default=512, ge=1, description="Problems that are worked on at once.")
    limits: Limits = Field(default=Limits(), description="Hard token budgets.")
    ray: RaySettings = Field(default=RaySettings(), description="How the work is spread over a Ray cluster.")
    prompts: PromptsSetting = Field(
        default=BUILT_IN,
        description="Folder whose .jinja files replace built-in prompts (docs/prompts.md); tmas prompts FOLDER writes"
        " the built-in ones. null: the built-in prompts.",
    )

    @model_validator(mode="after")
    def _has_servers(self) -> Self:
        if self.serving.name == "vllm" and not self.model.path:
            raise ValueError("serving=vllm needs model.path: a folder or hub name to load")
        for model in self.role_models().values():
            model.endpoint()
        return self

    @model_validator(mode="after")
    def _run_budget_needs_one_process(self) -> Self:
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
        """The model settings of each role. For the run's own servers, ``base_url`` is ``()``: it is not known yet."""
        model = self.model
        if self.serving.name == "vllm":
            model = model.model_copy(update={"base_url": (), "send_priority": True})
        return {role: model.for_role(role) for role in self.method.roles}

    def identity(self) -> dict[str, Any]:
        """Fingerprint of the run: the settings that the outcome depends on, by dotted key.

        A run can only be resumed with the same fingerprint. Addresses, retries, API keys and concurrency are not part
        of it. The flags of the run's own servers are part of it if they may change replies.
        """
        models = {role: self.model.for_role(role) for role in self.method.roles}
        included = {"name", "path", "context_length", "tokenizer", "send_seed", "sampling", "max_window_tokens"}
        settings = {"seed": self.seed, "method": self.method.model_dump(mode="json")}
        plain = {role: m.model_dump(mode="json", include=included) for role, m in models.items()}
        for model in plain.values():  # keep the fingerprint of runs from before this setting existed
            if model["max_window_tokens"] is None:
                del model["max_window_tokens"]
        return {**flatten({**settings, "model": plain}), **self.serving.identity()}

    def terms(self) -> dict[str, Any]:
        """The settings that decide whether a finished problem must be continued on resume: method and limits."""
        return {"method": self.method.model_dump(mode="json"), "limits": self.limits.model_dump(mode="json")}


class SolveSettings(RunSettings):
    """All settings of ``tmas solve``."""

    problems: Path = Field(
        description="Problem file (JSONL, JSON, CSV or parquet). sample: a few problems that ship with the package."
        " hub: the Hugging Face data set that data=NAME names.",
    )
    output_dir: Path = Field(description="Run directory. Run the same command again to resume in it.")
    data: ProblemFields = Field(default=ProblemFields(), description="Names of the columns in the problem file.")
    on_bad_problem: Literal["refuse", "skip"] = Field(
        default="refuse", description="refuse: stop if a row is invalid. skip: leave invalid rows out and report them."
    )
    max_problems: int | None = Field(
        default=None, ge=1, description="Solve only the first problems, this many. null: all."
    )


def secret_names(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that look like secrets. Settings must not contain them: settings are written to disk."""
    return [name for name in names if re.search(r"(KEY|TOKEN|SECRET|PASSWORD)$", name, re.IGNORECASE)]


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys. ``prefix``: put before each key."""
    items: dict[str, Any] = {}
    for key, value in nested.items():
        inner = isinstance(value, Mapping) and value
        items.update(flatten(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value})
    return items
