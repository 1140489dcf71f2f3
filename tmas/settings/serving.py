"""Where the model is served, and which flags of ``vllm serve`` may be set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from tmas.settings.base import Settings, secret_names

FLAGS_WITH_SETTING = {
    "host": "serving.host",
    "port": "the run itself",
    "served-model-name": "model.name",
    "tensor-parallel-size": "serving.tensor_parallel_size",
    "max-model-len": "model.context_length",
    "scheduling-policy": "the run itself",
    "api-key": "the run itself",
}
"""Flags of ``vllm serve`` that ``serving.args`` must not contain, with what sets them instead."""
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

    @field_validator("env", mode="before")
    @classmethod
    def _values_as_text(cls, env: Any) -> Any:
        """``serving.env.X=4`` means the text 4, and ``serving.env.X=true`` the text true."""
        if not isinstance(env, Mapping):
            return env
        return {key: str(v).lower() if isinstance(v, bool | int | float) else v for key, v in env.items()}

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
