"""Sample sizes with which a baseline takes as many tokens as TMAS."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import runs
from tmas.errors import UserError
from tmas.evaluation.equal_tokens import Costs, main
from tmas.records import Usage, UsageEntry
from tmas.records.run_files import Prediction


def line(*usage: tuple[str, int, int], candidates: int = 4) -> Prediction:
    """A prediction from (role, iteration, generated tokens)."""
    entries = tuple(
        UsageEntry(role=role, iteration=t, usage=Usage(completion_tokens=tokens, prompt_tokens=10_000))
        for role, t, tokens in usage
    )
    steps = [runs.iteration([runs.candidate("5")] * candidates)] * 2
    return Prediction.model_validate(runs.prediction("p", "5", steps)).model_copy(update={"usage": entries})


def test_costs_are_the_generated_tokens_of_a_problem_and_of_a_candidate_of_the_first_iteration():
    first = line(("solution", 0, 160), ("verification", 0, 240), ("solution", 1, 900), ("experience", 1, 100))
    second = line(("solution", 0, 240), ("verification", 0, 560), ("summary", 0, 600))
    assert Costs.measured([first, second]) == Costs(problem=1400, solution=50, verification=100)
    prompts = Costs(problem=36_400, solution=2_550, verification=2_600)
    assert Costs.measured([first, second], prompts=True) == prompts


@pytest.mark.parametrize("prompts", [True, False])
def test_a_run_without_solutions_in_iteration_0_is_refused(prompts: bool):
    for lines in ([line(("solution", 0, 160), candidates=0)], [line(("solution", 1, 900))], []):
        with pytest.raises(UserError, match="no tokens are recorded for solutions of iteration 0"):
            Costs.measured(lines, prompts=prompts)


@pytest.mark.parametrize(
    ("problem", "majority_vote", "best_of_n"),
    [(1400, 28, 9), (1440, 29, 10), (10, 1, 1)],  # to the nearest whole candidate, and at least one
)
def test_sample_sizes_spend_what_a_problem_cost(problem: float, majority_vote: int, best_of_n: int):
    costs = Costs(problem=problem, solution=50, verification=100)
    assert (costs.majority_vote, costs.best_of_n) == (majority_vote, best_of_n)


def test_the_command_prints_the_setting_of_a_method_of_one_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    solved = line(("solution", 0, 160), ("verification", 0, 240), ("experience", 1, 100))
    run = runs.write_run(tmp_path / "tmas", [solved.model_dump(mode="json")])
    for method in ("majority_vote", "best_of_n", "rse"):
        main(str(run), method)
    assert capsys.readouterr().out.split() == ["method.n_candidates=12", "method.n_candidates=6"]
