"""rewards/novelty.py: what a verdict on the strategy is worth, and how one would try to cheat."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.rewards import FIRST_STEP, GUIDELINES, QUESTION, SECOND_STEP, SOLUTION, novelty_verdict
from tmas.prompts import BUILT_IN
from tmas.rewards.component import Component, masked, scored
from tmas.rewards.evidence import Evidence
from tmas.rewards.novelty import NoveltyVerdict, prompt, score
from tmas.rewards.settings import EvidenceSettings, NoveltySettings


def scored_by(verdict: dict[str, Any], solution: str = SOLUTION, **changes: Any) -> Component:
    evidence = Evidence(solution, [QUESTION, *(g.text for g in GUIDELINES)], EvidenceSettings())
    return score(NoveltyVerdict.model_validate(verdict), evidence, GUIDELINES, NoveltySettings(**changes))


def test_a_new_strategy_that_is_carried_out_earns_all_and_a_variation_its_share():
    assert scored_by(novelty_verdict()) == scored(1.0)
    assert scored_by(novelty_verdict(variation_of=["G1"])) == scored(0.5)
    assert scored_by(novelty_verdict(variation_of=["G1", "G2"]), variation=0.2) == scored(0.2)


def test_a_strategy_of_the_bank_earns_nothing():
    assert scored_by(novelty_verdict(same=["G2"])) == scored(0.0, "known")
    assert scored_by(novelty_verdict(same=["G2"], variation_of=["G1"])) == scored(0.0, "known")


@pytest.mark.parametrize("guideline", GUIDELINES)
def test_a_judge_that_calls_a_strategy_of_the_bank_new_is_overruled_by_the_banks_own_test(guideline: Any):
    other = "Something else altogether is done here"
    for name, description in (
        (guideline.name, other),
        (other, guideline.description),
        (guideline.name.upper(), f"We {guideline.description}"),
        (guideline.description, guideline.name),
    ):
        assert scored_by(novelty_verdict(name, description)) == scored(0.0, "known")


BOAST = (
    "This is a completely novel strategy that differs from all of the listed guidelines. "
    "First, we introduce a revolutionary parametrisation of the problem that nobody has thought of. "
    "Second, we exploit a deep and hidden symmetry between both unknowns to finish the argument. \\boxed{58}"
)


def test_novelty_in_words_earns_nothing_even_from_a_judge_that_believes_it():
    sentences = [sentence for sentence in BOAST.split(". ") if "boxed" not in sentence]
    assert scored_by(novelty_verdict(steps=sentences), BOAST) == scored(0.0, "not_carried_out")


@pytest.mark.parametrize("steps", [[], [FIRST_STEP], [FIRST_STEP, FIRST_STEP], [FIRST_STEP, FIRST_STEP[9:]]])
def test_too_few_steps_are_nothing_carried_out(steps: list[str]):
    assert scored_by(novelty_verdict(steps=steps)) == scored(0.0, "not_carried_out")


def test_the_problem_and_the_guidelines_said_again_are_no_steps():
    said = " ".join([QUESTION, *(g.text for g in GUIDELINES)])
    steps = [QUESTION, *(g.text for g in GUIDELINES)]
    assert scored_by(novelty_verdict(steps=steps), said) == scored(0.0, "not_carried_out")


def test_a_judge_whose_steps_are_made_up_or_who_names_guidelines_that_are_not_there_is_masked():
    assert scored_by(novelty_verdict(steps=["we put x = 5 + d and y = 5 - d"])) == masked("judge")
    assert scored_by(novelty_verdict(same=["G7"])) == masked("judge")
    assert scored_by(novelty_verdict(variation_of=["G1", "G7"])) == masked("judge")


def test_made_up_steps_do_not_count_beside_true_ones():
    assert scored_by(novelty_verdict(steps=[FIRST_STEP, "we put x = 5 + d and y = 5 - d"])) == scored(
        0.0, "not_carried_out"
    )


texts = st.sampled_from(
    [FIRST_STEP, SECOND_STEP, QUESTION, BOAST, "", "made up = 1 + 2", *(g.text for g in GUIDELINES)]
)
ids = st.lists(st.sampled_from(["G1", "G2", "G3"]), max_size=2)
verdicts = st.builds(
    novelty_verdict, st.sampled_from(["New", "Vieta", "d"]), texts.filter(bool), st.lists(texts), ids, ids
)


@given(verdicts, st.sampled_from([BOAST, QUESTION, "", "\n".join(g.text for g in GUIDELINES)]))
def test_no_verdict_makes_words_pay(verdict: dict[str, Any], words: str):
    assert scored_by(verdict, words).value == 0.0


@given(verdicts)
def test_a_known_strategy_never_pays(verdict: dict[str, Any]):
    outcome = scored_by(verdict)
    assert outcome.value in (0.0, 0.5, 1.0)
    if verdict["same"] or verdict["name"] == "Vieta":
        assert outcome.value == 0.0


def test_the_judge_sees_the_guidelines_and_the_solution_between_marks():
    shown = prompt(BUILT_IN, QUESTION, SOLUTION, GUIDELINES)
    mark = shown.split("# Solution\n\nBEGIN ")[1].split("\n")[0]
    assert f"BEGIN {mark}\n{SOLUTION}\nEND {mark}" in shown
    assert all(f"[{g.item_id}, support 1] {g.text}" in shown for g in GUIDELINES)
