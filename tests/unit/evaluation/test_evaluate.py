"""evaluation/evaluate.py: run directories in, evaluation.json out; by rule, by a scripted judge, and at the shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from tests.support.commands import tmas, tmas_process
from tests.support.runs import Line, candidate, iteration, prediction, write_run
from tmas.errors import UserError
from tmas.evaluation.compute import Measure, accuracy_at
from tmas.evaluation.estimators import BootstrapSettings
from tmas.evaluation.evaluate import EvaluateSettings, evaluate
from tmas.evaluation.runs import read_run
from tmas.evaluation.scoring import MAX_ANSWER
from tmas.testing.chat_server import Body, ScriptedServer, run_in_thread


def lines() -> list[Line]:
    """p: right after its second iteration; q: stops after one, undecided by rule; r: no gold answer."""
    first = iteration([candidate("6", [1.0]), candidate("1/2", [0.0])], "6")
    second = iteration([candidate("0.5", [1.0], "explore"), candidate("1/2", [1.0])], "0.5")
    only = iteration([candidate("all odd n", [0.5]), candidate("7", [0.5])], "all odd n")
    return [
        prediction("p", "1/2", [first, second], [(100, 20), (200, 30)]),
        prediction("q", "odd n", [only], [(50, 10)]),
        prediction("r", None, [only], [(50, 10)]),
    ]


def settings(*runs: Path, **changes: Any) -> EvaluateSettings:
    bootstrap = BootstrapSettings(resamples=200)
    return EvaluateSettings.model_validate(
        {"runs": runs, "workers": 1, "timeout": 60.0, "bootstrap": bootstrap, **changes}
    )


async def evaluated(chosen: EvaluateSettings) -> list[dict[str, Any]]:
    return [evaluation.model_dump(mode="json") for evaluation in await evaluate(chosen)]


def judge(server: ScriptedServer, **changes: Any) -> dict[str, Any]:
    base = {"name": "judge", "base_url": server.base_url, "passes": 4, "timeout": 60.0}
    return base | {"patience": {"max_attempts": 1}} | changes


def lenient(body: Body) -> list[str]:
    """Finds only "all odd n" equivalent, and only in three passes of four."""
    odd = "\nall odd n\n" in body["messages"][0]["content"]
    said = ["equivalent" if odd and choice else "different" for choice in range(body.get("n", 1))]
    return [json.dumps({"reasoning": "", "verdict": verdict}) for verdict in said]


def values(evaluation: dict[str, Any], t: int, scoring: str = "rule") -> dict[str, float | None]:
    return {name: found["value"] for name, found in evaluation["iterations"][t]["scores"][scoring].items()}


async def test_by_rule(tmp_path: Path):
    run = write_run(tmp_path / "run", lines(), unfinished=["s"], seed=7)
    [found] = await evaluated(settings(run))
    assert orjson.loads((run / "evaluation.json").read_bytes()) == found
    assert found["run"] | {"method": "tmas", "seed": 7, "models": {"solution": "small"}} == found["run"]
    assert found["problems"] == {
        "finished": 3,
        "unfinished": 1,
        "without_gold": 1,
        "stops": {"max_iterations": 3},
    }
    assert found["verdicts"]["judge"] is found["agreement"] is None
    # q is undecided by rule: of its two candidates one, "7", is undecided against words too
    assert found["verdicts"]["rule"] | {"equal": 2, "different": 1, "undecided": 2} == found["verdicts"]["rule"]
    # q is undecided: it counts as wrong, and in the upper bound as right
    assert values(found, 0) == {"pass_at_1": 0.25, "pass_at_2": 0.5, "selected": 0.0, "vote": 0.25, "best_of": 0.0}
    assert values(found, 1) == dict.fromkeys(("pass_at_1", "pass_at_2", "selected", "vote", "best_of"), 0.5)
    selected = found["iterations"][1]["scores"]["rule"]["selected"]
    assert (selected["problems"], selected["left_out"], selected["upper"]) == (2, 0, 1.0)
    assert [i["undecided"] for i in found["iterations"]] == [{"rule": 2}, {"rule": 0}]
    assert found["iterations"][1]["modes"]["rule"]["explore"] == {"candidates": 1, "accuracy": 1.0, "upper": 1.0}
    assert [i["running"] for i in found["iterations"]] == [3, 1]
    assert [p["problem_id"] for p in found["by_problem"]] == ["p", "q"]
    assert [(s["prompt_tokens"], s["completion_tokens"]) for s in found["by_problem"][0]["iterations"]] == [
        (100, 20),
        (300, 50),
    ]


async def test_by_judge(tmp_path: Path):
    run = write_run(tmp_path / "run", lines())
    async with ScriptedServer(lenient) as server:
        [found] = await evaluated(settings(run, judge=judge(server)))
        again = await evaluated(settings(run, judge=judge(server)))
    assert [found] == again
    assert len(server.requests) == 4  # 6 and 0.5 beside 1/2, two answers beside "odd n"; 1/2 is the gold answer itself
    assert found["verdicts"]["judge"] == {"equivalent": 3, "different": 13, "failed": {}, "not_asked": 1}
    assert values(found, 1, "judge")["pass_at_1"] == pytest.approx((0.5 + 3 / 8) / 2)  # 1/2 alone; q: 3/4 of one of two
    assert values(found, 1, "judge")["selected"] == pytest.approx((0 + 3 / 4) / 2)
    both = found["agreement"]["rule_and_judge"]
    assert both["table"]["equal"] == {"equivalent": 0, "different": 1, "split": 0, "failed": 0}
    assert both["disagreements"] == [{"gold": "1/2", "answer": "0.5", "rule": "equal", "judge": 0.0}]
    assert found["settings"]["judge"] | {"name": "judge", "passes": 4, "scope": "all"} == found["settings"]["judge"]


async def test_the_judge_can_be_left_to_what_the_rule_cannot_decide(tmp_path: Path):
    run = write_run(tmp_path / "run", lines())
    async with ScriptedServer(lenient) as server:
        [found] = await evaluated(settings(run, judge=judge(server), judge_scope="undecided"))
    assert len(server.requests) == 2
    assert values(found, 1, "judge")["pass_at_1"] == pytest.approx((1 + 3 / 8) / 2)
    assert found["verdicts"]["judge"]["not_asked"] == 3


async def test_an_answer_too_long_to_be_one_is_not_sent_and_has_the_rules_verdict(tmp_path: Path):
    endless = "1" * (MAX_ANSWER + 1)
    run = write_run(tmp_path / "run", [prediction("p", "7", [iteration([candidate(endless)], endless)], [(1, 1)])])
    async with ScriptedServer(lenient) as server:
        [found] = await evaluated(settings(run, judge=judge(server)))
    assert server.requests == []
    assert found["verdicts"]["judge"] == {"equivalent": 0, "different": 0, "failed": {}, "not_asked": 1}
    assert values(found, 0, "judge")["pass_at_1"] == values(found, 0)["pass_at_1"] == 0.0


async def test_a_judge_that_is_down_leaves_a_wide_interval_between_the_bounds(tmp_path: Path):
    run = write_run(tmp_path / "run", lines())
    async with ScriptedServer() as server:
        pass
    [found] = await evaluated(settings(run, judge=judge(server)))
    assert found["verdicts"]["judge"]["failed"] == {"endpoint": 16}
    # 1/2 is the gold answer as it stands; nothing else is known
    assert values(found, 0, "judge")["pass_at_1"] == 0.25
    assert found["iterations"][0]["scores"]["judge"]["pass_at_1"]["upper"] == 1.0
    assert found["iterations"][0]["undecided"]["judge"] == 3


async def test_seeds_share_a_group_and_other_settings_do_not(tmp_path: Path):
    runs = [
        write_run(tmp_path / "a", lines(), seed=0),
        write_run(tmp_path / "b", lines(), seed=1),
        write_run(tmp_path / "c", lines(), seed=1, method__epsilon=0.5),
        write_run(tmp_path / "d", lines()[:2], seed=1),
    ]
    groups = [found["run"]["group"] for found in await evaluated(settings(*runs))]
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3


async def test_a_run_without_gold_answers_still_has_its_facts(tmp_path: Path):
    run = write_run(tmp_path / "run", lines()[2:])
    [found] = await evaluated(settings(run))
    assert found["by_problem"] == []
    assert found["iterations"][0]["scores"] == {}
    assert found["iterations"][0]["cumulative"]["prompt_tokens"] == 50


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"not a run directory: manifest\.json is missing"):
        read_run(tmp_path)
    (tmp_path / "file.jsonl").touch()
    with pytest.raises(UserError, match=r"file\.jsonl: not a run directory: .* Give the output_dir of tmas solve"):
        read_run(tmp_path / "file.jsonl")
    with pytest.raises(UserError, match="no finished problem"):
        read_run(write_run(tmp_path / "empty", []))
    other = write_run(tmp_path / "other", lines())
    manifest = orjson.loads((other / "manifest.json").read_bytes())
    (other / "manifest.json").write_bytes(orjson.dumps(manifest | {"schema_version": 99}))
    with pytest.raises(UserError, match="schema version 99"):
        read_run(other)


def test_a_configuration_without_settings_is_refused(tmp_path: Path):
    run = write_run(tmp_path / "run", lines())
    for text in ("", "- a list\n"):
        (run / "config.yaml").write_text(text)
        with pytest.raises(UserError, match=r"config\.yaml: it is empty, or not a YAML mapping"):
            read_run(run)


def test_a_run_is_given_once(tmp_path: Path):
    with pytest.raises(ValidationError, match="given twice"):
        settings(tmp_path / "a", tmp_path / "b" / ".." / "a")


# --- at the shell


def test_the_command_prints_tables_and_compares(tmp_path: Path):
    one = write_run(tmp_path / "one", lines())
    two = write_run(tmp_path / "two", lines()[:1], method__name="majority_vote")
    with run_in_thread(ScriptedServer(lenient)) as server:
        given = ("judge=endpoint", "judge.name=judge", f"judge.base_url={server.base_url}")
        words = ("evaluate", f"runs=[{one},{two}]", *given, f"output={tmp_path / 'compared.json'}")
        done = tmas_process(*words, env={"COLUMNS": "160"})
    assert done.returncode == 0, done.stderr
    for title in ("tmas on problems: 3 problems", "Accuracy by iteration (judge", "Tokens by role", "at equal compute"):
        assert title in done.stdout
    [compared] = orjson.loads((tmp_path / "compared.json").read_bytes())
    assert [group["label"] for group in compared["groups"]] == ["tmas", "majority_vote"]
    assert compared["problems"] == 1


def test_the_command_prints_costs_at_the_price_that_is_given(tmp_path: Path):
    one = write_run(tmp_path / "one", lines())
    two = write_run(tmp_path / "two", lines()[:1], method__name="majority_vote")
    words = ("evaluate", f"runs=[{one},{two}]", "price.input=1000", "price.output=2000")
    done = tmas(*words, f"output={tmp_path / 'compared.json'}", env={"COLUMNS": "160"})
    assert done.returncode == 0, done.stderr
    assert "selected at equal cost (rule; columns: USD per problem)" in done.stdout
    tokens, money = orjson.loads((tmp_path / "compared.json").read_bytes())
    assert (tokens["unit"], money["unit"], money["currency"]) == ("tokens", "money", "USD")
    assert money["groups"][0]["cost_per_problem"] == pytest.approx(0.3 + 2 * 0.05)
    found = orjson.loads((one / "evaluation.json").read_bytes())
    assert found["cost"] == {"currency": "USD", "total": pytest.approx(0.54), "by_role": {
        "solution": pytest.approx(0.27), "verification": pytest.approx(0.27),
    }}  # fmt: skip
    assert [step["cost"] for step in found["by_problem"][0]["iterations"]] == pytest.approx([0.14, 0.4])
    unpriced = tmas("evaluate", f"runs=[{one}]")
    assert "USD" not in unpriced.stdout
    assert "cost" not in orjson.loads((one / "evaluation.json").read_bytes())


def test_the_command_prints_differences_by_iteration_and_the_boundary(tmp_path: Path):
    right, wrong = candidate("1/2", [1.0]), candidate("7", [0.5])
    equal = [prediction("p", "1/2", [iteration([right, wrong], "1/2")] * 2, [(10, 10)] * 2)]
    runs = [write_run(tmp_path / f"a{seed}", equal, seed=seed) for seed in (0, 1)]
    better = [prediction("p", "1/2", [iteration([right, right], "1/2")] * 2, [(10, 10)] * 2)]
    runs.append(write_run(tmp_path / "b", better, method__name="majority_vote"))
    done = tmas("evaluate", f"runs=[{','.join(map(str, runs))}]", env={"COLUMNS": "160"})
    assert done.returncode == 0, done.stderr
    for text in (
        "majority_vote minus tmas by iteration (rule; percentage points)",
        "+50.0 [-100.0,+100.0]",  # Pass@1: one problem says nothing about others
        "Paired by problem (1), 1 and 2 runs",
        "AUROC within problems 1.00",
        "tmas: generation and verification by difficulty",
        "1.00 [0.03,1.00] (1)",
        "iteration 0 of the other seeds",
    ):
        assert text in done.stdout
    prose = " ".join(done.stdout.split())
    assert "p: permutation test of the signs for each iteration, not corrected for multiple comparisons." in prose
    assert "p: permutation test of the signs, not corrected for multiple comparisons." in prose
    first, _, other = (orjson.loads((run / "evaluation.json").read_bytes()) for run in runs)
    assert first["differences"] is None
    assert [step["difference"]["value"] for step in other["differences"]["differences"]["pass_at_1"]] == [0.5, 0.5]
    [middle] = [one for one in first["boundary"]["rule"]["bins"] if one["problems"]]
    assert (middle["low"], middle["high"], middle["accuracy"]["value"]) == (0.375, 0.625, 0.5)
    assert (middle["false_accept"]["value"], middle["false_reject"]["value"]) == (0, 0)


def test_many_runs_are_one_row_per_method_and_fit_80_columns(tmp_path: Path):
    right, wrong = candidate("1/2", [1.0]), candidate("7", [0.5])
    ungraded = iteration([candidate("1/2"), candidate("7")], "7")
    for seed in (0, 1):
        for epsilon, chosen in ((0.1, "1/2"), (0.4, "7")):
            solved = [
                prediction(f"p{i}", "1/2", [iteration([right, wrong], chosen)] * 2, [(9000, 100)] * 2) for i in "ab"
            ]
            write_run(tmp_path / f"tmas-{epsilon}-{seed}", solved, seed=seed, method__epsilon=epsilon)
        for name in ("majority_vote", "rse"):
            votes = [prediction(f"p{i}", "1/2", [ungraded], [(9000, 100)]) for i in "ab"]
            write_run(tmp_path / f"{name}-{seed}", votes, seed=seed, method__name=name)
    (tmp_path / "not-a-run").mkdir()
    words = ("evaluate", f"runs=[{tmp_path}/*]", "baseline=majority_vote", f"output={tmp_path / 'compared.json'}")
    done = tmas(*words, env={"COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert max(map(len, shown)) <= 80
    assert "…" not in done.stdout
    assert "Tokens by role" not in done.stdout  # details are for few methods
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in shown if line.startswith("│")]
    overview = {row[0]: row[1:] for row in rows[:12] if row[0] and row[0] != "method"}
    assert [*overview] == ["majority_vote", "rse", "tmas (epsilon=0.1)", "tmas (epsilon=0.4)"]
    assert overview["tmas (epsilon=0.1)"] == ["2", "18.2k", "50.0", "+0.0", "100.0", "+100.0"]
    [compared] = orjson.loads((tmp_path / "compared.json").read_bytes())
    assert [group["final"]["selected"]["value"] for group in compared["groups"]] == [0.0, 0.0, 1.0, 0.0]
    assert compared["groups"][2]["final_difference"]["selected"]["difference"]["value"] == 1.0
    assert compared["groups"][0]["final_difference"] == {}


async def test_undecided_answers_bound_a_sampling_method_at_smaller_budgets(tmp_path: Path):
    round_ = iteration([candidate("odd n"), candidate("all odd n")], "odd n")
    run = write_run(tmp_path / "vote", [prediction("p", "odd n", [round_], [(90, 10)])], method__name="majority_vote")
    found = await evaluate(settings(run))
    at_half = accuracy_at(found, 50, Measure("pass_at_1"))
    assert (at_half.value, at_half.bound) == (0.5, 1.0)


def test_a_method_without_grades_has_no_best_of_n(tmp_path: Path):
    ungraded = [prediction("p", "1/2", [iteration([candidate("1/2"), candidate("7")], "7")], [(90, 10)])]
    run = write_run(tmp_path / "vote", ungraded, method__name="majority_vote")
    other = write_run(tmp_path / "rse", ungraded, method__name="rse")
    done = tmas("evaluate", f"runs=[{run},{other}]", "details=true")
    assert done.returncode == 0, done.stderr
    assert "Accuracy by iteration" in done.stdout
    assert "best of N" not in done.stdout
    assert "Verifier" not in done.stdout


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_that_has_finished_only_problems_without_a_gold_answer_leaves_the_table_to_the_others(
    tmp_path: Path, seed: int
):
    ungraded = iteration([candidate("1/2"), candidate("7")], "7")
    solved = [prediction(name, gold, [ungraded], [(90, 10)]) for name, gold in (("p", "1/2"), ("r", None))]
    runs = [write_run(tmp_path / str(number), solved, seed=number) for number in (0, 1)]
    (runs[seed] / "predictions.jsonl").write_bytes(orjson.dumps(solved[1]) + b"\n")
    done = tmas("evaluate", f"runs=[{tmp_path}/*]")
    assert done.returncode == 0, done.stderr
    assert "tmas on problems" in done.stdout
    assert "Accuracy by iteration" in done.stdout


def test_a_benchmark_has_the_name_of_its_data_setting_and_older_runs_that_of_the_file(tmp_path: Path):
    run = write_run(tmp_path / "run", lines())
    config = run / "config.yaml"
    for name, expected in (
        ("name: imo_answerbench, ", "imo_answerbench"),
        ("name: null, ", "answers"),
        ("", "answers"),
    ):
        config.write_text(f"problems: files/answers.csv\ndata: {{{name}hub: null}}\n")
        assert read_run(run).benchmark == expected


def test_the_command_tells_what_is_missing_and_ends_with_3(tmp_path: Path):
    run = write_run(tmp_path / "run", lines())
    with run_in_thread(ScriptedServer(lambda body: "no verdict")) as server:
        done = tmas("evaluate", f"runs=[{run}]", "judge=endpoint", "judge.name=j", f"judge.base_url={server.base_url}")
    assert done.returncode == 3
    assert "16 verdicts of the judge failed" in done.stderr


def test_the_command_refuses_what_is_no_run(tmp_path: Path):
    done = tmas("evaluate", f"runs=[{tmp_path}]")
    assert done.returncode == 2
    assert "not a run directory" in done.stderr


def test_a_dry_run_checks_the_settings_and_the_judges_key_before_there_are_runs(tmp_path: Path):
    given = ["evaluate", f"runs=[{tmp_path / 'later'}]", "dry_run=true"]
    assert tmas(*given).returncode == 0
    judge = ["judge=endpoint", "judge.name=m"]
    missing = tmas(*given, *judge)
    assert (missing.returncode, "not set: judge.base_url" in missing.stderr) == (2, True)
    key = tmas(*given, *judge, "judge.base_url=http://127.0.0.1:9/v1", "judge.api_key_env=NO_SUCH_KEY")
    assert (key.returncode, "NO_SUCH_KEY" in key.stderr) == (2, True)
    assert not (tmp_path / "later").exists()
