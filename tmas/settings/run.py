"""The settings of a run: model, method, serving, limits and workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tmas.methods import AnyMethodSettings
from tmas.methods.tmas import TMASSettings
from tmas.problems.loader import ProblemFields
from tmas.prompts import BUILT_IN, PromptsSetting
from tmas.records.prices import ListPrice, Price
from tmas.settings.base import Settings, flatten
from tmas.settings.model import ModelSettings
from tmas.settings.serving import ServingSettings


def _is_none(value: object) -> bool:
    return value is None


class Limits(Settings):
    """Hard budgets, in tokens and in money. They can be raised when a run is resumed."""

    tokens_per_problem: int | None = Field(
        default=None, ge=1, description="Token budget of each problem, prompt and completion together. null: no limit."
    )
    tokens_per_run: int | None = Field(
        default=None,
        ge=1,
        description="Token budget of the whole run, prompt and completion together. null: no limit. On Ray it needs"
        " ray.workers=1, or a method that divides it between the problems (method.allocation).",
    )
    # Left out on disk if there is no budget in money, because older versions did not write these limits.
    money_per_problem: float | None = Field(
        default=None,
        gt=0,
        description="Budget of each problem in money, in the currency of the prices. Needs the price of every role's"
        " model. null: no limit.",
        exclude_if=_is_none,
    )
    money_per_run: float | None = Field(
        default=None,
        gt=0,
        description="Budget of the whole run in money, in the currency of the prices. Needs the price of every role's"
        " model. On Ray it needs ray.workers=1, or a method that divides it between the problems"
        " (method.allocation). null: no limit.",
        exclude_if=_is_none,
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
    share_reserve: float = Field(
        default=0.5,
        ge=0,
        description="Reserve for each iteration, as a fraction of its expected cost. If a problem's share of the budget"
        " does not cover the cost and the reserve, the problem takes the rest from the pool of unused shares. It waits"
        " until the pool covers the cost; the reserve is only taken if the pool has it. Only used with several workers"
        " and a method that divides the run's budget.",
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
    limits: Limits = Field(default=Limits(), description="Hard budgets, in tokens and in money.")
    prices: dict[str, ListPrice] = Field(
        default_factory=dict,
        description="List prices by the model's name, which must be equal to model.name. A price in model.price"
        " takes precedence.",
    )
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
        for unit in ("tokens", "money"):
            if getattr(self.limits, f"{unit}_per_run") and self.has_several_workers and not self.method.allocates:
                raise ValueError(
                    f"limits.{unit}_per_run is counted in one process: on Ray it needs ray.workers=1, or a method that "
                    f"divides it (method.allocation). limits.{unit}_per_problem works with any number of workers"
                )
        return self

    @model_validator(mode="after")
    def _prices_fit_together(self) -> Self:
        prices = self.role_prices()
        if len(currencies := {price.currency for price in prices.values()}) > 1:
            raise ValueError(
                f"prices in several currencies ({', '.join(sorted(currencies))}): give all in the same one"
            )
        is_limited = self.limits.money_per_problem is not None or self.limits.money_per_run is not None
        if is_limited and (missing := self.roles_without_price()):
            models = ", ".join(f"{name} ({', '.join(roles)})" for name, roles in missing.items())
            raise ValueError(
                f"limits: a budget in money needs the price of every model, and that of {models} is not known: set"
                " model.price.input and model.price.output, or those of model.roles.ROLE"
            )
        return self

    @property
    def on_ray(self) -> bool:
        """Whether workers on a Ray cluster do the work, and Ray places the run's own servers."""
        several = self.serving.name == "vllm" and self.serving.replicas > 1
        return several or self.ray.address is not None or self.ray.workers is not None

    @property
    def has_several_workers(self) -> bool:
        """Whether Ray workers make the calls, and ``ray.workers`` is not 1.

        With ``ray.workers=null``, there may still be only one worker: on a cluster of one node.
        """
        return self.on_ray and self.ray.workers != 1

    @property
    def has_run_budget(self) -> bool:
        return self.limits.tokens_per_run is not None or self.limits.money_per_run is not None

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

    def role_prices(self) -> dict[str, Price]:
        """The price of each role's model, without the roles for which none is known.

        It is ``model.price``. If that is not set, it is the row of ``prices`` with the model's name, unless that row
        names a ``host`` other than the model's.
        """
        found: dict[str, Price] = {}
        for role, model in self.role_models().items():
            listed = self.prices.get(model.name)
            if model.price.is_known:
                found[role] = model.price
            elif listed is not None and listed.is_known and (not listed.host or model.hosts == {listed.host}):
                found[role] = listed.plain
        return found

    def roles_without_price(self) -> dict[str, list[str]]:
        """The models without a known price, by name, and the roles that they play."""
        known, missing = self.role_prices(), dict[str, list[str]]()
        for role, model in self.role_models().items():
            if role not in known:
                missing.setdefault(model.name, []).append(role)
        return missing

    @property
    def currency(self) -> str | None:
        """Currency of the prices. None if the price of some model is not known, because the cost is then unknown."""
        prices = list(self.role_prices().values())
        return prices[0].currency if prices and not self.roles_without_price() else None

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
        " problems=hub loads the Hugging Face data set of the preset data=NAME.",
    )
    output_dir: Path = Field(description="Run directory. Run the same command again to resume in it.")
    data: ProblemFields = Field(default=ProblemFields(), description="Names of the columns in the problem file.")
    on_bad_problem: Literal["refuse", "skip"] = Field(
        default="refuse", description="refuse: stop if a row is invalid. skip: leave invalid rows out and report them."
    )
    max_problems: int | None = Field(
        default=None, ge=1, description="Number of problems to solve, from the beginning of the file. null: all."
    )
    dry_run: bool = Field(
        default=False,
        description="Print an estimate of calls, tokens and money, and stop. It uses the measured usage of problems"
        " that are finished in output_dir. Without any, only method=tmas has an estimate, from expected lengths.",
    )
