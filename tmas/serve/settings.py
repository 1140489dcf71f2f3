"""The settings of ``tmas serve``. Their values are in conf/serve.yaml."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tmas.llm.endpoint import read_key
from tmas.methods import AnyMethodSettings
from tmas.methods.tmas import TMASSettings
from tmas.prompts import BUILT_IN, PromptsSetting
from tmas.records.prices import ListPrice
from tmas.serve.models import RequestLimits, ServedModel, served_models
from tmas.settings import ModelSettings, RaySettings, RunSettings, ServingSettings, Settings


class ServerSettings(Settings):
    """The HTTP server: its address, its key and its limits."""

    output_dir: Path = Field(
        description="Folder for the run directories of requests, each named after the request's id."
    )
    keep_runs: bool = Field(
        default=True, description="Keep the run directory of a request. false: delete it when the request has ended."
    )
    host: str = Field(
        default="127.0.0.1", description="Address to listen on. Addresses other than loopback need api_key_env."
    )
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on. 0: any free port.")
    api_key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="NAME of the environment variable that holds the key that clients must send. null: no key.",
    )
    models: dict[str, ServedModel] | None = Field(
        default=None,
        description="Further names that the field model of a request may have, each with a method. null: only the name"
        " of the main method (the setting method).",
    )
    strict: bool = Field(
        default=False,
        description="Refuse request fields without effect, temperature and top_p, system messages and conversations."
        " false: apply them as docs/serve.md says, or ignore them and name them in the response (tmas.ignored).",
    )
    conversation: Literal["context", "last"] = Field(
        default="context",
        description="What happens to system messages and earlier turns. context: they are shown to all agents with the"
        " problem, which is the last user message. last: they are ignored.",
    )
    apply_sampling: bool = Field(
        default=True,
        description="Sample the candidates (the role solution) with the temperature and top_p of a request. false:"
        " ignore both.",
    )
    min_temperature: float = Field(
        default=0.1,
        ge=0,
        description="A lower temperature of a request is ignored, because all candidates of a prompt would be nearly"
        " the same. 0: apply every temperature.",
    )
    metrics_key: bool = Field(
        default=True,
        description="Whether /metrics needs the key, if the server has one. false: everyone who reaches the server can"
        " read its metrics.",
    )
    max_running: int = Field(default=8, ge=1, description="Requests that are solved at once.")
    max_waiting: int = Field(
        default=16,
        ge=0,
        description="Requests that wait in line, in addition to max_running. Others are refused with status 429.",
    )
    max_connections: int = Field(
        default=512,
        ge=1,
        description="Open connections, including clients without the key. At the limit, a new one replaces the oldest"
        " one whose request is not being solved. The limit is half of the files that the process may open (ulimit -n),"
        " if that is less.",
    )
    header_seconds: float = Field(
        default=10.0, gt=0, description="Seconds from the opening of a connection until its first header is complete."
    )
    body_seconds: float = Field(default=60.0, gt=0, description="Seconds for the body of a request, after its header.")
    idle_seconds: float = Field(
        default=75.0,
        gt=0,
        description="Seconds from a response until the header of the connection's next request is complete. Should be"
        " longer than a reverse proxy keeps its connections open.",
    )
    max_request_bytes: int = Field(default=1_000_000, ge=1, description="Largest request body in bytes.")
    max_question_characters: int = Field(
        default=50_000, ge=1, description="Longest problem in characters, with the messages that are shown with it."
    )
    most: RequestLimits = Field(default=RequestLimits(), description="Upper limits of what a request may ask for.")
    drain_seconds: float = Field(
        default=30.0, ge=0, description="Seconds that running and waiting requests may continue after SIGTERM."
    )

    @model_validator(mode="after")
    def _needs_key_unless_loopback(self) -> Self:
        if self.api_key_env is None and not is_loopback(self.host):
            raise ValueError(f"serve.host={self.host} can be reached by others: set serve.api_key_env")
        return self

    @model_validator(mode="after")
    def _has_connections_for_all_requests(self) -> Self:
        if self.max_connections <= self.max_running + self.max_waiting:
            raise ValueError(
                f"max_connections={self.max_connections} must be more than max_running + max_waiting ="
                f" {self.max_running + self.max_waiting}: every request needs one, and /health another"
            )
        return self

    def read_key(self) -> str | None:
        """The API key that clients must send, or None. Raises ``UserError`` if its environment variable is not set."""
        return self.api_key_env and read_key(self.api_key_env, "serve.api_key_env")


class ServeSettings(Settings):
    """All settings of ``tmas serve``."""

    model: ModelSettings = Field(description="The model that plays the roles.")
    method: AnyMethodSettings = Field(
        default_factory=TMASSettings, description="The method, and its settings for requests that do not set them."
    )
    serving: ServingSettings = Field(default=ServingSettings(), description="Where the model is served.")
    concurrency: int = Field(
        default=800, ge=1, description="Completions in flight at once, over all requests together."
    )
    ray: RaySettings = Field(
        default=RaySettings(),
        description="Ray cluster for serving=vllm with several replicas; the server itself uses no workers.",
    )
    prompts: PromptsSetting = Field(
        default=BUILT_IN,
        description="Folder whose .jinja files replace built-in prompts (docs/prompts.md). null: the built-in prompts.",
    )
    prices: dict[str, ListPrice] = Field(
        default_factory=dict, description="List prices by the model's name. A price in model.price is used first."
    )
    serve: ServerSettings = Field(description="The HTTP server.")

    @field_validator("serve")
    @classmethod
    def _method_is_within_limits(cls, serve: ServerSettings, info: Any) -> ServerSettings:
        """The method's own settings, which requests without overrides use, must be within the limits."""
        most, method = serve.most.model_dump(exclude_none=True), info.data.get("method")
        for name, limit in most.items():
            if (default := getattr(method, name, limit)) > limit:
                raise ValueError(
                    f"most.{name}={limit} is less than method.{name}={default}: raise the limit or lower the setting"
                )
        return serve

    @model_validator(mode="after")
    def _has_no_unused_ray_settings(self) -> Self:
        """Refuse Ray settings without effect: the server solves requests itself, and Ray only places replicas."""
        if self.ray.workers:
            raise ValueError("ray.workers: tmas serve solves requests in its own process; leave it out")
        if self.ray.address and self.serving.name != "vllm":
            raise ValueError("ray.address: without serving=vllm there is nothing to place on a cluster")
        return self

    def run_settings(self) -> RunSettings:
        """Run settings for a request without overrides to the main method (the setting ``method``)."""
        names = ("model", "method", "serving", "concurrency", "ray", "prompts", "prices")
        return RunSettings(**{name: getattr(self, name) for name in names})

    @cached_property
    def served_models(self) -> Mapping[str, RunSettings]:
        """Run settings for a request without overrides, for each name that the field ``model`` may have.

        Raises pydantic's ``ValidationError`` for a method that cannot be lowered to ``serve.most``.
        """
        return served_models(self.run_settings(), self.serve.models, self.serve.most)


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an address, can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
