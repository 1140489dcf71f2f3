"""The texts of one problem, each line stored once: later prompts repeat earlier replies word for word.

A text is kept as runs ``[unit, start, count]``: so many lines of a unit from a place on. Units are what a reader of the
page loads in one piece (an iteration); joining the lines of its runs with line feeds gives a text back exactly.
"""

from __future__ import annotations

from collections import defaultdict

LineRun = list[int]
"""``[unit, start, count]``."""

SHORT = 16
"""Characters. Shorter lines, blank ones above all, are not looked up: stored again, they keep a text in one run."""


class Texts:
    """Takes texts in and gives their runs; ``units`` holds the lines by unit."""

    def __init__(self) -> None:
        self.units: defaultdict[int, list[str]] = defaultdict(list)
        self._places: dict[str, tuple[int, int]] = {}

    def add(self, text: str, unit: int) -> list[LineRun]:
        """The runs of ``text``; lines that no unit holds yet go into ``unit``."""
        runs: list[LineRun] = []
        for line in text.split("\n"):
            if runs and self._goes_on(runs[-1], line):
                runs[-1][2] += 1
                continue
            found, start = self._places.get(line) or self._append(line, unit)
            if runs and runs[-1][0] == found and sum(runs[-1][1:]) == start:
                runs[-1][2] += 1
            else:
                runs.append([found, start, 1])
        return runs

    def _goes_on(self, run: LineRun, line: str) -> bool:
        lines, following = self.units[run[0]], run[1] + run[2]
        return following < len(lines) and lines[following] == line

    def _append(self, line: str, unit: int) -> tuple[int, int]:
        lines = self.units[unit]
        place = (unit, len(lines))
        lines.append(line)
        if len(line) >= SHORT:
            self._places[line] = place
        return place
