"""Takes the picture of a report that README and docs/report.md show: the first tab, in headless Chromium.

``make demo && .venv/bin/python -m tests.support.report_picture runs/demo/report.html docs/images/report.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tmas.testing.browser import Watched, browser, chromium

SIZE = {"width": 1100, "height": 730}


def take(report: Path, picture: Path) -> None:
    """Write ``picture`` (PNG) of the top of ``report`` (HTML), in the light color scheme."""
    executable = chromium()
    if executable is None:
        raise SystemExit("no Chromium on this machine (Debian's package is chromium; CHROMIUM=PATH names another)")
    with browser(executable) as launched:
        page = Watched(launched, viewport=SIZE, color_scheme="light").open(report)
        page.screenshot(path=picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    take(given.report, given.picture)


if __name__ == "__main__":
    main()
