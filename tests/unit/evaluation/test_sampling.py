"""evaluation/sampling.py: a method of one round at smaller budgets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import runs
from tests.support.runs import candidate, iteration
from tmas.answers.checker import AnswerChecker
from tmas.answers.equivalence import Comparison, Equivalence
from tmas.evaluation.sampling import by_samples
from tmas.evaluation.scores import problem_scores
from tmas.methods.selection import SelectionSettings, select
from tmas.records import Rollout, Solution, Verification
from tmas.records.run_files import Prediction

ANSWERS = ["5", "6", "7"]
CLASSES = {answer: place for place, answer in enumerate(ANSWERS)}
SCORING = [{("5", answer): answer == "5" for answer in ANSWERS}]
samples = st.lists(
    st.tuples(st.sampled_from([*ANSWERS, None]), st.sampled_from([0.0, 0.5, 1.0])), min_size=2, max_size=7
)


class Same(AnswerChecker):
    async def compare(self, gold: str, answer: str) -> Comparison:
        return Comparison(equivalence=Equivalence.EQUAL if gold == answer else Equivalence.DIFFERENT)


def selected(given: Sequence[tuple[str | None, float]], rule: str) -> str | None:
    """What the method itself selects."""
    rollouts = [
        Rollout(
            iteration=0,
            index=i,
            mode="initial",
            solution=Solution(iteration=0, index=i, mode="initial", text="", answer=answer),
            verifications=(Verification(index=0, grade=grade, critique=None),),
        )
        for i, (answer, grade) in enumerate(given)
    ]
    found = asyncio.run(select([rollouts], SelectionSettings(rule=rule, scope="all"), Same()))  # type: ignore[arg-type]
    assert found.selection
    return found.selection.answer


def line(given: Sequence[tuple[str | None, float]], rule: str) -> Prediction:
    round_ = iteration([candidate(answer, [grade]) for answer, grade in given])
    round_["selected"] = {**runs.SELECTED, "answer": selected(given, rule), "rule": rule}
    return Prediction.model_validate(runs.prediction("p", "5", [round_]))


@given(samples, st.sampled_from(["vote", "grade"]))
def test_with_all_samples_every_metric_is_that_of_the_run(given: list[tuple[str | None, float]], rule: str):
    made = line(given, rule)
    series = by_samples(made, SCORING, CLASSES, 5, 0)
    [scores] = problem_scores(made, SCORING, CLASSES, ())
    assert {name: values[-1] for name, values in series.items()} == pytest.approx(
        {name: scores[name] for name in series}, abs=1e-4
    )
    assert {len(values) for values in series.values()} == {len(given)}


def test_one_sample_is_as_right_as_pass_at_1_and_more_votes_help_the_majority():
    made = line([*[("5", 0.0)] * 4, ("6", 0.0), ("7", 0.0), ("6", 0.0)], "vote")
    votes = by_samples(made, SCORING, CLASSES, 2000, 0)["vote"]
    assert votes[0] == pytest.approx(4 / 7, abs=0.05)
    assert votes[0] < votes[2] < votes[4] < votes[6] == 1.0


def test_best_of_k_is_the_chance_that_a_good_sample_is_among_the_k():
    made = line([("5", 1.0), ("6", 0.0), ("6", 0.0), ("6", 0.0)], "grade")
    series = by_samples(made, SCORING, CLASSES, 4000, 0)
    assert series["best_of"] == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1.0], abs=0.03)
    assert series["selected"] == pytest.approx(series["best_of"])


def test_another_rule_of_selection_is_not_guessed_and_several_rounds_have_no_series():
    made = line([("5", 1.0), ("6", 0.0)], "grade")
    round_ = made.iterations[0]
    assert round_.selected is not None
    other = round_.model_copy(update={"selected": round_.selected.model_copy(update={"rule": "genselect"})})
    assert "selected" not in by_samples(made.model_copy(update={"iterations": (other,)}), SCORING, CLASSES, 5, 0)
    assert by_samples(made.model_copy(update={"iterations": (round_, round_)}), SCORING, CLASSES, 5, 0) == {}
