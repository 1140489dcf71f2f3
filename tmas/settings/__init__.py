"""The settings of a run, typed and validated. Hydra composes them from conf/; Python callers build them directly."""

from tmas.settings.base import Paths, Settings, flatten, secret_names
from tmas.settings.model import ROLES, BaseUrl, ModelSettings, RoleOverride, SamplingOverride
from tmas.settings.run import Limits, RaySettings, RunSettings, SolveSettings
from tmas.settings.serving import ServingSettings

__all__ = [
    "ROLES",
    "BaseUrl",
    "Limits",
    "ModelSettings",
    "Paths",
    "RaySettings",
    "RoleOverride",
    "RunSettings",
    "SamplingOverride",
    "ServingSettings",
    "Settings",
    "SolveSettings",
    "flatten",
    "secret_names",
]
