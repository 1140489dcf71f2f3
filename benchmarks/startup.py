"""CPU time until ``tmas --help`` and each ``tmas COMMAND --help`` have ended, next to that of ``import hydra``.

``python -m benchmarks.startup [COMMAND ...]`` starts each program several times, one after the other, and takes the
shortest time. The goals are ratios to ``python -c "import hydra"``, because seconds depend on the machine. A command
composes its settings with Hydra, so no command starts faster than this import. The help texts do not need Hydra.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Sequence

from tmas.cli.main import COMMANDS

BASE = [sys.executable, "-c", "import hydra"]
GOALS = {"--help": 2.7, "COMMAND --help": 5.5}
"""Largest ratio to :data:`BASE`: 0.5 and 1 second on a machine on which that takes 0.18 seconds."""


def cpu_seconds(program: Sequence[str], runs: int = 5) -> float:
    """The shortest CPU time of ``program`` in ``runs`` processes, in seconds. Raises if it fails."""
    return min(_cpu_of_one(program) for _ in range(runs))


def _cpu_of_one(program: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(program, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", default=list(COMMANDS), help="all, if none is given")
    parser.add_argument("--runs", type=int, default=5, help="processes of each program")
    given = parser.parse_args(arguments)
    base = cpu_seconds(BASE, given.runs)
    print(f"{'import hydra':<24} {base:.2f} s")
    missed = 0
    for words in (["--help"], *([name, "--help"] for name in given.commands)):
        seconds = cpu_seconds([sys.executable, "-m", "tmas.cli", *words], given.runs)
        goal = GOALS["--help" if words == ["--help"] else "COMMAND --help"]
        met = seconds <= goal * base
        missed += not met
        print(
            f"{'tmas ' + ' '.join(words):<24} {seconds:.2f} s {seconds / base:5.1f} times, goal {goal}: "
            f"{'met' if met else 'missed'}",
            flush=True,
        )
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
