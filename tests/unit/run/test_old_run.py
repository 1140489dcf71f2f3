"""A run directory written before run files had typed records is resumed, evaluated and reported as it was then.

``tests/fixtures/run_v1`` holds three problems, TMAS with two iterations, its evaluation by a scripted judge, and in
``report.json`` what the report showed of it: its sections, the list of problems, and the page's block of ``p1``.
``prompts`` holds the prompts of that version, with which the run can be resumed.
"""

from __future__ import annotations

import base64
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support import commands
from tests.support.example_evaluation import reply as judge
from tests.support.example_run import SETTINGS, reply
from tmas.memory.settings import OLDER_RULES
from tmas.records.evaluation_files import Evaluation
from tmas.records.judgements import JudgementLine
from tmas.records.reading import DefectiveFile, read_record, read_records
from tmas.records.run_files import FailureLine, Manifest, Metrics, Prediction
from tmas.records.trace_lines import trace_bytes, trace_line
from tmas.report.problems import Browser, TextBudget
from tmas.report.report import ReportSettings, _sections
from tmas.report.runs import read_runs
from tmas.testing.chat_server import ScriptedServer, run_in_thread

FIXTURE = Path(__file__).parents[2] / "fixtures" / "run_v1"
OF_THE_RUN = {
    "prompts": "prompts",
    "method.agents.cut_summaries": "null",
    "method.agents.structured_verification": "false",
    "experiment": "older_memory",
    "model.context_length": 1150,
}
"""Settings whose defaults have changed since, with the values that resume the run."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURE, tmp_path / "old")
    return tmp_path / "old"


def tmas(old: Path, *arguments: str) -> None:
    done = commands.tmas(*arguments, cwd=old)
    assert done.returncode == 0, done.stderr


def lines(file: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in file.read_bytes().splitlines()]


def test_a_resumed_run_makes_no_call_again_and_gives_the_same_predictions(old: Path):
    before = lines(old / "run" / "predictions.jsonl"), lines(old / "run" / "failures.jsonl")
    totals = orjson.loads((old / "run" / "metrics.json").read_bytes())
    for name in ("predictions.jsonl", "failures.jsonl", "metrics.json"):
        (old / "run" / name).unlink()
    with run_in_thread(ScriptedServer(reply)) as server:
        given = {"problems": "problems.jsonl", "output_dir": "run", "model.base_url": server.base_url, **SETTINGS}
        given |= OF_THE_RUN
        tmas(old, "solve", *(f"{key}={value}" for key, value in given.items()))
        assert server.requests == []
    found = lines(old / "run" / "predictions.jsonl")
    failures = lines(old / "run" / "failures.jsonl")
    for line in (*found, *failures):
        assert len(line.pop("check")) == 16
    candidates = [candidate for line in found for i in line["iterations"] for candidate in i["candidates"]]
    shown = [candidate.pop("shown", ()) for candidate in candidates]  # older versions did not record them
    assert any(shown)
    for line in found:
        assert {counts["role"] for counts in line.pop("replies")} >= {"solution", "verification"}
        terms = line["terms"]["method"]
        assert terms["agents"].pop("cut_summaries") is None
        assert terms["agents"].pop("max_item_chars") == 1000
        for bank in ("experience", "guidelines"):
            assert {name: terms[bank].pop(name) for name in OLDER_RULES} == OLDER_RULES
    assert found == before[0]
    of_today = [line["message"].replace("ran into max_tokens", "reached max_tokens") for line in before[1]]
    assert failures == [{"v": 1, **line, "message": text} for line, text in zip(before[1], of_today, strict=True)]
    again = orjson.loads((old / "run" / "metrics.json").read_bytes())
    assert with_fields_of(again, {"v": 1, **totals}) == {"v": 1, **totals}
    manifest = orjson.loads((old / "run" / "manifest.json").read_bytes())
    assert "chat_template" not in manifest  # the run's prompts were fitted without it
    assert "told" not in manifest


def with_fields_of(new: Any, old: Any) -> Any:
    """``new`` without the fields that ``old`` does not have, at any depth."""
    if isinstance(old, dict):
        return {name: with_fields_of(new[name], value) for name, value in old.items()}
    return [with_fields_of(*pair) for pair in zip(new, old, strict=True)] if isinstance(old, list) else new


def test_an_evaluation_gives_the_same_figures_and_asks_the_judge_nothing(old: Path):
    before = orjson.loads((old / "run" / "evaluation.json").read_bytes())
    (old / "run" / "evaluation.json").unlink()
    with run_in_thread(ScriptedServer(judge)) as server:
        scripted = ("judge=endpoint", "judge.name=scripted", f"judge.base_url={server.base_url}", "prompts=prompts")
        tmas(old, "evaluate", "runs=[run]", *scripted, "bootstrap.interval=percentile")
        assert server.requests == []
    found = orjson.loads((old / "run" / "evaluation.json").read_bytes())
    own = found["settings"]["judge"].pop("replaced")
    assert own == {"judge_equivalence": (old / "prompts" / "judge_equivalence.jinja").read_text("utf-8")}
    assert before["settings"]["judge"].pop("replaced") == {}
    assert with_fields_of(found, before) == before


def test_a_report_shows_the_same(monkeypatch: pytest.MonkeyPatch, old: Path):
    expected = orjson.loads((FIXTURE / "report.json").read_bytes())
    monkeypatch.chdir(old.parent)
    runs = read_runs([old / "run"], lambda _: None)
    assert orjson.loads(orjson.dumps(_sections(runs, [], ReportSettings(runs=(old / "run",))))) == expected["sections"]
    browser = Browser(runs.runs[0], 0, runs.scoring, ["p1"])
    [(_, block)] = list(browser.blocks(TextBudget(10**6, 1)))
    assert orjson.loads(orjson.dumps(browser.entries)) == expected["entries"]
    shown = [json.loads(zlib.decompress(base64.b64decode(line))) for line in block]
    for failure in shown[0]["failures"]:
        assert failure.pop("v") == 1
    assert shown == expected["block"]


def test_what_is_read_is_written_as_it_was():
    run = FIXTURE / "run"
    for file, kind in (("predictions.jsonl", Prediction), ("judgements.jsonl", JudgementLine)):
        written = b"".join(record.model_dump_json().encode() + b"\n" for record in read_records(run / file, kind))
        assert written == (run / file).read_bytes()
    assert len(list(read_records(run / "failures.jsonl", FailureLine))) == 3
    assert read_record(run / "metrics.json", Metrics).problems == 3
    assert read_record(run / "manifest.json", Manifest).method == "tmas"
    assert read_record(run / "evaluation.json", Evaluation).problems.finished == 3
    for trace in (run / "trace").iterdir():
        content = trace.read_bytes().splitlines(keepends=True)
        assert [trace_bytes(trace_line(line, "")) for line in content] == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v": 2, "new": 1}, r"predictions\.jsonl:2: schema version 2, this version of tmas reads 1"),
        ({"stop": "tired"}, r"predictions\.jsonl:2: stop: Input should be 'max_iterations'"),
        ({"usage": [{"role": "solution"}]}, r"predictions\.jsonl:2: usage\.0\.iteration: Field required"),
    ],
)
def test_a_defect_is_named_by_file_line_and_field(old: Path, change: dict[str, Any], message: str):
    file = old / "run" / "predictions.jsonl"
    first, second, third = lines(file)
    file.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in (first, {**second, **change}, third)))
    with pytest.raises(DefectiveFile, match=message):
        list(read_records(file, Prediction))
