"""The documentation site builds without a warning, links to no missing page, and fetches nothing when it is read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
FETCHED = re.compile(r'<(?:script|img|link|iframe)\b[^>]*?(?:src|href)="((?:https?:)?//[^"]+)"')
FETCHED_BY_STYLE = re.compile(r"(?:url\(|@import\s+)[\"']?((?:https?:)?//[^\"')]+)")


def test_the_site_builds_without_warnings_and_reads_offline(tmp_path: Path):
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run([*build, DOCS, tmp_path / "site"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {page.relative_to(tmp_path / "site").as_posix(): page.read_text() for page in tmp_path.rglob("*.html")}
    assert {"index.html", "options.html", "tutorials/first-solve.html", "search.html"} <= pages.keys()
    assert {url for page in pages.values() for url in FETCHED.findall(page)} == set()
    styles = [style.read_text() for style in tmp_path.rglob("*.css")]
    assert {url for text in [*styles, *pages.values()] for url in FETCHED_BY_STYLE.findall(text)} == set()
    index = (tmp_path / "site/searchindex.js").read_text()  # the search reads it from disk
    assert all(f'"{page}"' in index for page in ("how-to/read-a-report", "scaling", "decisions"))
    assert "asolve_all" in pages["python-api.html"]
