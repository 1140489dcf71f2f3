"""Stores the texts of one problem, each line only once, because later prompts repeat earlier replies verbatim.

A text is a list of runs ``[unit, start, count]``: ``count`` lines of a unit from line ``start``. The page loads one
unit (an iteration) at a time. Joining the lines of all runs with line feeds restores the text exactly.
"""

from __future__ import annotations

from collections import defaultdict

LineRun = list[int]
"""A run of lines: ``[unit, start, count]``."""

SHORT = 16
"""Minimum length in characters of lines that are looked up.

Shorter lines, mostly blank ones, are stored again, so that a text stays in one run.
"""


class Texts:
    """Adds texts and returns their runs. ``units`` has the lines of each unit."""

    def __init__(self) -> None:
        self.units: defaultdict[int, list[str]] = defaultdict(list)
        self._places: dict[str, tuple[int, int]] = {}

    def add(self, text: str, unit: int) -> list[LineRun]:
        """Return the runs of ``text``. Lines that no unit has yet are added to ``unit``."""
        runs: list[LineRun] = []
        for line in text.split("\n"):
            if runs and self._continues(runs[-1], line):
                runs[-1][2] += 1
                continue
            found, start = self._places.get(line) or self._append(line, unit)
            if runs and runs[-1][0] == found and sum(runs[-1][1:]) == start:
                runs[-1][2] += 1
            else:
                runs.append([found, start, 1])
        return runs

    def _continues(self, run: LineRun, line: str) -> bool:
        lines, following = self.units[run[0]], run[1] + run[2]
        return following < len(lines) and lines[following] == line

    def _append(self, line: str, unit: int) -> tuple[int, int]:
        lines = self.units[unit]
        place = (unit, len(lines))
        lines.append(line)
        if len(line) >= SHORT:
            self._places[line] = place
        return place
