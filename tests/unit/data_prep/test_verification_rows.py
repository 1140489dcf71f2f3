"""``tmas build rows.verification=N``: which candidates become rows, and what the rows show."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from tests.support.data_steps import distill_settings, problem_file, runner, silent
from tmas.data_prep.build import build
from tmas.data_prep.build_settings import BuildSettings
from tmas.data_prep.distill import distill
from tmas.data_prep.pool import read_problems
from tmas.data_prep.verification import VerificationRowSettings, is_right
from tmas.files import append_lines, write_lines
from tmas.records.run_files import PredictedCandidate
from tmas.run.replay import RecordedRun
from tmas.run.trace import read_calls
from tmas.settings import RunSettings
from tmas.testing import team
from tmas.testing.chat_server import ScriptedServer, run_in_thread
from tmas.training.rows import TrainingRow, read_rows, validate_rows

NONE = {"normal": 0, "experience": 0, "guideline": 0}


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve problems with pass rates from 1/16 to 13/16, and a team's run on them."""
    folder = tmp_path_factory.mktemp("verification")
    pool = problem_file(folder, 12)
    rated = [p.model_copy(update={"baseline_pass_rate": (i + 1) / 16}) for i, p in enumerate(read_problems(pool))]
    write_lines(folder / "problems.jsonl", rated)
    with run_in_thread(ScriptedServer(team.reply)) as server:
        distill(distill_settings(server, folder / "teacher", folder / "problems.jsonl"), runner, silent)
    return folder


def made(steps: Path, output: Path, wanted: int = 24, **changes: Any) -> list[TrainingRow]:
    given = {
        "problems": steps / "problems.jsonl",
        "run": steps / "teacher",
        "output_dir": output,
        "tokenizer": "estimate",
        "max_prompt_tokens": 4000,
        "rows": {**NONE, "verification": wanted},
        "validation_share": 0,
        "sft": {"per_role": 0},
    }
    build(BuildSettings.model_validate(given | changes), silent)
    path = output / "train.parquet"
    return list(read_rows(path)) if path.exists() else []


def report(output: Path) -> dict[str, Any]:
    return orjson.loads((output / "report.json").read_bytes())


def test_every_problem_gives_as_many_right_as_wrong_candidates(steps: Path, tmp_path: Path):
    rows = made(steps, tmp_path)
    assert len(rows) == 24
    assert validate_rows(tmp_path / "train.parquet") == 24
    by_problem = Counter((row.extra_info.problem_id, row.truth.label) for row in rows if row.truth)
    problems = {problem for problem, _ in by_problem}
    assert all(by_problem[problem, "right"] == by_problem[problem, "wrong"] for problem in problems)
    assert max(by_problem.values()) == 2  # of per_problem=4, half are right
    assert [row.truth.label for row in rows if row.truth] != sorted(row.truth.label for row in rows if row.truth)


def test_the_label_is_the_verdict_of_the_run_and_the_candidate_is_from_it(steps: Path, tmp_path: Path):
    run, problems = RecordedRun(steps / "teacher"), {p.problem_id: p for p in read_problems(steps / "problems.jsonl")}
    rows = made(steps, tmp_path)
    assert len(rows) == 24
    for row in rows:
        assert row.truth
        info, gold = row.extra_info, problems[row.extra_info.problem_id].answer
        candidates = run.prediction(info.problem_id).iterations[info.iteration].candidates
        texts = run.trajectory(problems[info.problem_id]).iterations[info.iteration].rollouts
        [place] = {i for i, r in enumerate(texts) if getattr(r.solution, "text", "") == row.truth.candidate}
        assert row.truth.right == (candidates[place].correct == "equal")
        assert (row.truth.gold, row.data_source, row.reward_model.style) == (gold, "verification", "rule")


def test_a_row_has_the_prompt_that_the_verifier_got_in_the_run(steps: Path, tmp_path: Path):
    calls = {
        call.messages[-1].content: call.key
        for file in (steps / "teacher" / "trace").iterdir()
        for call in read_calls(file)
        if call.key.role == "verification"
    }
    rows = made(steps, tmp_path)
    assert len(rows) == 24
    for row in rows:
        [message] = row.prompt
        key = calls[message.content]
        assert (key.problem_id, key.iteration) == (row.extra_info.problem_id, row.extra_info.iteration)


def test_the_rows_are_spread_over_the_pass_rates(steps: Path, tmp_path: Path):
    made(steps, tmp_path, wanted=12)
    bins = report(tmp_path)["verification"]["train.parquet"]
    assert [(b["low"], b["high"]) for b in bins] == [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]
    assert all(b["right"] == b["wrong"] for b in bins)
    rows = [b["right"] + b["wrong"] for b in bins]
    assert sum(rows) == 12
    assert max(rows[:3]) - min(rows[:3]) <= 4  # a problem gives up to four rows; the last bin has one problem
    card = (tmp_path / "README.md").read_text()
    assert f"| 0.00 to 0.25 | {bins[0]['problems']} | {bins[0]['right']} | {bins[0]['wrong']} |" in card


def test_without_measured_pass_rates_the_run_gives_them(steps: Path, tmp_path: Path):
    unknown = [p.model_copy(update={"baseline_pass_rate": -1.0}) for p in read_problems(steps / "problems.jsonl")]
    write_lines(tmp_path / "problems.jsonl", unknown)
    rows = made(steps, tmp_path / "rows", problems=tmp_path / "problems.jsonl")
    run = RecordedRun(steps / "teacher")
    counts = Counter[int]()
    for problem in {row.extra_info.problem_id for row in rows}:
        found = [c.correct == "equal" for i in run.prediction(problem).iterations for c in i.candidates]
        counts[min(3, int(4 * sum(found) / len(found)))] += 1
    assert [b["problems"] for b in report(tmp_path / "rows")["verification"]["train.parquet"]] == [
        counts[n] for n in range(4)
    ]


def test_the_rows_come_in_pairs_and_zero_makes_none(steps: Path, tmp_path: Path):
    assert len(made(steps, tmp_path / "odd", wanted=7)) == 6
    assert made(steps, tmp_path / "none", wanted=0) == []
    assert report(tmp_path / "none")["verification"] == {}


def test_the_other_rows_are_the_same_with_and_without_them(steps: Path, tmp_path: Path):
    def others(folder: str, verification: int) -> set[str]:
        wanted = {"normal": 5, "experience": 4, "guideline": 2, "verification": verification}
        rows = made(steps, tmp_path / folder, rows=wanted)
        kept = [row.model_copy(update={"extra_info": row.extra_info.model_copy(update={"index": 0})}) for row in rows]
        return {row.model_dump_json() for row in kept if row.source != "verification"}

    assert others("with", 8) == others("without", 0)


def test_the_seed_decides_everything(steps: Path, tmp_path: Path):
    first, again, other = (
        [row.model_dump_json() for row in made(steps, tmp_path / name, wanted=8, seed=seed)]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again != other


def test_candidates_of_runs_of_other_methods_are_used_if_they_are_named(steps: Path, tmp_path: Path):
    problems = [*read_problems(steps / "problems.jsonl")]
    with run_in_thread(ScriptedServer(team.reply)) as server:
        settings = RunSettings(model=team.model(server.base_url), method=team.small("majority_vote"))
        runner(problems, settings, tmp_path / "votes")
    rows = made(steps, tmp_path / "rows", verification={"runs": [tmp_path / "votes"]})
    run, by_id = RecordedRun(tmp_path / "votes"), {p.problem_id: p for p in problems}
    assert rows
    for row in rows:
        assert row.truth
        [only] = run.trajectory(by_id[row.extra_info.problem_id]).iterations
        assert row.truth.candidate in {getattr(r.solution, "text", "") for r in only.rollouts}
    assert str(tmp_path / "votes" / "manifest.json") in report(tmp_path / "rows")["inputs"]


def test_a_candidate_of_which_only_a_part_fits_is_left_out_and_counted(steps: Path, tmp_path: Path):
    lengths = [len(row.prompt[0].content) for row in made(steps, tmp_path / "all", wanted=96, verification={"bins": 1})]
    tight = (min(lengths) - 1) // 3 + 64  # the estimate counts three bytes a token, and 64 tokens of chat template
    assert made(steps, tmp_path / "tight", max_prompt_tokens=tight) == []
    left_out = report(tmp_path / "tight")["skipped"]
    assert left_out.get("candidate: shortened", 0) + left_out.get("candidate: context", 0) > 0


def candidate(answer: str | None, correct: str | None) -> PredictedCandidate:
    given = {"candidate": 0, "mode": "initial", "answer": answer, "correct": correct, "grades": (), "mean_grade": None}
    return PredictedCandidate.model_validate(given | {"failure": None})


@pytest.mark.parametrize(
    ("correct", "judge", "right"),
    [
        ("equal", None, True),
        ("different", None, False),
        ("undecided", None, None),
        ("undecided", True, True),
        ("undecided", False, False),
        ("equal", True, True),
        ("equal", False, None),  # they contradict each other
        ("different", True, None),
    ],
)
def test_a_recorded_judgement_decides_where_the_rule_does_not(correct: str, judge: bool | None, right: bool | None):
    assert is_right(candidate("6", correct), "5", {("5", "6"): judge}) is right
    assert is_right(candidate(None, None), "5", {}) is None


def test_undecided_candidates_are_left_out_and_counted(steps: Path, tmp_path: Path):
    """A judge contradicts the rule about every answer 0."""
    run = tmp_path / "teacher"
    run.mkdir()
    for entry in (steps / "teacher").iterdir():
        (run / entry.name).symlink_to(entry)
    verdict = {"judge": "j", "model": "m", "prompt": "h", "reasoning": "", "failure": None}
    lines = [
        {**verdict, "gold": str(gold), "answer": "0", "pass": 0, "verdict": "different" if gold == 0 else "equivalent"}
        for gold in range(3)
    ]
    append_lines(run / "judgements.jsonl", [{"v": 1, **line} for line in lines])
    rows = made(steps, tmp_path / "rows", wanted=96, verification={"runs": [run]})
    assert rows
    assert not any(row.truth and row.truth.candidate.endswith("\\boxed{0}.") for row in rows)
    assert report(tmp_path / "rows")["skipped"]["candidate: undecided"] > 0


@pytest.mark.parametrize(("key", "value"), [("per_problem", 1), ("bins", 0)])
def test_settings_that_give_no_pair_are_refused(key: str, value: int):
    with pytest.raises(ValidationError, match=rf"{key}\n  Input should be greater than or equal to {value + 1}"):
        VerificationRowSettings.model_validate({key: value})
