"""TMAS: scaling test-time compute with a team of agents (arXiv 2605.10344).

The Python API is in ``__all__``: :func:`solve`, :func:`solve_all`, their ``async`` forms, their settings and records,
and :class:`UserError`. Names are imported when they are first used, so that a reward worker that needs only
``tmas.records`` does not load the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tmas.api import asolve, asolve_all, solve, solve_all
    from tmas.errors import UserError
    from tmas.methods.tmas import TMASSettings
    from tmas.problems.loader import load_problems
    from tmas.records import Failure, Problem, Result, Sampling
    from tmas.settings import Limits, ModelSettings, ServingSettings

_HOMES = {
    "Failure": "records",
    "Limits": "settings",
    "ModelSettings": "settings",
    "Problem": "records",
    "Result": "records",
    "Sampling": "records",
    "ServingSettings": "settings",
    "TMASSettings": "methods.tmas",
    "UserError": "errors",
    "asolve": "api",
    "asolve_all": "api",
    "load_problems": "problems.loader",
    "solve": "api",
    "solve_all": "api",
}
__all__ = [
    "Failure",
    "Limits",
    "ModelSettings",
    "Problem",
    "Result",
    "Sampling",
    "ServingSettings",
    "TMASSettings",
    "UserError",
    "asolve",
    "asolve_all",
    "load_problems",
    "solve",
    "solve_all",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":  # from the installed package; pyproject.toml is the only file that contains the version
        from importlib.metadata import version

        return version("tmas")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
