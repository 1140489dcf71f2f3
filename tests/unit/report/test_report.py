"""``tmas report``: what it takes, what it refuses, and what the page and the figures hold."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import subprocess
import sys
import zlib
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from pydantic import ValidationError

from tests.support.runs import candidate, edit_lines, iteration, prediction, write_run
from tmas.errors import UserError
from tmas.evaluation.evaluate import EvaluateSettings, evaluate
from tmas.files import read_lines
from tmas.methods import METHODS
from tmas.records import Problem
from tmas.records.evaluation_files import Estimate, Evaluation
from tmas.records.prices import Price, cost_of
from tmas.report.about import about_section
from tmas.report.boundary import boundary_section
from tmas.report.costs import costs_section
from tmas.report.figures import SIZE, charts, draw, draw_all, file_name
from tmas.report.items import Cell, Choice, ItemRow, Lines, Note, Point, Section, Series, Stack, Table, Tiles
from tmas.report.memory import memory_section
from tmas.report.page import policy
from tmas.report.problems import TextBudget
from tmas.report.report import ReportSettings, make_report, title
from tmas.report.results import results_section
from tmas.report.runs import ReportedRun, ReportedRuns, read_runs
from tmas.report.tables import cells
from tmas.testing import team
from tmas.testing.synthetic_run import Writer, make, problems

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two seeds of one method, and another one with fewer candidates and iterations; all evaluated by rule."""
    folder = tmp_path_factory.mktemp("runs")
    wide, narrow = team.method(max_iterations=4), team.method(n_candidates=2, max_iterations=2)
    made = {"a1": (wide, 1), "a2": (wide, 2), "b": (narrow, 1)}
    for name, (method, seed) in made.items():
        asyncio.run(make(folder / name, problems(4), method, Writer(seed)))
    asyncio.run(evaluate(EvaluateSettings(runs=tuple(folder / name for name in made), timeout=60.0)))
    return {name: folder / name for name in made}


def silent(text: str) -> None:
    raise AssertionError(f"nothing had to be said: {text}")


def read(*paths: Path) -> ReportedRuns:
    return read_runs(paths, silent)


def measure(section: Section, name: str) -> Stack:
    [choice] = [item for item in section.items if isinstance(item, Choice)]
    [item] = [option.item for option in choice.options if option.name == name]
    assert isinstance(item, Stack)
    return item


def tables(section: Section, name: str) -> list[Table]:
    return [item for item in measure(section, name).items if isinstance(item, Table)]


# --- numbers


def test_seeds_are_pooled_and_other_settings_are_not(runs: dict[str, Path]):
    read_in = read(*runs.values())
    assert [group.seeds for group in read_in.groups] == [[1, 2], [1]]
    assert [(run.path.name, run.color) for run in read_in.runs] == [("a1", 0), ("a2", 0), ("b", 1)]


def test_table_1_is_that_of_the_evaluation(runs: dict[str, Path]):
    table = tables(results_section(read(runs["b"])), "Pass@1")[0]
    found = json.loads((runs["b"] / "evaluation.json").read_text())["iterations"]
    estimates = [step["scores"]["rule"]["pass_at_1"] for step in found]
    assert table.columns == ["Method", "It 0", "It 1"]
    assert table.rows[0] == ["synthetic"]
    assert [cell.text for cell in table.rows[1][1:]] == [f"{100 * e['value']:.2f}" for e in estimates]  # type: ignore[union-attr]
    assert [cell.note for cell in table.rows[1][1:]] == [  # type: ignore[union-attr]
        f"{100 * e['low']:.1f} to {100 * e['high']:.1f}" for e in estimates
    ]


def test_a_method_with_fewer_iterations_has_no_entry(runs: dict[str, Path]):
    table = tables(results_section(read(runs["a1"], runs["b"])), "Selected answer")[0]
    assert table.columns[1:] == ["It 0", "It 1", "It 2", "It 3"]
    assert [bool(cell) for cell in table.rows[2][1:]] == [True, True, False, False]


def test_long_runs_show_the_iterations_of_the_paper(runs: dict[str, Path]):
    def longer(evaluation: Evaluation) -> Evaluation:
        return evaluation.model_copy(update={"iterations": evaluation.iterations[:1] * 20})

    read_in = read(runs["a1"])
    [group] = read_in.groups
    long = type(group)(group.label, group.runs, tuple(map(longer, group.evaluations)))
    table = tables(results_section(ReportedRuns(read_in.runs, [long], "rule", read_in.bootstrap)), "Pass@1")[0]
    assert table.columns[1:] == ["It 0", *(f"It {t}" for t in (1, 3, 9, 11, 17, 19))]


def test_equal_compute_covers_all_that_was_spent_and_gives_paired_differences(runs: dict[str, Path]):
    read_in = read(runs["a1"], runs["b"])
    table = tables(results_section(read_in), "Pass@1")[1]
    assert len(table.columns) == len(table.rows[0]) == len(table.rows[1])
    assert table.rows[0][-1] == ""
    assert isinstance(table.rows[1][-1], Cell)
    last = [row[-2] for row in table.rows]
    assert [cell.text for cell in last] == [  # type: ignore[union-attr]
        f"{100 * (g.evaluations[0].iterations[-1].scores['rule']['pass_at_1'].value or 0):.2f}" for g in read_in.groups
    ]


def test_differences_by_iteration_are_those_of_the_evaluation(runs: dict[str, Path]):
    read_in = read(*runs.values())
    table = tables(results_section(read_in), "Pass@1")[-1]
    found = read_in.groups[1].evaluations[0].differences
    assert found is not None
    assert table.columns == ["Method", "It 0", "It 1", "It 2", "It 3"]
    [[label, *shown]] = table.rows
    steps = found.differences["pass_at_1"]
    assert label == found.label
    assert [cell.text for cell in shown[:2]] == [f"{100 * (s.difference.value or 0):+.2f}" for s in steps]  # type: ignore[union-attr]
    assert shown[2:] == ["", ""]  # the other method has two iterations
    assert len(tables(results_section(read(runs["b"])), "Pass@1")) == 2  # nothing to compare a single method with


def test_the_boundary_is_that_of_the_evaluation(runs: dict[str, Path]):
    read_in = read(*runs.values())
    section = boundary_section(read_in)
    assert section is not None
    first, second = [item for item in section.items if isinstance(item, Table)]
    found = read_in.groups[0].evaluations[0].boundary["rule"]
    assert found is not None
    assert [row[1] for row in first.rows] == [str(one.problems) for one in found.bins]
    assert "other seeds" in first.note
    assert "iteration 0" in second.note
    charts = [chart for row in section.items if isinstance(row, ItemRow) for chart in row.items]
    assert len(charts) == 4


def test_an_evaluation_of_an_older_version_has_no_boundary(runs: dict[str, Path], tmp_path: Path):
    old = tmp_path / "old"
    shutil.copytree(runs["a1"], old)
    evaluation = json.loads((old / "evaluation.json").read_text())
    for name in ("differences", "boundary"):
        del evaluation[name]
    del evaluation["settings"]["boundary"], evaluation["settings"]["bootstrap"]["interval"]
    del evaluation["settings"]["bootstrap"]["few_problems"], evaluation["calibration"]["rule"]["within_problems"]
    for problem in evaluation["by_problem"]:
        for step in problem["iterations"]:
            del step["graded"]
    (old / "evaluation.json").write_text(json.dumps(evaluation))
    read_in = read(old)
    assert boundary_section(read_in) is None
    assert read_in.bootstrap.interval == "percentile"
    assert make_report(ReportSettings(runs=(old,)), silent).exists()


def undecided_at_first(run: ReportedRun) -> ReportedRun:
    """The run as it would be if no candidate of its first iteration could have been judged."""
    first, *later = run.evaluation.iterations
    modes = {
        scoring: {mode: counts.model_copy(update={"accuracy": None}) for mode, counts in found.items()}
        for scoring, found in first.modes.items()
    }
    iterations = (first.model_copy(update={"modes": modes}), *later)
    return replace(run, evaluation=run.evaluation.model_copy(update={"iterations": iterations}))


def test_each_benchmark_has_charts_and_a_comparison_of_its_own(runs: dict[str, Path]):
    read_in = read(runs["a1"], runs["b"])
    first, second = read_in.groups
    named = [e.run.model_copy(update={"benchmark": "other"}) for e in second.evaluations]
    other = tuple(e.model_copy(update={"run": run}) for e, run in zip(second.evaluations, named, strict=True))
    moved = ReportedRuns(read_in.runs, [first, replace(second, evaluations=other)], "rule", read_in.bootstrap)
    _, here, there = tables(results_section(moved), "Pass@1")
    assert [[row[0] for row in table.rows] for table in (here, there)] == [[first.label], [second.label]]
    assert there.title.endswith(" at equal compute on other")
    charts = [
        c for item in measure(results_section(moved), "Pass@1").items if isinstance(item, ItemRow) for c in item.items
    ]
    drawn = [[series.name for series in chart.series] for chart in charts if isinstance(chart, Lines)]
    assert drawn == [[first.label]] * 2 + [[second.label]] * 2


def test_a_method_on_two_benchmarks_is_one_row_of_table_1(runs: dict[str, Path]):
    read_in = read(runs["b"])
    [group] = read_in.groups
    [evaluation] = group.evaluations
    elsewhere = evaluation.model_copy(update={"run": evaluation.run.model_copy(update={"benchmark": "other"})})
    other = replace(group, runs=(Path("elsewhere"),), evaluations=(elsewhere,))
    section = results_section(ReportedRuns(read_in.runs, [group, other], "rule", read_in.bootstrap))
    table = tables(section, "Pass@1")[0]
    assert [span.name for span in table.groups] == ["", "problems", "other"]
    [[model], row] = table.rows
    assert (model, row[0], len(row)) == ("synthetic", group.label, 5)
    assert all(row)
    tiles = section.items[0]
    assert isinstance(tiles, Tiles)
    assert [tile.label for tile in tiles.tiles] == [f"{group.label} on problems", f"{group.label} on other"]


def test_candidates_that_could_not_be_judged_are_in_no_share(runs: dict[str, Path]):
    read_in = read(runs["a1"])
    section = memory_section(replace(read_in, runs=[undecided_at_first(run) for run in read_in.runs]))
    assert section is not None
    [table] = [item for item in section.items if isinstance(item, Table)]
    assert [row[3] for row in table.rows if row[1] == "initial"] == ["–"]
    assert all(str(row[3]).endswith("%") for row in table.rows if row[1] != "initial")


async def test_a_point_says_what_it_would_be_if_undecided_answers_were_right(tmp_path: Path):
    answers = [candidate(answer) for answer in ("7", "all odd n", "8", "8")]
    run = write_run(tmp_path / "run", [prediction("p", "7", [iteration(answers, "7")] * 2, [(50, 10), (60, 10)])])
    await evaluate(EvaluateSettings(runs=(run,)))
    rows = [item for item in measure(results_section(read(run)), "Pass@1").items if isinstance(item, ItemRow)]
    charts = [chart for row in rows for chart in row.items if isinstance(chart, Lines)]
    points = [point for chart in charts for series in chart.series for point in series.points]
    assert [(p.y, p.note) for p in points] == [(0.25, "50.00 if all undecided answers are right")] * 4
    [tiles] = [item for item in results_section(read(run)).items if isinstance(item, Tiles)]
    assert [tile.value for tile in tiles.tiles] == ["100.0 %"]  # the selected answer is decided
    section = memory_section(read(run))
    assert section is not None
    [modes] = [item for item in section.items if isinstance(item, Table)]
    assert modes.rows == [
        [read(run).runs[0].name, "initial", "8", Cell("25.0%", "50.0% if all undecided answers are right")]
    ]


async def test_undecided_answers_give_ranges_in_tiles_and_differences(tmp_path: Path):
    answers = [candidate("7"), candidate("all odd n"), candidate("8")]
    written = [("one", "all odd n"), ("two", "8")]
    paths = [
        write_run(tmp_path / name, [prediction("p", "7", [iteration(answers, said)], [(50, 10)])], method__name=name)
        for name, said in written
    ]
    await evaluate(EvaluateSettings(runs=tuple(paths)))
    tiles, overview, *_ = results_section(read(*paths)).items
    assert isinstance(tiles, Tiles)
    assert [tile.value for tile in tiles.tiles] == ["0.0–100.0 %", "0.0 %"]
    assert isinstance(overview, Table)
    *_, selected, difference = overview.rows[1]
    assert isinstance(selected, Cell)
    assert isinstance(difference, Cell)
    assert difference.text == "+0.00"
    assert difference.note.endswith("; ≥-100.00, ≤+0.00")


def test_the_overview_has_a_row_per_method_with_the_baseline_first(runs: dict[str, Path]):
    read_in = read_runs([*runs.values()], silent, str(runs["b"]))
    _, table, *_ = results_section(read_in).items
    assert isinstance(table, Table)
    assert [list(row[:2]) for row in table.rows] == [[group.label, str(len(group.seeds))] for group in read_in.groups]
    assert [group.runs[0] for group in read_in.groups] == [runs["b"], runs["a1"]]
    assert table.columns[3:] == [
        *("Pass@1 (%)", f"minus {read_in.groups[0].label}", "Selected answer (%)", f"minus {read_in.groups[0].label}"),
    ]
    last = read_in.groups[0].evaluations[0].iterations[-1].scores["rule"]["pass_at_1"].value
    first_row = table.rows[0]
    assert isinstance(first_row[3], Cell)
    assert (first_row[3].text, first_row[4]) == (f"{100 * (last or 0):.2f}", "")


def test_the_items_of_the_banks_are_listed_with_the_candidates_that_were_shown_them(
    runs: dict[str, Path], recycled: Path
):
    for run in (runs["b"], recycled):
        section = memory_section(read(run), bank_items=3)
        assert section is not None
        _, items = [item for item in section.items if isinstance(item, Choice)]
        table = items.options[0].item
        assert isinstance(table, Table)
        assert len(table.rows) == 3
        assert table.groups[1].name == "candidates that were shown it"


@pytest.fixture(scope="module")
def recycled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of RSE, which has no guideline bank and calls other roles."""
    method = METHODS["rse"].settings_type.model_validate({"name": "rse", "n_candidates": 2, "max_iterations": 2})
    folder = tmp_path_factory.mktemp("recycled") / "rse"
    asyncio.run(make(folder, problems(2), method, Writer(seed=1)))
    asyncio.run(evaluate(EvaluateSettings(runs=(folder,), timeout=60.0)))
    return folder


def test_a_bank_is_drawn_for_the_runs_that_keep_it(runs: dict[str, Path], recycled: Path):
    read_in = read(runs["b"], recycled)
    section = memory_section(read_in)
    assert section is not None
    choice, _items = [item for item in section.items if isinstance(item, Choice)]
    charts = choice.options[0].item
    assert isinstance(charts, ItemRow)
    drawn = [[series.name for series in chart.series] for chart in charts.items if isinstance(chart, Lines)]
    assert drawn == [[run.name for run in read_in.runs], [read_in.runs[0].name]]


def test_settings_that_differ_are_not_those_of_roles_that_are_as_the_solver(runs: dict[str, Path], recycled: Path):
    [choice] = [
        item
        for item in about_section(read(runs["b"], recycled), [], TextBudget(0, 0)).items
        if isinstance(item, Choice)
    ]
    differing, every = ([str(row[0]) for row in option.item.rows] for option in choice.options)  # type: ignore[union-attr]
    assert {"method.name", "method.n_verifications"} <= set(differing)
    assert [key for key in differing if key.startswith("model.")] == []
    assert {"model.verification.name", "model.distill.name"} <= set(every)


def test_the_best_of_a_column_is_marked_only_where_there_is_another():
    high, low, none = (Estimate(value=v, low=0.0, high=1.0, problems=1, left_out=0) for v in (0.5, 0.25, None))
    assert [cell and cell.strong for cell in cells([low, high, none])] == [False, True, ""]  # type: ignore[union-attr]
    assert [cell.strong for cell in cells([high])] == [False]  # type: ignore[union-attr]


# --- what it takes and refuses


def test_a_run_that_was_not_evaluated_is_evaluated_by_rule(runs: dict[str, Path], tmp_path: Path):
    run = Path(shutil.copytree(runs["b"], tmp_path / "b"))
    (run / "evaluation.json").unlink()
    said: list[str] = []
    assert read_runs([run], said.append).scoring == "rule"
    assert said == [f"{run} has not been evaluated: evaluating it by rule"]
    assert (run / "evaluation.json").exists()


def test_a_run_that_was_resumed_after_its_evaluation_is_refused(runs: dict[str, Path], tmp_path: Path):
    run = Path(shutil.copytree(runs["b"], tmp_path / "b"))
    lines = (run / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (run / "predictions.jsonl").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(UserError, match="resumed after it was evaluated"):
        read_runs([run], silent)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="not a run directory"):
        make_report(ReportSettings(runs=(tmp_path,)))


def test_a_folder_as_the_page_is_refused_before_runs_are_read(tmp_path: Path):
    with pytest.raises(UserError, match=r"is a folder\. Give a file, such as output=.*report\.html"):
        make_report(ReportSettings(runs=(tmp_path / "nowhere",), output=tmp_path))


def test_a_problem_that_no_run_holds_is_refused(runs: dict[str, Path]):
    with pytest.raises(UserError, match="no run has these problems: p99"):
        make_report(ReportSettings(runs=(runs["b"],), problems=("synthetic-001", "p99")))


def test_a_run_given_twice_is_refused(runs: dict[str, Path]):
    with pytest.raises(ValidationError, match="given twice"):
        ReportSettings(runs=(runs["b"], runs["b"] / ".." / "b"))


def test_the_config_shows_every_setting_with_its_default():
    written = yaml.safe_load((ROOT / "conf" / "report.yaml").read_text("utf-8"))
    shown = {key: value for key, value in written.items() if key not in ("defaults", "hydra", "runs")}
    assert shown == ReportSettings(runs=(Path("r"),)).model_dump(mode="json", exclude={"runs"})


def test_the_command_writes_the_page_into_a_single_run(runs: dict[str, Path], tmp_path: Path):
    run = Path(shutil.copytree(runs["b"], tmp_path / "b"))
    command = [Path(sys.executable).with_name("tmas"), "report", f"runs=[{run}]", "problems=[synthetic-002]"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    page = run / "report.html"
    assert re.fullmatch(rf"{re.escape(str(page))} \(\d\.\d MB\)\n", done.stdout)
    assert list(Page(page).blocks) == ["b0-2"]


# --- the page


class Page(HTMLParser):
    """A written page, as a browser takes it apart. ``blocks``: lines of each problem that can be opened."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(file.read_text("utf-8"))
        scripts = [(a, text) for (tag, a), text in zip(self.elements, self.texts, strict=True) if tag == "script"]
        self.data = next(orjson.loads(text) for a, text in scripts if a.get("id") == "data")
        self.blocks = {a["id"]: text.split() for a, text in scripts if a.get("type") == "text/plain"}
        [self.script] = [text for a, text in scripts if not a]
        [self.style] = [text for (tag, _), text in zip(self.elements, self.texts, strict=True) if tag == "style"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")

        self.is_open = True

    def handle_endtag(self, tag: str) -> None:
        self.is_open = False

    def handle_data(self, data: str) -> None:
        if self.texts and self.is_open:
            self.texts[-1] += data


@pytest.fixture(scope="module")
def page(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Page:
    output = tmp_path_factory.mktemp("page") / "new" / "report.html"
    return Page(make_report(ReportSettings(runs=(runs["a1"], runs["b"]), output=output), silent))


def test_the_page_holds_its_sections_and_a_block_for_each_problem(page: Page):
    titles = ["Results", "Cost and failures", "Verifier", "Boundary", "Memory and modes", "Problems", "About"]
    assert [section["title"] for section in page.data["sections"]] == titles
    blocks = [problem["block"] for run in page.data["runs"] for problem in run["problems"]]
    assert list(page.blocks) == blocks
    assert len(blocks) == 8
    assert all(re.fullmatch(r"[\w+/=]+", line) for lines in page.blocks.values() for line in lines)


def test_the_title_names_the_first_methods():
    assert title(["tmas", "rse", "pacore"]) == "TMAS report: tmas, rse, pacore"
    assert title(["tmas", "rse", "pacore", "vote", "best"]) == "TMAS report: tmas, rse, pacore and 2 more"


def test_nothing_is_loaded_and_only_the_pages_own_script_runs(page: Page):
    assert [a for _, a in page.elements if a.keys() & {"src", "srcset", "action", "data"}] == []
    assert [a for tag, a in page.elements if tag in ("link", "iframe", "object", "embed", "base", "img")] == []
    assert [name for _, a in page.elements for name in a if name.startswith("on")] == []
    assert re.findall(r"url\((?!data:font/woff2;base64,)", page.style) == []
    stated = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert stated == [policy(page.script, page.style)]
    assert "unsafe" not in policy(page.script, page.style)


def test_no_datum_can_end_the_element_that_it_stands_in(runs: dict[str, Path], tmp_path: Path):
    evil = "</script><script>alert(1)</script><!--"
    run = Path(shutil.copytree(runs["b"], tmp_path / "<b>"))
    edit_lines(run / "predictions.jsonl", lambda line: line | {"question": evil})
    written = Page(make_report(ReportSettings(runs=(run,))))
    assert {problem["question"] for problem in written.data["runs"][0]["problems"]} == {evil}
    assert [tag for tag, _ in written.elements].count("script") == 2 + len(written.data["runs"][0]["problems"])


def test_room_is_shared_by_the_problems_and_what_is_left_out_is_said(runs: dict[str, Path], tmp_path: Path):
    output = tmp_path / "small.html"
    small = Page(make_report(ReportSettings(runs=(runs["a1"],), output=output, max_mb=0.05), silent))
    assert sum(len(line) for lines in small.blocks.values() for line in lines[1:]) <= 50_000
    assert all(len(lines) > 1 for lines in small.blocks.values())
    left_out = [problem["left_out"] for problem in small.data["runs"][0]["problems"]]
    assert all(left_out)
    [note] = [item["text"] for item in small.data["sections"][-1]["items"] if item["kind"] == "note"]
    assert note.startswith(f"{sum(left_out):,} characters")


def test_a_run_without_its_traces_keeps_its_figures_and_banks(runs: dict[str, Path], tmp_path: Path):
    run = Path(shutil.copytree(runs["b"], tmp_path / "b"))
    shutil.rmtree(run / "trace")
    blocks = Page(make_report(ReportSettings(runs=(run,)))).blocks.values()
    indices = [orjson.loads(zlib.decompress(base64.b64decode(line))) for [line] in blocks]
    assert [index["calls"] for index in indices] == [[]] * 4
    assert all(index["iterations"][-1]["experience_bank"] for index in indices)


def test_verdicts_of_a_judge_take_the_place_of_the_rules(runs: dict[str, Path], tmp_path: Path):
    """A judge is written into the files as tmas evaluate leaves them: it finds every answer equivalent, 2 to 1."""
    run = Path(shutil.copytree(runs["b"], tmp_path / "b"))
    evaluation = orjson.loads((run / "evaluation.json").read_bytes())
    about = {"sampling": {}, "scope": "all", "prompts": {}}
    evaluation["settings"]["judge"] = {"name": "j", "identity": "abc", "passes": 3, **about}
    for problem in evaluation["by_problem"]:
        for step in problem["iterations"]:
            step["scores"]["judge"] = step["scores"]["rule"] | {"pass_at_1": 1.0}
    for step in evaluation["iterations"]:
        step["scores"]["judge"], step["modes"]["judge"] = step["scores"]["rule"], step["modes"]["rule"]
    evaluation["calibration"]["judge"] = evaluation["calibration"]["rule"]
    (run / "evaluation.json").write_bytes(orjson.dumps(evaluation))
    lines = [orjson.loads(line) for line in (run / "predictions.jsonl").read_bytes().splitlines()]
    pairs = {(p["gold"], c["answer"]) for p in lines for i in p["iterations"] for c in i["candidates"] if c["answer"]}
    judgements = [
        {"v": 1, "gold": gold, "answer": answer, "judge": "abc", "model": "j", "prompt": "p", "pass": n}
        | {"verdict": verdict, "reasoning": "", "failure": None}
        for gold, answer in sorted(pairs)
        for n, verdict in enumerate(("equivalent", "different", "equivalent"))
    ]
    (run / "judgements.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in judgements))
    [entry, *_] = Page(make_report(ReportSettings(runs=(run,)))).data["runs"][0]["problems"]
    assert entry["strip"] == [1.0, 1.0]
    assert entry["correct"] == "equal"


def test_problems_without_gold_answers_have_traces_and_costs_but_no_accuracy(tmp_path: Path):
    task = Problem(problem_id="open", question="Is it so?")
    run = asyncio.run(make(tmp_path / "run", [task], team.method(max_iterations=2), Writer(seed=1)))
    written = Page(make_report(ReportSettings(runs=(run,), output=tmp_path / "page.html")))
    titles = ["Results", "Cost and failures", "Memory and modes", "Problems", "About"]
    assert [section["title"] for section in written.data["sections"]] == titles
    assert "no accuracy can be given" in written.data["sections"][0]["items"][0]["text"]
    [entry] = written.data["runs"][0]["problems"]
    assert (entry["correct"], entry["strip"], entry["block"]) == (None, [], "b0-0")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_reported(tmp_path: Path, name: str):
    settings = METHODS[name].settings_type
    method = settings.model_validate(
        {"name": name, "max_iterations": min(3, settings.model_fields["max_iterations"].default)}
    )
    run = asyncio.run(make(tmp_path / name, problems(1), method, Writer(seed=2)))
    written = Page(make_report(ReportSettings(runs=(run,))))
    [[line, *_]] = written.blocks.values()
    index = orjson.loads(zlib.decompress(base64.b64decode(line)))
    not_called = {"summary"} if name == "genselect" else set()  # its default is shown=solution
    assert {call["role"] for call in index["calls"]} == set(settings.roles) - not_called
    assert len(index["calls"]) == sum(
        entry["type"] == "call" for f in (run / "trace").iterdir() for entry in read_lines(f)
    )


# --- figures


def test_with_prices_methods_show_what_a_problem_cost(runs: dict[str, Path], tmp_path: Path):
    copies = [shutil.copytree(runs[name], tmp_path / name) for name in ("a1", "b")]
    price = Price(input=1000, output=1000)
    asyncio.run(evaluate(EvaluateSettings(runs=tuple(copies), timeout=60.0, price=price)))
    read_in = read(*copies)
    tiles, table, measures = results_section(read_in).items
    drawn = {chart.title: chart for chart in charts(measures) if isinstance(chart, Lines)}
    by_tokens, by_money = drawn["Selected answer by tokens"], drawn["Selected answer by money"]
    assert by_money.x_label == "cost of a problem, USD (log)"
    for one, other in zip(by_tokens.series, by_money.series, strict=True):  # a thousand tokens cost 1 USD
        assert [point.x / 1000 for point in one.points] == pytest.approx([point.x for point in other.points])
    assert isinstance(tiles, Tiles)
    assert isinstance(table, Table)
    costs_each = [f"{group.tokens / 1000:.2f}" for group in read_in.groups]
    notes = [tile.note.rpartition(" tokens each, ")[2] for tile in tiles.tiles]
    assert notes == [f"{cost} USD each" for cost in costs_each]
    assert table.columns[3] == "Cost (USD)"
    assert [row[3] for row in table.rows] == costs_each


def test_methods_are_compared_at_equal_cost_and_an_unknown_cost_says_so(runs: dict[str, Path], tmp_path: Path):
    copies = [shutil.copytree(runs[name], tmp_path / name) for name in ("a1", "b")]

    def at_equal_cost() -> list[Table | Note]:
        """The tables of all metrics, and the notes of the whole tab."""
        section = results_section(read(*copies))
        [choice] = [item for item in section.items if isinstance(item, Choice)]
        shown = [*(item for option in choice.options for item in measure(section, option.name).items), *section.items]
        return [
            item
            for item in shown
            if (isinstance(item, Table) and "equal cost" in item.title)
            or (isinstance(item, Note) and "equal cost" in item.text)
        ]

    def evaluated(price: Price, *paths: Path) -> None:
        asyncio.run(evaluate(EvaluateSettings(runs=paths, timeout=60.0, price=price)))

    [unpriced] = at_equal_cost()
    assert isinstance(unpriced, Note)
    assert "no cost is known" in unpriced.text

    evaluated(Price(input=0.001, output=0.001), *copies)
    [priced, *others] = at_equal_cost()
    assert isinstance(priced, Table)
    assert all(isinstance(table, Table) for table in others)
    at_tokens = tables(results_section(read(*copies)), "Pass@1")[1]
    assert priced.rows == [*map(list, at_tokens.rows)]  # a token costs the same everywhere
    assert priced.columns == [re.sub(r"^([\d.]+)k tokens$", as_cost, column) for column in at_tokens.columns]

    evaluated(Price(input=1, output=1, currency="EUR"), copies[1])
    [mixed] = at_equal_cost()
    assert isinstance(mixed, Note)
    assert "the costs are in EUR and USD" in mixed.text

    evaluated(Price(), copies[1])
    [partly, *others] = at_equal_cost()
    assert isinstance(partly, Table)
    assert all(isinstance(table, Table) for table in others)
    assert (partly.rows[1][1], len(partly.rows[1])) == ("unknown", len(partly.columns))
    assert "no price for one of its models" in partly.note


def as_cost(tokens: re.Match[str]) -> str:
    """A budget in thousands of tokens as its cost at 0.001 USD per million tokens."""
    return f"{Decimal(tokens[1]).scaleb(-6).normalize():f} USD"


def test_costs_are_shown_by_role_and_unknown_ones_say_so(runs: dict[str, Path]):
    first, second = read(runs["a1"], runs["b"]).runs
    usage = first.evaluation.roles
    cost = cost_of(usage, {"solution": Price(input=1000, output=1000)})
    priced = replace(first, evaluation=first.evaluation.model_copy(update={"cost": cost}))
    table = costs_section([priced, second]).items[1]
    assert isinstance(table, Table)
    shown = {row[0]: row[-1] for row in table.rows[1 : len(usage) + 2]}
    assert shown["solution"] == f"{usage['solution'].total_tokens / 1000:.2f} USD"
    assert (shown["verification"], shown["all"], table.rows[-1][-1]) == ("unknown", "unknown", "unknown")
    plain = costs_section([first, second]).items[1]
    assert isinstance(plain, Table)
    assert "Cost" not in plain.columns


def test_long_names_of_curves_stand_below_each_other():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    columns = []
    for name in ("tmas", "tmas (early_stop=none, round_size=null, right=null)"):
        series = [Series(f"{name} {i}", i, [Point(0, 1), Point(1, 2)]) for i in range(4)]
        figure, axes = pyplot.subplots(figsize=SIZE)
        draw(axes, Lines("title", "x", "y", series))
        columns.append(axes.get_legend()._ncols)
        assert axes.get_legend().get_window_extent().width <= figure.bbox.width
        pyplot.close(figure)
    assert columns == [4, 1]


def test_figures_are_written_as_png_and_svg(runs: dict[str, Path], tmp_path: Path):
    pytest.importorskip("matplotlib")
    read_in = read(runs["a1"], runs["b"])
    shown = [measure(results_section(read_in), "Pass@1"), costs_section(read_in.runs).items[0]]
    written = draw_all([Section("main", "Main", shown)], tmp_path / "figures")
    names = ["pass-1-by-iteration", "pass-1-by-tokens", "tokens-by-role-prompt-and-completion"]
    assert [file.name for file in written] == [f"{name}.{suffix}" for name in names for suffix in ("png", "svg")]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    assert f">{read_in.groups[1].label}<" in written[1].read_text()


def test_the_axis_of_a_figure_has_no_prefix_for_small_costs():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure, axes = pyplot.subplots()
    points = [Point(0.001, 0.5), Point(3000.0, 0.75)]
    draw(axes, Lines("t", "x", "y", [Series("tmas", 0, points)], log_x=True))
    shown = [axes.xaxis.get_major_formatter()(value, None) for value in (0.001, 0.02, 1, 20, 3000)]
    assert shown == ["0.001", "0.02", "1", "20", "3k"]
    pyplot.close(figure)


def test_without_matplotlib_figures_are_refused_in_words(runs: dict[str, Path], tmp_path: Path, monkeypatch: Any):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    settings = ReportSettings(runs=(runs["b"],), output=tmp_path / "r.html", figures=tmp_path / "figures")
    with pytest.raises(UserError, match="figures need matplotlib"):
        make_report(settings, silent)


def test_names_of_figures_are_plain():
    assert file_name("Pass@1 by tokens/../x") == "pass-1-by-tokens-x"


def test_a_chart_has_a_curve_for_each_group_in_its_own_color(runs: dict[str, Path]):
    row = measure(results_section(read(*runs.values())), "Pass@1").items[0]
    charts = [chart for chart in row.items if isinstance(chart, Lines)]  # type: ignore[union-attr]
    assert [[(s.color, len(s.points)) for s in chart.series] for chart in charts] == [[(0, 4), (1, 2)]] * 2
    assert [chart.log_x for chart in charts] == [False, True]
