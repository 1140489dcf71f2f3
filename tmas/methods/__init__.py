"""The methods by name. To add a method, add a file here, a line to ``METHODS``, and a config in conf/method/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from tmas.methods.base import Method, MethodSettings
from tmas.methods.best_of_n import BestOfN
from tmas.methods.genselect import GenSelect
from tmas.methods.majority_vote import MajorityVote
from tmas.methods.pacore import PaCoRe
from tmas.methods.rsa import RSA
from tmas.methods.rse import RSE
from tmas.methods.self_refine import SelfRefine
from tmas.methods.tmas import TMAS
from tmas.methods.verify_refine import VerifyRefine

METHODS: dict[str, type[Method[Any]]] = {
    "tmas": TMAS,
    "majority_vote": MajorityVote,
    "best_of_n": BestOfN,
    "self_refine": SelfRefine,
    "verify_refine": VerifyRefine,
    "pacore": PaCoRe,
    "rse": RSE,
    "rsa": RSA,
    "genselect": GenSelect,
}


def _validate_by_name(settings: Any) -> Any:
    """Validate plain settings as the settings of the method that they name."""
    if not isinstance(settings, Mapping):
        return settings
    name = settings.get("name")
    if name not in METHODS:
        raise ValueError(f"no such method: {name!r} (choose from {', '.join(METHODS)})")
    return METHODS[name].settings_type.model_validate(settings)


AnyMethodSettings = Annotated[MethodSettings, BeforeValidator(_validate_by_name)]
"""Field type for the settings of any method: a mapping is validated as the settings of the method in its ``name``."""


def all_roles() -> tuple[str, ...]:
    """Every role that some method calls."""
    return tuple(dict.fromkeys(role for method in METHODS.values() for role in method.settings_type.roles))
