"""`tmas demo`: sample sizes at equal tokens, what the terminal shows, and the command with the rule-based teacher."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console

from recipes.miniature.task import Task
from recipes.miniature.teacher import Teacher
from tmas.cli.demo import demo_command
from tmas.errors import UserError
from tmas.files import read_lines
from tmas.miniature.shown import BAR_WIDTH, print_demo
from tmas.records.evaluation_files import Estimate, EvaluatedIteration, EvaluatedProblem, EvaluatedRun, Evaluation
from tmas.testing.chat_server import Body, ScriptedServer, run_in_thread

CONF = str(Path(__file__).parents[3] / "conf")

# --- what is shown


def estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.1, high=value + 0.1, problems=20, left_out=0)


def evaluation(method: str, candidates: int, tokens: int, *rates: tuple[float, float]) -> Evaluation:
    """Of 20 problems; a pair of Pass@1 and the rate of right selected answers for each iteration.

    Only what the demo reads is filled in.
    """
    steps = tuple(
        EvaluatedIteration.model_construct(
            iteration=t,
            running=20,
            candidates=20 * candidates,
            scores={"rule": {"pass_at_1": estimate(pass_at_1), "selected": estimate(selected)}},
        )
        for t, (pass_at_1, selected) in enumerate(rates)
    )
    problem = EvaluatedProblem.model_construct(
        problem_id="p", digest="d", prompt_tokens=9_999, completion_tokens=tokens
    )
    run = EvaluatedRun(method=method, benchmark=None, seed=0, group="g", models={})
    return Evaluation.model_construct(run=run, iterations=steps, by_problem=(problem,))


EVALUATIONS = [
    evaluation("tmas", 4, 5_120, (0.125, 0.25), (0.5, 0.75), (1.0, 0.9)),
    evaluation("best_of_n", 41, 5_105, (0.11, 0.45)),
    evaluation("majority_vote", 97, 5_118, (0.13, 0.2)),
]


@pytest.fixture
def shown() -> list[str]:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    print_demo(console, EVALUATIONS, 791_232, Path("runs/demo/report.html"))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def cells(lines: list[str], method: str) -> list[str]:
    [found] = [text for text in lines if text.startswith(f"│{method}")]
    return [cell.strip() for cell in found.split("│")[1:-1]]


def test_the_table_has_each_method_with_its_tokens_pass_at_1_and_accuracy(shown: list[str]):
    assert cells(shown, "TMAS") == ["TMAS", "4 x 3", "5,120", "12.5 % -> 100.0 %", "90.0 % [80, 100]"]
    assert cells(shown, "best of N") == ["best of N", "41", "5,105", "11.0 %", "45.0 % [35, 55]"]
    assert cells(shown, "majority vote") == ["majority vote", "97", "5,118", "13.0 %", "20.0 % [10, 30]"]


@pytest.mark.parametrize(
    ("row", "pass_at_1", "selected"),
    [("iteration 0", 0.125, 0.25), ("iteration 1", 0.5, 0.75), ("iteration 2", 1.0, 0.9), ("best of N", 0.11, 0.45)],
)
def test_the_bars_of_the_chart_are_as_long_as_the_rates(shown: list[str], row: str, pass_at_1: float, selected: float):
    [found] = [text for text in shown if text.lstrip().startswith(f"{row} ")]
    first, rest = found.lstrip().removeprefix(row).split(f"{100 * pass_at_1:.1f} %")
    assert [bar.count("█") for bar in (first, rest)] == [int(BAR_WIDTH * pass_at_1), int(BAR_WIDTH * selected)]
    assert rest.rstrip().endswith(f"{100 * selected:.1f} %")


def test_the_end_says_what_the_figures_are_worth_where_the_report_is_and_what_to_do_next(shown: list[str]):
    text = " ".join(" ".join(shown).split())
    assert "The policy is tiny (791,232 parameters), and its task is made for the method." in text
    assert "they say nothing about TMAS on real mathematics." in text
    assert "HTML report: runs/demo/report.html" in shown
    assert "tmas solve problems=sample output_dir=runs/first model=qwen3_4b_thinking model.base_url=" in text


def test_the_next_command_composes():
    from tmas.miniature.shown import NEXT_COMMAND

    command, *overrides = NEXT_COMMAND.split()
    with initialize_config_dir(CONF, version_base="1.3"):
        assert not OmegaConf.missing_keys(compose(command, overrides=overrides))


# --- the command


def demo(output_dir: Path, base_url: str, *overrides: str) -> str:
    """What the command prints. The rule-based teacher stands in for the policy."""
    given = [
        *(f"output_dir={output_dir}", "serving=endpoint", f"model.base_url={base_url}"),
        *("model.tokenizer=estimate", "model.context_length=32768", "max_problems=8", *overrides),
    ]
    with initialize_config_dir(CONF, version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("demo", overrides=given), resolve=True, throw_on_missing=True)
    console = Console(file=io.StringIO(), width=100, color_system=None)
    demo_command(config, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def without_progress(printed: str) -> list[str]:
    """What is printed, less the lines of a run that takes longer than ten seconds."""
    return [line for line in printed.splitlines() if " calls in flight | " not in line]


def rules(body: Body) -> list[str]:
    prompt = body["messages"][-1]["content"]
    return [Teacher(Task(), random.Random(f"{body['seed']}/{prompt}")).reply(prompt)]


def rates(run: Path) -> list[float]:
    """The share of right candidates by iteration."""
    lines = list(read_lines(run / "predictions.jsonl"))
    by_iteration = zip(*(line["iterations"] for line in lines), strict=True)
    found = [[c["correct"] == "equal" for step in steps for c in step["candidates"]] for steps in by_iteration]
    return [sum(right) / len(right) for right in found]


def generated(run: Path) -> int:
    entries = [entry for line in read_lines(run / "predictions.jsonl") for entry in line["usage"]]
    return sum(entry["usage"]["completion_tokens"] for entry in entries)


def test_three_runs_at_equal_tokens_and_a_second_command_that_asks_no_model(tmp_path: Path):
    with run_in_thread(ScriptedServer(rules)) as server:
        printed = demo(tmp_path, server.base_url)
    first, *_, last = rates(tmp_path / "tmas")
    assert last > first + 0.15
    spent = generated(tmp_path / "tmas")
    assert generated(tmp_path / "best_of_n") == pytest.approx(spent, rel=0.05)
    assert generated(tmp_path / "majority_vote") == pytest.approx(spent, rel=0.05)
    assert f"{100 * first:.1f} % -> {100 * last:.1f} %" in printed
    assert (tmp_path / "report.html").exists()
    again = demo(tmp_path, "http://127.0.0.1:9/v1")  # nobody listens there
    assert without_progress(again) == without_progress(printed)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("serving.replicas=2", "serving.replicas: the demo has one server"),
        ("model.path=other", "model.path: the demo runs the policy that comes with the package"),
    ],
)
def test_what_the_demo_cannot_do_is_refused(tmp_path: Path, setting: str, message: str):
    with pytest.raises(UserError, match=message):
        demo(tmp_path / "run", "http://127.0.0.1:9/v1", "serving=vllm", setting)
    assert not (tmp_path / "run").exists()
