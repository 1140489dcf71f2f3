"""The settings of ``tmas serve``: conf/serve.yaml."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from tmas.llm.endpoint import read_key
from tmas.methods import AnyMethodSettings
from tmas.methods.tmas import TMASSettings
from tmas.prompts import BUILT_IN, PromptsSetting
from tmas.settings import ModelSettings, RaySettings, RunSettings, ServingSettings, Settings


class RequestLimits(Settings):
    """The most that a request may ask for; null: what the method is set to, and for tokens: no limit.

    ``tokens_per_problem``: prompt and completion together; also of requests that name none.
    """

    n_candidates: int | None = Field(default=None, ge=1)
    n_verifications: int | None = Field(default=None, ge=1)
    max_iterations: int | None = Field(default=None, ge=1)
    tokens_per_problem: int | None = Field(default=None, ge=1)


class ServerSettings(Settings):
    """The server itself.

    ``api_key_env`` names the environment variable that holds the key that clients must send; without it the server
    binds loopback alone. ``output_dir``: each request's run directory is in it, under the request's id; ``keep_runs``
    False: until the request has ended. ``max_running``: requests being solved; ``max_waiting``: beside them, in line.
    ``drain_seconds``: for which running requests may go on after SIGTERM.
    """

    output_dir: Path
    keep_runs: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    max_running: int = Field(default=8, ge=1)
    max_waiting: int = Field(default=16, ge=0)
    max_request_bytes: int = Field(default=1_000_000, ge=1)
    max_question_characters: int = Field(default=50_000, ge=1)
    most: RequestLimits = RequestLimits()
    drain_seconds: float = Field(default=30.0, ge=0)

    @model_validator(mode="after")
    def _is_private_or_locked(self) -> Self:
        if self.api_key_env is None and not is_loopback(self.host):
            raise ValueError(f"serve.host={self.host} can be reached by others: set serve.api_key_env")
        return self

    def read_key(self) -> str | None:
        """The key that clients must send; None where none is asked for."""
        return self.api_key_env and read_key(self.api_key_env, "serve.api_key_env")


class ServeSettings(Settings):
    """Everything ``tmas serve`` takes; see conf/serve.yaml."""

    model: ModelSettings
    method: AnyMethodSettings = Field(default_factory=TMASSettings)
    serving: ServingSettings = ServingSettings()
    concurrency: int = Field(default=800, ge=1)
    ray: RaySettings = RaySettings()
    prompts: PromptsSetting = BUILT_IN
    serve: ServerSettings

    @field_validator("serve")
    @classmethod
    def _allows_the_method(cls, serve: ServerSettings, info: Any) -> ServerSettings:
        """A request that names nothing gets the method as it is set: that must be within the limits."""
        most, method = serve.most.model_dump(exclude_none=True), info.data.get("method")
        for name, limit in most.items():
            if (given := getattr(method, name, limit)) > limit:
                raise ValueError(f"most.{name}={limit} is less than method.{name}={given}")
        return serve

    @model_validator(mode="after")
    def _asks_for_no_idle_ray(self) -> Self:
        """Requests are worked on by the server's own process: Ray only places replicas."""
        if self.ray.workers:
            raise ValueError("ray.workers: the server's own process works on the requests; leave it out")
        if self.ray.address and self.serving.name != "vllm":
            raise ValueError("ray.address: without serving=vllm there is nothing to place on a cluster")
        return self

    def run(self) -> RunSettings:
        """Of a request that names nothing."""
        shared = {name: getattr(self, name) for name in ("model", "method", "serving", "concurrency", "ray", "prompts")}
        return RunSettings(**shared)


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an address, is this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
