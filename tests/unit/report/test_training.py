"""``tmas report training=[...]``: the starts of a run joined, what the tab shows of them, and what is refused."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from tests.support.commands import tmas
from tests.support.synthetic_training import make, write
from tmas.errors import UserError
from tmas.report.figures import charts, draw, file_name
from tmas.report.items import Bars, Choice, Item, Lines, Note, Point, Section, Series, Table
from tmas.report.report import ReportSettings, make_report
from tmas.report.training import Charts, training_section
from tmas.report.training_runs import TrainingRun, read_training
from tmas.report.training_tables import masked, non_finite_values, seconds_by_part, summary
from tmas.testing import team
from tmas.testing.synthetic_run import Writer, problems
from tmas.testing.synthetic_run import make as make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A hybrid run that was resumed at step 20 after it had reached 25, and one of correctness alone."""
    folder = tmp_path_factory.mktemp("training")
    resumed = make(folder / "hybrid", [range(1, 26), range(21, 41)])
    return [resumed, make(folder / "vanilla", [range(1, 31)], hybrid=False, seed=1)]


@pytest.fixture(scope="module")
def section(runs: list[Path]) -> Section:
    section = training_section(read_training(runs), smooth=5)
    assert section
    return section


def lines_of(item: Item | Section) -> Iterator[Lines]:
    items = item.items if isinstance(item, Section) else [item]
    return (chart for one in items for chart in charts(one) if isinstance(chart, Lines))


def chart(item: Item | Section, title: str) -> Lines:
    [found] = [one for one in lines_of(item) if one.title == title]
    return found


def run_of(folder: Path, *starts: Sequence[tuple[int, dict[str, Any]]]) -> TrainingRun:
    for number, lines in enumerate(starts, start=1):
        write(folder, number, lines)
    [run] = read_training([folder])
    return run


# --- the starts of a run


def test_a_resumed_run_is_one_curve_in_which_the_later_start_wins(runs: list[Path]):
    [run] = read_training(runs[:1])
    logged = [
        {line["step"]: line["data"] for line in map(orjson.loads, file.read_bytes().splitlines())}
        for file in sorted(runs[0].glob("starts/*/metrics.jsonl"))
    ]
    assert logged[0][22] != logged[1][22]
    assert list(run.steps) == list(range(41))
    assert run.trained == list(range(1, 41))
    assert run.began == [0, 20]
    assert run.steps[19] == logged[0][19]
    assert run.steps[22] == logged[1][22]
    assert run.values("timing_s/step")[20] == logged[0][20]["timing_s/step"]
    assert run.values("val-reward/all/acc")[20] == logged[1][20]["val-reward/all/acc"]


def test_a_start_without_a_validation_replaces_all_of_its_first_step(tmp_path: Path):
    run = run_of(tmp_path, [(1, {"a": 1.0}), (2, {"a": 2.0, "b": 2.0})], [(2, {"a": 9.0})])
    assert run.steps == {1: {"a": 1.0}, 2: {"a": 9.0}}


def test_a_start_from_the_beginning_leaves_nothing_of_those_before(tmp_path: Path):
    run = run_of(tmp_path, [(0, {"val-x": 0.1}), (1, {"a": 1.0}), (2, {"a": 2.0})], [(0, {"val-x": 0.2})])
    assert run.steps == {0: {"val-x": 0.2}}


def test_a_start_that_logged_nothing_is_passed_over(tmp_path: Path):
    run = run_of(tmp_path, [], [(1, {"a": 1.0})], [])
    assert (run.began, run.steps) == ([1], {1: {"a": 1.0}})


def test_a_line_that_is_being_written_does_not_count_yet(tmp_path: Path):
    file = write(tmp_path, 1, [(1, {"a": 1.0})])
    file.write_bytes(file.read_bytes() + b'{"step": 2, "data": {"a')
    [run] = read_training([tmp_path])
    assert list(run.steps) == [1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{nonsense}", "line: Invalid JSON"),
        (b"[1]", "line: Input should be an object"),
        (b'{"data": {}}', "step: Field required"),
        (b'{"step": "2", "data": {}}', "step: Input should be a valid integer"),
        (b'{"step": 2, "data": {"actor/loss": "low"}}', "data.actor/loss: Input should be a valid number"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: bytes, said: str):
    file = write(tmp_path, 1, [(1, {"a": 1.0})])
    file.write_bytes(file.read_bytes() + line + b"\n")
    with pytest.raises(UserError, match=re.escape(f"{file}:2: {said}")):
        read_training([tmp_path])


def test_a_directory_without_curves_is_refused_in_words(tmp_path: Path):
    with pytest.raises(UserError, match=rf"{tmp_path}: no line in .* not an output_dir of tmas train"):
        read_training([tmp_path])


def test_names_are_as_long_as_it_takes_to_tell_runs_apart(tmp_path: Path):
    for name in ("a/run", "b/run", "c"):
        write(tmp_path / name, 1, [(1, {"x": 1.0})])

    def names(*given: str) -> list[str]:
        return [run.name for run in read_training([tmp_path / name for name in given])]

    assert names("a/run", "c") == ["run", "c"]
    assert names("a/run", "b/run") == ["a/run", "b/run"]


# --- curves


def test_every_chart_has_every_run_in_its_color(section: Section):
    found = list(lines_of(section))
    assert {tuple((one.name, one.color) for one in chart.series) for chart in found} == {
        (("hybrid", 0), ("vanilla", 1))
    }
    assert all(any(one.points for one in chart.series) for chart in found)
    novelty = chart(section, "Training novelty, guideline rows")
    assert [len(one.points) for one in novelty.series] == [40, 0]


def test_the_tab_shows_all_that_was_asked_for(section: Section):
    titles = {chart.title for chart in lines_of(section)}
    by_source = ("score", "accuracy", "correctness", "truncated", "response tokens", "outcome: no answer")
    for source in ("all", "normal", "experience", "guideline"):
        assert {f"{p} {name}, {source} rows" for p in ("Training", "Validation") for name in by_source} <= titles
        assert f"Training correctness masked, {source} rows" in titles
    assert {
        "Training experience utilisation, experience rows",
        "Training experience masked, experience rows",
        "Training masked, all rows",
        "Validation novelty, guideline rows",
        "Validation accuracy, mean@4 on math",
        "Validation accuracy, maj@4 on math",
        "Seconds a step",
        "Seconds a step: gen",
        "Training gradient norm",
        "Training entropy",
    } <= titles
    assert len({file_name(title) for title in titles}) == len(titles) == len(list(lines_of(section)))


def test_the_curve_is_what_was_logged(runs: list[Path], section: Section):
    [run] = read_training(runs[:1])
    points = chart(section, "Training accuracy, normal rows").series[0].points
    assert [(p.x, p.y) for p in points] == [
        (step, pytest.approx(value, rel=1e-5)) for step, value in run.values("reward/normal/acc").items()
    ]


def test_verification_rows_have_curves_of_their_own(tmp_path: Path):
    under = "reward/verification/"
    values = {"samples": 8.0, "acc": 0.5, "critique": 0.25, "false_accept": 0.5, "false_reject": 0.0, "half": 0.1}
    section = training_section(
        [run_of(tmp_path, [(1, {f"{under}{name}": value for name, value in values.items()})])], smooth=1
    )
    assert section
    names = {"accuracy": 0.5, "critique": 0.25, "false accepts": 0.5, "false rejects": 0.0, "grades of 0.5": 0.1}
    for name, value in names.items():
        found = chart(section, f"Training {name}, verification rows")
        assert [point.y for point in found.series[0].points] == [value]
        assert found.percent == (name != "critique")


def test_smoothing_keeps_the_points_and_says_what_the_line_is(tmp_path: Path):
    values = [0.0, 3.0, 6.0, 0.0, 9.0]
    run = run_of(tmp_path, [(step, {"a": value}) for step, value in enumerate(values, start=1)])
    [smoothed] = Charts([run], 3).of("a", "A", "a")
    assert smoothed.x_label == "step (dots: single steps, line: mean of up to 3)"
    points = smoothed.series[0].points
    assert [point.y for point in points] == values
    assert [point.trend for point in points] == [1.5, 3.0, 3.0, 5.0, 4.5]
    [plain] = Charts([run], 1).of("a", "A", "a")
    assert plain.x_label == "step"
    assert [point.trend for point in plain.series[0].points] == [None] * 5


def test_smoothing_reaches_over_steps_not_over_lines(tmp_path: Path):
    run = run_of(tmp_path, [(1, {"a": 1.0}), (2, {"b": 0.0}), (3, {"a": 2.0}), (9, {"a": 5.0})])
    [smoothed] = Charts([run], 3).of("a", "A", "a")
    assert [point.trend for point in smoothed.series[0].points] == [1.0, 2.0, 5.0]


def test_validation_and_seconds_are_not_smoothed(section: Section):
    for title in ("Validation score, all rows", "Validation accuracy, mean@4 on math", "Seconds a step"):
        assert {point.trend for one in chart(section, title).series for point in one.points} == {None}
    assert None not in {p.trend for p in chart(section, "Training score, all rows").series[0].points}


def test_an_outcome_that_no_sample_had_is_0_but_a_component_that_was_not_scored_is_nothing(tmp_path: Path):
    under = "reward/guideline/"
    run = run_of(
        tmp_path,
        [
            (1, {f"{under}samples": 8.0, f"{under}outcome/no_answer": 0.5, f"{under}novelty": 0.2}),
            (2, {f"{under}samples": 8.0}),
            (3, {"reward/all/samples": 8.0}),
        ],
    )
    section = training_section([run], smooth=1)
    assert section
    [no_answer] = chart(section, "Training outcome: no answer, guideline rows").series
    [novelty] = chart(section, "Training novelty, guideline rows").series
    assert [(p.x, p.y) for p in no_answer.points] == [(1, 0.5), (2, 0.0)]
    assert [(p.x, p.y) for p in novelty.points] == [(1, 0.2)]


def test_names_of_data_sources_may_hold_anything(tmp_path: Path):
    names = [f"val-core/{data}/acc/mean@2" for data in ("math", "open/acc/r1", "<b>", "数学")]
    section = training_section([run_of(tmp_path, [(0, dict.fromkeys(names, 0.5))])], smooth=1)
    assert section
    [choice] = [i for i in section.items if isinstance(i, Choice) and i.label == "Validation, by data source"]
    assert [option.name for option in choice.options] == ["math", "open/acc/r1", "<b>", "数学"]


# --- tables


def test_the_summary_says_how_far_each_run_came(tmp_path: Path):
    steps = [
        (s, {"reward/all/score": s / 10, "timing_s/step": 10.0 * s, "reward/all/samples": 8.0}) for s in range(1, 11)
    ]
    validations = {0: 0.25, 4: 0.75, 10: 0.5}
    lines = [(0, {"val-reward/all/acc": 0.25})] + [
        (s, data | ({"val-reward/all/acc": validations[s], "timing_s/testing": 25.0} if s in validations else {}))
        for s, data in steps
    ]
    table = summary([run_of(tmp_path / "x", lines)])
    [[name, count, first, last, *accuracies, seconds, hours]] = table.rows
    assert (name, count, first, last, seconds, hours) == ("x", "10", "0.300", "0.800", "55.0", "0.17")
    shown = [(cell.text, cell.note) for cell in accuracies]  # type: ignore[union-attr]
    assert shown == [("25.0%", "step 0"), ("50.0%", "step 10"), ("75.0%", "step 4")]


def test_what_a_run_did_not_log_is_left_open_in_the_summary(tmp_path: Path):
    table = summary([run_of(tmp_path / "x", [(1, {"a": 1.0})])])
    assert table.rows == [["x", "1", *["–"] * 7]]


def test_values_that_are_no_number_are_reported_and_not_drawn(tmp_path: Path):
    nan = {"actor/grad_norm": None, "val-aux/math/acc/std@1": None}
    run = run_of(tmp_path / "x", [(1, {"actor/grad_norm": 0.5}), (2, nan), (3, nan)])
    [table] = non_finite_values([run])
    assert table.rows == [["x", "actor/grad_norm", "2", "2", "3"]]
    assert run.values("actor/grad_norm") == {1: 0.5}
    assert list(non_finite_values([run_of(tmp_path / "y", [(1, {"actor/grad_norm": 0.5})])])) == []


def test_the_clip_and_the_importance_ratios_have_charts(tmp_path: Path):
    logged = {"actor/pg_clipfrac": 0.01, "rollout_corr/rollout_is_mean": 0.99, "rollout_corr/rollout_is_max": 2.0}
    [row] = Charts([run_of(tmp_path / "x", [(1, logged)])], 1).optimisation()
    assert [one.title for one in lines_of(row)] == [
        "Training share of tokens that the objective clips",
        "Training importance ratio of trained and rollout policy, mean",
    ]


def test_masked_samples_are_counted_by_reason_over_the_whole_run(tmp_path: Path):
    key = "reward/all/experience_masked"
    run = run_of(
        tmp_path / "x",
        [
            (1, {"reward/all/samples": 50.0, key: 3.0, f"{key}/judge: timeout": 2.0, f"{key}/judge/500": 1.0}),
            (2, {"reward/all/samples": 50.0, key: 3.0, f"{key}/judge: timeout": 3.0}),
        ],
    )
    [table] = masked([run])
    assert isinstance(table, Table)
    assert table.rows == [
        ["x", "training", "experience", "judge/500", "1", "1.00%"],
        ["x", "training", "experience", "judge: timeout", "5", "5.00%"],
    ]
    [unknown] = masked([run_of(tmp_path / "w", [(1, {key: 1.0, f"{key}/judge: timeout": 1.0})])])
    assert isinstance(unknown, Table)
    assert unknown.rows == [["w", "training", "experience", "judge: timeout", "1", "–"]]
    [note] = masked([run_of(tmp_path / "y", [(1, {"reward/all/samples": 50.0, key: 0.0})])])
    assert isinstance(note, Note)
    assert list(masked([run_of(tmp_path / "z", [(1, {"reward/all/samples": 50.0})])])) == []


def test_parts_of_a_step_and_what_was_not_timed_add_up(tmp_path: Path):
    parts = {"timing_s/gen": 5.0, "timing_s/update_actor": 3.0, "timing_s/step": 10.0}
    run = run_of(tmp_path / "x", [(1, parts), (2, parts | {"timing_s/testing": 6.0})])
    [bars] = seconds_by_part([run])
    assert bars.rows == ["x"]
    assert [(one.name, one.values) for one in bars.series] == [
        ("gen", [5.0]),
        ("update_actor", [3.0]),
        ("testing", [3.0]),
        ("other", [2.0]),
    ]


def test_only_the_widest_parts_have_a_color_of_their_own(tmp_path: Path):
    parts = {f"timing_s/p{i}": float(i) for i in range(1, 11)}
    [bars] = seconds_by_part([run_of(tmp_path / "x", [(1, {**parts, "timing_s/step": 55.0})])])
    assert isinstance(bars, Bars)
    assert [one.name for one in bars.series] == [*(f"p{i}" for i in range(4, 11)), "other"]
    assert bars.series[-1].values == [6.0]
    assert [one.color for one in bars.series] == list(range(8))


# --- the page


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"))
    assert found
    return orjson.loads(found[1])


def test_training_runs_alone_make_a_page(runs: list[Path], tmp_path: Path):
    page = make_report(ReportSettings(training=tuple(runs), output=tmp_path / "page.html"))
    data = data_of(page)
    assert [section["id"] for section in data["sections"]] == ["training", "about"]
    assert data["runs"] == []
    assert "<title>TMAS report: hybrid, vanilla</title>" in page.read_text("utf-8")


def test_runs_of_both_kinds_have_colors_of_their_own(runs: list[Path], tmp_path: Path):
    solved = asyncio.run(make_run(tmp_path / "run", problems(1), team.method(max_iterations=2), Writer(seed=1)))
    page = make_report(ReportSettings(runs=(solved,), training=tuple(runs), output=tmp_path / "page.html"))
    sections = {section["id"]: section for section in data_of(page)["sections"]}
    assert list(sections)[-3:] == ["training", "problems", "about"]
    [charts] = [item for item in sections["training"]["items"] if item.get("label") == "Reward in training"]
    assert [one["color"] for one in charts["options"][0]["item"]["items"][0]["series"]] == [1, 2]
    titles = [item["title"] for item in sections["about"]["items"] if "title" in item]
    assert titles == ["Runs", "Training runs"]


def test_about_compares_settings_and_keeps_the_environment_to_itself(runs: list[Path], tmp_path: Path):
    page = make_report(ReportSettings(training=tuple(runs), output=tmp_path / "page.html"))
    about = data_of(page)["sections"][-1]
    table, settings = about["items"]
    assert [row[2:] for row in table["rows"]] == [["2", "0, 20", "40", "read"], ["1", "0", "30", "read"]]
    assert [option["name"] for option in settings["options"]] == ["Differing", "All"]
    assert settings["options"][0]["item"]["rows"] == [["data.seed", "0", "1"], ["reward", "hybrid", "vanilla"]]
    assert "SECRET" not in page.read_text("utf-8")


def test_curves_without_their_config_are_shown_all_the_same(tmp_path: Path):
    write(tmp_path / "x", 1, [(1, {"actor/entropy": 1.0})])
    page = make_report(ReportSettings(training=(tmp_path / "x",)))
    assert page == tmp_path / "x" / "report.html"
    [table] = data_of(page)["sections"][-1]["items"]
    assert table["rows"][0][-1] == "missing"


def test_a_config_that_cannot_be_read_is_named(tmp_path: Path):
    file = write(tmp_path, 1, [(1, {"a": 1.0})]).with_name("config.yaml")
    file.write_text("a: [1\nb: 2\n")
    with pytest.raises(UserError, match=rf"(?s){file}: .*line 2"):
        make_report(ReportSettings(training=(tmp_path,)))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, r"give runs=\[DIR,...\], training=\[DIR,...\], or both"),
        ({"training": ("a", "b/../a")}, "given twice"),
        ({"training": ("a",), "smooth": 4}, "has to be odd"),
        ({"training": ("a",), "smooth": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        ReportSettings.model_validate(given)


def test_the_command_takes_several_runs_and_names_the_line_it_cannot_read(runs: list[Path], tmp_path: Path):
    file = write(tmp_path / "bad", 1, [(1, {"a": "x"})])
    done = tmas("report", f"training=[{runs[0]},{tmp_path / 'bad'}]", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"tmas: {file}:1: data.a: Input should be a valid number\n"


# --- figures


@pytest.fixture
def axes() -> Iterator[Any]:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure, axes = pyplot.subplots()
    yield axes
    pyplot.close(figure)


def lines_chart(*points: Point) -> Lines:
    return Lines("t", "step", "y", [Series("a", 0, points), Series("empty", 1, [])])


def test_a_figure_shows_single_steps_and_the_line(axes: Any):
    draw(axes, lines_chart(Point(1, 0.0, trend=0.5), Point(2, 1.0, trend=0.5)))
    dots, line = axes.get_lines()
    assert (list(dots.get_ydata()), dots.get_linewidth(), dots.get_marker()) == ([0.0, 1.0], 0, "o")
    assert (list(line.get_ydata()), line.get_marker()) == ([0.5, 0.5], "None")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a"]


def test_a_figure_does_not_cut_off_what_is_negative(axes: Any):
    draw(axes, lines_chart(Point(1, -2.0), Point(2, 1.0)))
    assert axes.get_ylim()[0] < -2.0


def test_figures_of_training_are_written(tmp_path: Path):
    pytest.importorskip("matplotlib")
    twins = {"val-core/a b/acc/mean@1": 0.25, "val-core/a-b/acc/mean@1": 0.75}
    write(tmp_path / "x", 1, [(1, {"actor/entropy": 1.0, **twins})])
    make_report(ReportSettings(training=(tmp_path / "x",), figures=tmp_path / "figures"))
    twin = "validation-accuracy-mean-1-on-a-b"
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        f"{name}.{suffix}" for name in ("training-entropy", twin, f"{twin}-other") for suffix in ("png", "svg")
    }
