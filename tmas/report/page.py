"""The page: one file that opens offline, with everything inlined and nothing that could be loaded or run from outside.

Text from models, and every other datum, is in it twice guarded: as JSON in which no ``<`` is left, or as base64; and
under a content security policy that lets only the page's own script run, by its hash, and no request go out.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined

VIEWER = Path(__file__).parent / "viewer"


def write_page(file: Path, title: str, data: Mapping[str, Any], blocks: Iterable[str]) -> None:
    """``data``: what the page knows from the start. ``blocks``: (finished) elements with what it opens later."""
    script = _script()
    style = "\n".join([_katex_style(), _read("report.css")])
    environment = Environment(loader=FileSystemLoader(VIEWER), autoescape=True, undefined=StrictUndefined)
    stream = environment.get_template("page.html.jinja").stream(
        title=title,
        policy=policy(script, style),
        style=style,
        script=script,
        data=orjson.dumps(data).decode().replace("<", "\\u003c"),
        blocks=blocks,
    )
    with file.open("w", encoding="utf-8") as out:
        out.writelines(stream)


def policy(script: str, style: str) -> str:
    """The content security policy for a page of this one script and this one style sheet."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; font-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _script() -> str:
    """KaTeX under its licence, then the page's own files; main.js begins to run, so it comes last."""
    own = sorted((VIEWER / "js").glob("*.js"), key=lambda file: (file.name == "main.js", file.name))
    katex = [f"/* KaTeX\n{_read('katex/LICENSE')}*/", _read("katex/katex.min.js")]
    return "\n".join([*katex, *(file.read_text(encoding="utf-8") for file in own)])


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _katex_style() -> str:
    """KaTeX's style sheet with its fonts in it; of each font the WOFF2 file, which every browser reads."""

    def inlined(match: re.Match[str]) -> str:
        font = base64.b64encode((VIEWER / "katex" / match["file"]).read_bytes()).decode()
        return f'src:url(data:font/woff2;base64,{font}) format("woff2")'

    return re.sub(
        r'src:url\((?P<file>fonts/[\w-]+\.woff2)\) format\("woff2"\)[^;}]*', inlined, _read("katex/katex.min.css")
    )


def _read(name: str) -> str:
    return (VIEWER / name).read_text(encoding="utf-8")
