"""Prompts are files: one ``.jinja`` per role beside this module, rendered with strict undefined variables.

Training rows, distilled contexts and inference all come through :func:`render`, so that training matches use. Every
prompt begins with what other calls share (the problem, then the attempts or the candidate), so that a server with
prefix caching computes it once.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib import resources

from jinja2 import Environment, FunctionLoader, StrictUndefined

_INCLUDE = re.compile(r'\{% include "(\w+)" %\}\n?')


@cache
def _sources() -> dict[str, str]:
    files = (f for f in resources.files(__name__).iterdir() if f.name.endswith(".jinja"))
    return {f.name.removesuffix(".jinja"): f.read_text(encoding="utf-8") for f in files}


def _whole(name: str) -> str:
    """The file with those that it includes in their places: rendering an include costs as much as a prompt.

    The empty text that ends each keeps Jinja from taking the line break behind it for that of a tag.
    """
    return _INCLUDE.sub(lambda match: _whole(match[1]).removesuffix("\n") + "{{ '' }}", _sources()[name])


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_whole),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
        autoescape=False,
        auto_reload=False,
        cache_size=-1,  # all stay compiled
    )
    environment.globals.clear()  # range and the like, which no prompt uses and each rendering would copy
    return environment


def render(name: str, **values: object) -> str:
    """Render the prompt file ``name``; a variable it uses and does not get is an error. Values are never templates."""
    return _environment().get_template(name).render(**values).strip()


def prompt_hashes() -> dict[str, str]:
    """The first 16 hex digits of each prompt file's SHA-256: a run with other prompts is another run.

    Judges' prompts are left out: no run depends on them.
    """
    agents = {name: text for name, text in sorted(_sources().items()) if not name.startswith("judge_")}
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in agents.items()}
