"""The built-in prompt files: their texts, their hashes, and the target of an include."""

from __future__ import annotations

from functools import cache
from importlib import resources

from jinja2 import nodes

from tmas.errors import UserError
from tmas.files import text_digest

JUDGE = "judge_"
"""Prefix of the names of judges' prompts. All other prompts are those of agents."""


class PromptError(UserError, ValueError):
    """A folder of prompts cannot be used; the message names each file and line with what is wrong.

    It is a ``ValueError`` as well, because the setting ``prompts`` is read in a pydantic validator.
    """


@cache
def built_in_texts() -> dict[str, str]:
    """The built-in prompt files by name, without ``.jinja``."""
    files = (f for f in resources.files("tmas.prompts").iterdir() if f.name.endswith(".jinja"))
    return {f.name.removesuffix(".jinja"): f.read_text(encoding="utf-8") for f in sorted(files, key=lambda f: f.name)}


def hash_of(text: str) -> str:
    """The first 16 hex digits of the SHA-256 of a prompt file."""
    return text_digest(text, 16)


def include_of(node: nodes.Include) -> str:
    """The quoted name in an include; "" if it is computed or not a text."""
    name = node.template.value if isinstance(node.template, nodes.Const) else None
    return name if isinstance(name, str) else ""
