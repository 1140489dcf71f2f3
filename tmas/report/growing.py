"""The report of one run that may grow: made again when the run's files have changed. Nothing is written."""

from __future__ import annotations

from pathlib import Path

import orjson

from tmas.errors import UserError
from tmas.files import text_digest
from tmas.records.live import RunStatus
from tmas.report.about import about_section
from tmas.report.items import Note, Section
from tmas.report.problems import Browser
from tmas.report.report import run_sections
from tmas.report.runs import read_growing_run
from tmas.run.control import CONTROL_FILE
from tmas.run.live_socket import NotLive
from tmas.run.status import live_status, recorded_status

FILES = ("predictions.jsonl", "failures.jsonl", "evaluation.json", "judgements.jsonl", CONTROL_FILE)
"""Files that the report is made from. Traces are read when a problem is opened."""


class GrowingReport:
    """The report of the run in ``path``. ``share``: maximum number of characters of a problem's texts.

    The methods block while they read files. They may be called in another thread, one at a time.
    """

    def __init__(self, path: Path, share: int) -> None:
        self.path, self._share = path, share
        self._browser: Browser | None = None
        self._recorded: tuple[str, RunStatus] | None = None

    def version(self) -> str:
        """A digest that changes when the files of the run change."""
        states = [(name, file.stat()) for name in FILES if (file := self.path / name).exists()]
        return text_digest(repr([(name, state.st_mtime_ns, state.st_size) for name, state in states]))

    def status(self) -> RunStatus:
        """The status of the run. Without a live process, it is read from the files again only if they have changed."""
        try:
            return live_status(self.path)
        except NotLive:
            version = self.version()
            if self._recorded is None or self._recorded[0] != version:
                self._recorded = version, recorded_status(self.path)
            return self._recorded[1]

    def data(self) -> bytes:
        """The sections and the list of finished problems, as JSON for the page.

        If the run cannot be read, its only section says why.
        """
        try:
            runs = read_growing_run(self.path)
        except UserError as error:
            self._browser = None
            return orjson.dumps({"sections": [Section("about", "Report", [Note(str(error))])], "runs": []})
        self._browser = browser = Browser(runs.runs[0], 0, runs.scoring, None)
        for line in browser.run.predictions():
            browser.add_entry(line)["block"] = _block_id(line.problem_id)
        run = {"name": browser.run.name, "path": str(self.path), "problems": browser.entries}
        last = [Section("problems", "Problems"), about_section(runs, [], None)]
        return orjson.dumps({"sections": [*run_sections(runs), *last], "runs": [run]})

    def block(self, block_id: str) -> str | None:
        """The block of a finished problem, as text. None if there is no such problem."""
        if self._browser is None:
            return None
        for line in self._browser.run.predictions():
            if _block_id(line.problem_id) == block_id:
                return "\n".join(self._browser.block(line, self._share).lines)
        return None


def _block_id(problem_id: str) -> str:
    """The id of a problem's block. Unlike the problem's position, it stays the same while the run grows."""
    return f"p{text_digest(problem_id)}"
