"""Size, time and memory of a report on synthetic runs of any size.

``python -m benchmarks.report FOLDER --problems 100 --reasoning 400`` makes a run of the published size in FOLDER: 20
iterations with 8 candidates and 8 verifications. The run stays there and is reused. The command evaluates the run by
rule and measures ``tmas report`` on it. If there is a Chromium, it also measures how fast the page and a problem open.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from tmas.testing.browser import Watched, browser, chromium

TMAS = Path(sys.executable).with_name("tmas")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--problems", type=int, default=10)
    parser.add_argument("--reasoning", type=int, default=400, help="median characters of reasoning per completion")
    parser.add_argument("--max-mb", type=float, default=100)
    arguments = parser.parse_args()
    run, page = arguments.folder / f"{arguments.problems}-{arguments.reasoning}", arguments.folder / "report.html"
    if not (run / "metrics.json").exists():
        sizes = (f"--problems={arguments.problems}", f"--reasoning={arguments.reasoning}")
        _measure("made the run", sys.executable, "-m", "tmas.testing.synthetic_run", run, *sizes)
    trace = sum(file.stat().st_size for file in (run / "trace").iterdir())
    print(f"trace: {trace / 1e6:,.0f} MB in {arguments.problems} files")
    _measure("tmas evaluate", TMAS, "evaluate", f"runs=[{run}]")
    _measure("tmas report", TMAS, "report", f"runs=[{run}]", f"output={page}", f"max_mb={arguments.max_mb}")
    print(f"page: {page.stat().st_size / 1e6:,.1f} MB")
    if executable := chromium():
        _open(page, executable)


def _measure(name: str, *command: str | Path) -> None:
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{name} failed")
    print(f"{name}: {time.monotonic() - started:.1f} s, {used.ru_maxrss / 1024:,.0f} MiB")


def _open(file: Path, executable: str) -> None:
    with browser(executable) as chrome:
        watched = Watched(chrome)
        started = time.monotonic()
        page = watched.open(file)
        print(f"results on the screen: {time.monotonic() - started:.2f} s")
        page.wait_for_load_state()
        print(f"page complete: {time.monotonic() - started:.2f} s")
        started = time.monotonic()
        watched.go("problems/0/0").wait_for_selector("article.call")
        print(f"a problem opened: {time.monotonic() - started:.2f} s")
        print(f"errors in the browser: {watched.troubles or 'none'}")


if __name__ == "__main__":
    main()
