"""evaluation/subset.py: the published rule of IMO-AnswerBench-50, on runs written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import Line, candidate, iteration, prediction, problem, write_run
from tmas.answers.checker import AnswerChecker
from tmas.errors import UserError
from tmas.evaluation.subset import Solved, SubsetSettings, select, solved_counts, write_subset
from tmas.problems.loader import load_problems
from tmas.testing.chat_server import ScriptedServer

GOLD = {"never": "5", "once": "5", "twice": "5", "words": "odd n"}
ANSWERS = {
    "never": ["6", None, "7", "6"],
    "once": ["5", "6", None, "7"],
    "twice": ["5.0", "5", "6", "6"],
    "words": ["odd n", "all odd n", "7", None],
}
PROBLEMS = [problem(name, gold) for name, gold in GOLD.items()]


def lines(first: int = 0, last: int = 4) -> list[Line]:
    """Samples ``first`` to ``last`` of each problem, and a second iteration that does not count."""
    return [
        prediction(
            name, GOLD[name], [iteration([candidate(a) for a in answers[first:last]]), iteration([candidate("5")])]
        )
        for name, answers in ANSWERS.items()
    ]


def settings(*runs: Path, **changes: Any) -> SubsetSettings:
    given = {"runs": runs, "problems": "p.jsonl", "output": "o.jsonl", "samples": 4, "workers": 1}
    return SubsetSettings.model_validate(given | changes)


async def counts(chosen: SubsetSettings) -> dict[str, tuple[int, int]]:
    async with AnswerChecker(timeout=60.0) as checker:
        found = await solved_counts(PROBLEMS, chosen, checker)
    return {solved.problem.problem_id: (solved.least, solved.most) for solved in found}


async def test_first_iterations_are_counted_whatever_the_runs(tmp_path: Path):
    wide = write_run(tmp_path / "wide", lines())
    narrow = [write_run(tmp_path / str(i), lines(i, i + 1), seed=i) for i in range(4)]
    expected = {"never": (0, 0), "once": (1, 1), "twice": (2, 2), "words": (1, 3)}
    assert await counts(settings(wide)) == await counts(settings(*narrow)) == expected


async def test_a_judge_decides_what_the_rule_cannot(tmp_path: Path):
    run = write_run(tmp_path / "run", lines())

    def say(body: Any) -> list[str]:
        odd = "all odd n" in body["messages"][0]["content"]
        return [json.dumps({"verdict": "equivalent" if odd else "different"})] * body.get("n", 1)

    async with ScriptedServer(say) as server:
        judge = {"name": "judge", "base_url": server.base_url, "passes": 2}
        assert (await counts(settings(run, judge=judge, judge_scope="undecided")))["words"] == (2, 2)
    assert len(server.requests) == 2


def chosen(on_undecided: str) -> list[str]:
    """With the counts of above."""
    found = [Solved(p, *n) for p, n in zip(PROBLEMS, [(0, 0), (1, 1), (2, 2), (1, 3)], strict=True)]
    picked = select(found, settings(Path("r"), max_solved=1, on_undecided=on_undecided))
    return [solved.problem.problem_id for solved in picked]


def test_undecided_problems_are_refused_unless_told_what_becomes_of_them():
    with pytest.raises(
        UserError, match=r"undecided answers whether these problems belong to the subset: words\. Give a judge"
    ):
        chosen("refuse")
    assert chosen("include") == ["never", "once", "words"]
    assert chosen("exclude") == ["never", "once"]


def test_the_subset_is_a_problem_file(tmp_path: Path):
    write_subset(tmp_path / "subset.jsonl", [Solved(PROBLEMS[0], 0, 0)], settings(Path("r")))
    [row] = [json.loads(line) for line in (tmp_path / "subset.jsonl").read_text().splitlines()]
    assert (row["solved"], row["undecided"], row["samples"]) == (0, 0, 4)
    assert load_problems(tmp_path / "subset.jsonl").problems == (PROBLEMS[0],)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([{"last": 3}], "'never' has 3 samples in the runs, not 4"),
        ([{}, {"first": 3}], "'never' has 5 samples in the runs, not 4"),
        ([{"last": 2}, {"first": 2, "model": "other"}], "several models: other, small"),
    ],
)
async def test_wrong_runs_are_refused(tmp_path: Path, runs: list[dict[str, Any]], message: str):
    paths = [
        write_run(
            tmp_path / str(i),
            lines(run.get("first", 0), run.get("last", 4)),
            model__solution__name=run.get("model", "small"),
        )
        for i, run in enumerate(runs)
    ]
    with pytest.raises(UserError, match=message):
        await counts(settings(*paths))


async def test_runs_of_other_questions_are_refused(tmp_path: Path):
    run = write_run(tmp_path / "run", [prediction("never", "6", [iteration([candidate("6")] * 4)])])
    with pytest.raises(UserError, match="'never' had another question or answer"):
        await counts(settings(run))
