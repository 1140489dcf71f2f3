"""What all settings share: their base class, dotted keys, and the search for secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path) else value


Paths = Annotated[tuple[Path, ...], BeforeValidator(_as_tuple)]
"""Field type for a list of paths. A single path is a list of one, so that KEY=DIR works like KEY=[DIR]."""


class Settings(BaseModel):
    """Base class of settings: immutable, and unknown keys are errors.

    Errors do not show wrong values, because they may be secrets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def secret_names(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that look like secrets. Settings must not contain them: settings are written to disk."""
    return [name for name in names if re.search(r"(KEY|TOKEN|SECRET|PASSWORD)$", name, re.IGNORECASE)]


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys. ``prefix``: put before each key. An empty mapping is a value."""
    items: dict[str, Any] = {}
    for key, value in nested.items():
        is_nested = isinstance(value, Mapping) and value
        items.update(flatten(value, f"{prefix}{key}.") if is_nested else {f"{prefix}{key}": value})
    return items
