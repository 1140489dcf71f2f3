"""``tmas view``: who can read it, what it serves of a live and of a finished run, and that it writes nothing."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import re
import signal
import subprocess
import urllib.request
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from tests.support.commands import TMAS
from tests.support.runs import edit_lines
from tests.support.waiting import LIMIT
from tmas.errors import UserError
from tmas.files import append_lines
from tmas.records.checksums import checked_line
from tmas.records.live import ControlLine, RunStatus
from tmas.report.about import about_section
from tmas.report.items import Table, Tiles
from tmas.report.problems import TextBudget
from tmas.report.runs import read_runs
from tmas.report.status import status_section
from tmas.report.view import ViewSettings, view_server
from tmas.run.directory import RunDirectory
from tmas.testing import team
from tmas.testing.synthetic_run import Writer, make, problems

HOSTILE = "</script><script>hacked()</script>"


class Answer(NamedTuple):
    status: int
    headers: Any
    text: str
    json: Any


class Viewed:
    """A client of a running ``tmas view``."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url, self._http = url, http

    async def get(self, path: str, version: str = "") -> Answer:
        headers = {"If-None-Match": version} if version else {}
        async with self._http.get(path if "://" in path else self.url + path, headers=headers) as response:
            text = await response.text()
            is_json = response.content_type == "application/json" and text
            return Answer(response.status, response.headers, text, await response.json() if is_json else None)


@asynccontextmanager
async def viewed(run: Path) -> AsyncIterator[Viewed]:
    async with view_server(ViewSettings(run=run)) as url, aiohttp.ClientSession() as http:
        yield Viewed(url, http)


def files(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.fixture
async def run(tmp_path: Path) -> Path:
    await make(tmp_path / "run", problems(2), team.method(max_iterations=2), Writer(1))
    return tmp_path / "run"


async def test_the_page_can_reach_its_own_server_alone_and_only_with_the_token(run: Path):
    async with viewed(run) as view:
        page = await view.get("")
        policy = html.unescape(page.text)
        assert "default-src 'none'" in policy
        assert "connect-src 'self'" in policy
        assert page.headers["Referrer-Policy"] == "no-referrer"
        host, token = re.fullmatch(r"(http://127\.0\.0\.1:\d+/)([\w-]{20,})/", view.url).groups()  # type: ignore[union-attr]
        for path in ("", "status", f"{token[:-1]}x/report", "/status"):
            assert (await view.get(host + path)).status == 404


async def test_a_finished_run_has_its_status_its_report_and_its_problems_and_stays_as_it_is(run: Path):
    before = files(run)
    async with viewed(run) as view:
        status = await view.get("status")
        assert (status.json["id"], status.json["intro"]) == ("status", "The run is finished.")
        report = await view.get("report")
        assert {"results", "problems", "about"} <= {section["id"] for section in report.json["sections"]}
        about = str(next(section for section in report.json["sections"] if section["id"] == "about"))
        assert "in this file" not in about  # the page gets the texts of a problem when it is opened
        assert "are read from the run directory when it is opened" in about
        [shown] = report.json["runs"]
        assert [problem["problem_id"] for problem in shown["problems"]] == [p.problem_id for p in problems(2)]
        block = await view.get(f"block/{shown['problems'][1]['block']}")
        index = json.loads(zlib.decompress(base64.b64decode(block.text.splitlines()[0])))
        assert index["problem_id"] == problems(2)[1].problem_id
        assert (await view.get("block/..%2Fmanifest.json")).status == 404
        for path, answer in (("status", status), ("report", report)):
            again = await view.get(path, answer.headers["ETag"])
            assert (again.status, again.text) == (304, "")
    assert files(run) == before


async def test_the_report_follows_a_run_that_grows_and_is_not_evaluated(run: Path):
    lines = (run / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (run / "predictions.jsonl").write_bytes(b"")
    (run / "failures.jsonl").unlink()
    async with viewed(run) as view:
        empty = await view.get("report")
        assert "holds no finished problem yet" in str(empty.json["sections"])
        (run / "predictions.jsonl").write_bytes(lines[0] + lines[1][:50])  # a line that is being written
        grown = await view.get("report", empty.headers["ETag"])
        assert len(grown.json["runs"][0]["problems"]) == 1
        blocks = [problem["block"] for problem in grown.json["runs"][0]["problems"]]
        (run / "predictions.jsonl").write_bytes(lines[1] + lines[0])
        sorted_anew = await view.get("report", grown.headers["ETag"])
        assert [problem["block"] for problem in sorted_anew.json["runs"][0]["problems"]][1:] == blocks


async def test_model_text_is_data(run: Path):
    edit_lines(run / "predictions.jsonl", lambda line: line | {"question": HOSTILE})
    async with viewed(run) as view:
        assert HOSTILE not in (await view.get("")).text
        report = await view.get("report")
        assert report.json["runs"][0]["problems"][0]["question"] == HOSTILE
        assert report.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_port_that_is_taken_is_an_error_of_the_user(run: Path):
    async with view_server(ViewSettings(run=run)) as url:
        port = int(url.split(":")[2].split("/")[0])
        with pytest.raises(UserError, match=f"host=127.0.0.1 port={port}: "):
            async with view_server(ViewSettings(run=run, port=port)):
                pass


def test_ctrl_c_is_the_normal_end(tmp_path: Path):
    RunDirectory(tmp_path / "run", {"seed": 1, "method.name": "tmas"}, problems(1)).close()
    command = [*TMAS, "view", tmp_path / "run"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout
    url = running.stdout.readline().split()[0]
    with urllib.request.urlopen(f"{url}status") as response:
        assert json.load(response)["items"][0]["tiles"][0]["value"] == "0 of 1"
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=LIMIT)
    assert (running.returncode, errors) == (0, "")


def test_a_report_says_which_limits_changed_while_the_run_was_live(tmp_path: Path):
    asyncio.run(make(tmp_path / "run", problems(1), team.method(max_iterations=1), Writer(1)))
    line = ControlLine(time=0.0, setting="concurrency", before=800, after=200)
    append_lines(tmp_path / "run" / "control.jsonl", [line], checked_line)
    section = about_section(read_runs([tmp_path / "run"], lambda _: None), [], TextBudget(0, 0))
    [table] = [item for item in section.items if isinstance(item, Table) and "Limits changed" in item.title]
    assert [row[1:] for row in table.rows] == [["concurrency", "800", "200"]]


def test_the_first_tab_shows_money_and_whether_its_budget_will_last():
    status = RunStatus(state="running", problems=4, finished=1, concurrency=8, replayed=0, failed=0)
    priced = {"currency": "USD", "money_per_run": 50, "money_spent": 13}
    shown = [
        status_section(status.model_copy(update=priced | {"money_left": left})).items[0] for left in (36, 44, None)
    ]
    assert [[(tile.value, tile.note) for tile in tiles.tiles[-2:]] for tiles in shown if isinstance(tiles, Tiles)] == [
        [("13.00 USD", "of 50.00, the budget"), ("36.00 USD", "an estimate")],
        [("13.00 USD", "of 50.00, the budget"), ("44.00 USD", "more than the budget has left")],
        [("13.00 USD", "of 50.00, the budget"), ("?", "an estimate")],
    ]
