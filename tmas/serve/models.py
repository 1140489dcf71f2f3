"""The models that ``tmas serve`` offers: each name stands for a method with its settings.

The method of the setting ``method`` has its own name, such as ``tmas``. ``serve.models`` adds further names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from tmas.methods import AnyMethodSettings
from tmas.methods.base import MethodSettings
from tmas.redaction import clean_logger
from tmas.serve.errors import ApiError
from tmas.settings import ROLES, ModelSettings, RoleOverride, RunSettings, SamplingOverride, Settings

log = clean_logger(__name__)


class RequestLimits(Settings):
    """Upper limits of what a request may ask for."""

    n_candidates: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of candidates that a request may ask for. null: the value of the requested method.",
    )
    n_verifications: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of verifications per candidate that a request may ask for. null: the value of the"
        " requested method.",
    )
    max_iterations: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of iterations that a request may ask for. null: the value of the requested method.",
    )
    tokens_per_problem: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of tokens, prompt and completion together, that a request may use, whether the"
        " request sets a limit or not. null: no limit.",
    )

    def lowered(self, method: MethodSettings, name: str) -> MethodSettings:
        """``method`` with every setting that is above its limit lowered to the limit. ``name``: for the log."""
        limits = self.model_dump(exclude={"tokens_per_problem"}, exclude_none=True)
        lower = {key: limit for key, limit in limits.items() if getattr(method, key, limit) > limit}
        if not lower:
            return method
        shown = ", ".join(f"{key}={limit}" for key, limit in lower.items())
        log.warning("serve.models.%s: lowered to the limits of serve.most: %s", name, shown)
        return type(method).model_validate(method.model_dump() | lower)


class RoleDecoding(Settings):
    """Decoding settings of one role of a served model."""

    sampling: SamplingOverride = Field(default=SamplingOverride(), description="Decoding settings of this role.")


class Decoding(Settings):
    """Decoding settings of a served model that differ from those under ``model``."""

    sampling: SamplingOverride = Field(default=SamplingOverride(), description="Decoding settings of all roles.")
    roles: dict[str, RoleDecoding] = Field(default_factory=dict, description="Decoding settings of single roles.")

    @field_validator("roles")
    @classmethod
    def _roles_exist(cls, roles: dict[str, RoleDecoding]) -> dict[str, RoleDecoding]:
        if unknown := sorted(roles.keys() - set(ROLES)):
            raise ValueError(f"no such role: {', '.join(unknown)} (choose from {', '.join(ROLES)})")
        return roles

    def over(self, model: ModelSettings) -> ModelSettings:
        """``model`` with these decoding settings."""
        roles = dict(model.roles)
        for role, own in self.roles.items():
            override = roles.get(role, RoleOverride())
            roles[role] = override.model_copy(update={"sampling": own.sampling.over(override.sampling)})
        return model.model_copy(update={"sampling": self.sampling.over(model.sampling), "roles": roles})


class ServedModel(Settings):
    """A name that requests can ask for, in addition to that of ``method``."""

    method: AnyMethodSettings = Field(
        description="The method behind this name. Its settings apply to requests that do not set them. An entry with "
        "the name of the server's main method (the setting method, tmas by default) is not used: that "
        "model is defined by the setting method."
    )
    model: Decoding = Field(
        default=Decoding(), description="Decoding settings of this method that differ from those under model."
    )


def served_models(
    default: RunSettings, models: Mapping[str, ServedModel] | None, limits: RequestLimits
) -> dict[str, RunSettings]:
    """The run settings behind each name, the name of the default method first. ``models`` are lowered to ``limits``.

    Raises pydantic's ``ValidationError`` if a method cannot have the value of a limit.
    """
    shared: dict[str, Any] = {name: getattr(default, name) for name in RunSettings.model_fields}
    served = {default.method.name: default}
    for name, entry in (models or {}).items():
        if name not in served:
            own = {"method": limits.lowered(entry.method, name), "model": entry.model.over(default.model)}
            served[name] = RunSettings(**(shared | own))
    return served


def settings_of(name: str, models: Mapping[str, RunSettings]) -> RunSettings:
    """The run settings behind ``name``. Raises :class:`ApiError` if there is no such model."""
    if name not in models:
        message = f"there is no model {name[:100]!r} here, only {', '.join(models)}"
        raise ApiError(404, "model_not_found", message, "model")
    return models[name]


def with_sampling(settings: RunSettings, **values: float | None) -> RunSettings:
    """``settings`` with ``values`` for sampling the candidates (the role ``solution``); None changes nothing."""
    changed = {name: value for name, value in values.items() if value is not None}
    if not changed:
        return settings
    decoding = Decoding.model_validate({"roles": {"solution": {"sampling": changed}}})
    return settings.model_copy(update={"model": decoding.over(settings.model)})
