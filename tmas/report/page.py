"""Writes the report page: one HTML file that opens offline. Everything is inlined, and nothing is loaded from outside.

Two measures guard against harmful text from models and other data. All data is JSON without any ``<``, or base64.
A content security policy allows only the page's own script, by its hash, and blocks all requests.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined

VIEWER = Path(__file__).parent / "viewer"


def write_page(file: Path, title: str, data: Mapping[str, Any], blocks: Iterable[str]) -> None:
    """Write the page. ``data`` is available at once. ``blocks`` are finished elements that the page opens later."""
    with file.open("w", encoding="utf-8") as out:
        out.writelines(page_parts(title, data, blocks))


def page_parts(
    title: str, data: Mapping[str, Any], blocks: Iterable[str] = (), connects: bool = False
) -> Iterator[str]:
    """Return the page in pieces. ``connects``: it may request more data from the server that it came from."""
    script = _script()
    style = "\n".join([_katex_style(), _read("report.css")])
    environment = Environment(loader=FileSystemLoader(VIEWER), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("page.html.jinja").stream(
        title=title,
        policy=policy(script, style, connects),
        style=style,
        script=script,
        data=orjson.dumps(data).decode().replace("<", "\\u003c"),
        blocks=blocks,
    )


def policy(script: str, style: str, connects: bool = False) -> str:
    """Return the content security policy for a page with only this script and this style sheet."""
    sources = "connect-src 'self'; " if connects else ""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; font-src data:; {sources}"
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _script() -> str:
    """Return KaTeX with its licence, then the page's own files. main.js starts the page, so it comes last."""
    own = sorted((VIEWER / "js").glob("*.js"), key=lambda file: (file.name == "main.js", file.name))
    katex = [f"/* KaTeX\n{_read('katex/LICENSE')}*/", _read("katex/katex.min.js")]
    return "\n".join([*katex, *(file.read_text(encoding="utf-8") for file in own)])


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _katex_style() -> str:
    """Return KaTeX's style sheet with inlined fonts. Only WOFF2 files are inlined, because every browser reads them."""

    def inlined(match: re.Match[str]) -> str:
        font = base64.b64encode((VIEWER / "katex" / match["file"]).read_bytes()).decode()
        return f'src:url(data:font/woff2;base64,{font}) format("woff2")'

    return re.sub(
        r'src:url\((?P<file>fonts/[\w-]+\.woff2)\) format\("woff2"\)[^;}]*', inlined, _read("katex/katex.min.css")
    )


def _read(name: str) -> str:
    return (VIEWER / name).read_text(encoding="utf-8")
