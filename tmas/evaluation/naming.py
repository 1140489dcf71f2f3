"""Names groups of runs: by their method, and groups of one method by the settings in which they differ."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

MAX_NAMED = 3
"""Maximum number of settings in a name. More are counted."""
MAX_VALUE_CHARS = 24
"""Maximum number of characters of a value in a name."""
_OF_A_ROLE = re.compile(r"model\.(\w+)\.(.+)")


def is_repeated(key: str, settings: Mapping[str, Any]) -> bool:
    """Return whether a role's model has the same value of this setting as the solver's model.

    Such a setting says nothing new. If it were kept, groups that call different roles would differ in dozens of
    settings.
    """
    of_role = _OF_A_ROLE.fullmatch(key)
    if of_role is None or of_role[1] == "solution":
        return False
    return settings.get(f"model.solution.{of_role[2]}") == settings[key]


def own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without the seed and without those that :func:`is_repeated` finds."""
    return {key: value for key, value in settings.items() if key != "seed" and not is_repeated(key, settings)}


def group_names(methods: Sequence[str], settings: Sequence[Mapping[str, Any]], runs: Sequence[str]) -> list[str]:
    """Return a different name for each group.

    A group that is the only one of its method is named after the method. Others get the settings in which the groups of
    the method differ: ``tmas (epsilon=0.4)``. If there are more than :data:`MAX_NAMED`, each group gets those in which
    it differs from the value that most groups have; a group without any is named after the method. If the settings are
    unknown or the same, the name of the group's first run is added instead.

    ``settings``: the settings of each group, from :func:`own_settings`; empty if they are unknown. ``runs``: the name
    of each group's first run.
    """
    several = {method for method, count in Counter(methods).items() if count > 1}
    details = [""] * len(methods)
    for method in several:
        members = [i for i, other in enumerate(methods) if other == method]
        for i, text in zip(members, _differences([settings[i] for i in members]), strict=True):
            details[i] = text
    named = [f"{method} ({text})" if text else method for method, text in zip(methods, details, strict=True)]
    taken = Counter(named)
    return [
        name if taken[name] == 1 else f"{method} ({'; '.join(filter(None, (text, run)))})"
        for name, method, text, run in zip(named, methods, details, runs, strict=True)
    ]


def _differences(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings in which each group differs from the others as text; "" if those of a group are unknown."""
    keys = dict.fromkeys(key for one in settings for key in one)
    differing = [key for key in keys if len({json.dumps(one.get(key)) for one in settings}) > 1]
    if not all(settings) or not differing:
        return [""] * len(settings)
    differing.sort(key=lambda key: not key.startswith("method."))  # those of the method come first
    names = _short_names(differing)
    columns = [_short_values([one.get(key) for one in settings]) for key in differing]
    rows = [[f"{name}={value}" for name, value in zip(names, row, strict=True)] for row in zip(*columns, strict=True)]
    if len(differing) > MAX_NAMED:  # name only what is unusual; of equally frequent values, the first group's is usual
        usual = [Counter(column).most_common(1)[0][0] for column in zip(*rows, strict=True)]
        rows = [[text for text, most in zip(row, usual, strict=True) if text != most] for row in rows]
    return [
        ", ".join(row[:MAX_NAMED]) + (f", and {len(row) - MAX_NAMED} more" if len(row) > MAX_NAMED else "")
        for row in rows
    ]


def _short_names(keys: Sequence[str]) -> list[str]:
    """Return the last part of each key, or the key without its first part where that is ambiguous."""
    last = [_model_name(key) or key.rsplit(".", 1)[-1] for key in keys]
    return [name if last.count(name) == 1 else key.split(".", 1)[-1] for name, key in zip(last, keys, strict=True)]


def _model_name(key: str) -> str | None:
    """Return "model" for the key of the solver's model, and "ROLE model" for another role's."""
    found = re.fullmatch(r"model\.(\w+)\.name", key)
    return found and ("model" if found[1] == "solution" else f"{found[1]} model")


def _short_values(values: Sequence[Any]) -> list[str]:
    """Return the values as text. Paths and names of models keep only the last parts, as many as make them distinct."""
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    if all(value is None or isinstance(value, str) for value in values):
        parts = [text.split("/") for text in texts]
        deepest = max(map(len, parts))
        depth = next((n for n in range(1, deepest) if _distinct(parts, n) == len(set(texts))), deepest)
        texts = ["/".join(part[-depth:]) for part in parts]
    return [text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 1]}…" for text in texts]


def _distinct(parts: Sequence[Sequence[str]], depth: int) -> int:
    return len({tuple(part[-depth:]) for part in parts})
