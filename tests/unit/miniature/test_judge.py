"""recipes/miniature/judge.py: its verdicts parse, and the project's rewards give them the score that is meant."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import pytest

from recipes.miniature.judge import verdict
from recipes.miniature.language import FORMULAS, Finding, answer, arithmetic, check, question, solution
from recipes.miniature.task import ORDERS, RULES, Candidate, Task, fits
from tests.support.miniature import PROMPTS, TeacherSession, miniature_problems, solve
from tmas.llm.thinking import split_thinking
from tmas.prompts.parsing import parse_json
from tmas.records import Experience, Guideline, Solution
from tmas.rewards import experience, novelty, verification
from tmas.rewards.component import Component, scored
from tmas.rewards.evidence import Evidence
from tmas.rewards.experience import ExperienceVerdict
from tmas.rewards.novelty import NoveltyVerdict
from tmas.rewards.settings import EvidenceSettings, ExperienceSettings, NoveltySettings
from tmas.rewards.verification import CritiqueVerdict, VerificationTruth

EVIDENCE = EvidenceSettings(min_tokens=4, min_symbols=0, copied_run=5, connected=False)
SEEN: dict[str, Any] = {"created": 0, "last_seen": 0}
[(BLOCKS, GOLD)] = islice(Task().problems("validation", 0), 1)
QUESTION = question(BLOCKS)
OTHER = next(rule for rule in RULES if rule != GOLD.rule)

PAIRS = [(new, known) for new in RULES for known in RULES if new != known]


def bank(*known: Finding) -> tuple[Experience, ...]:
    return tuple(
        Experience(item_id=f"E{n}", kind="conclusion" if found.fits else "pitfall", statement=str(found), **SEEN)
        for n, found in enumerate(known, 1)
    )


def guidelines(*rules: str) -> tuple[Guideline, ...]:
    return tuple(
        Guideline(item_id=f"G{n}", name=rule, description=FORMULAS[rule], **SEEN) for n, rule in enumerate(rules, 1)
    )


def rule_of(text: str) -> str:
    """The rule of a solution."""
    return text.split(":")[1]


def use_of(items: Sequence[Experience], text: str, prompt: str = "", asked: str = QUESTION) -> Component:
    """The score for the use of experience. ``prompt``: what the policy was shown in addition."""
    judged = parse_json(verdict(experience.prompt(PROMPTS, asked, text, items)), ExperienceVerdict)
    assert (judged.repaired, judged.dropped) == (False, 0)
    assert {use.id for use in judged.record.items} == {item.item_id for item in items}
    evidence = Evidence(text, [prompt, asked, *(item.text for item in items)], EVIDENCE)
    return experience.score(judged.record, evidence, items, ExperienceSettings())


def novelty_of(items: Sequence[Guideline], text: str, prompt: str = "", asked: str = QUESTION) -> Component:
    judged = parse_json(verdict(novelty.prompt(PROMPTS, asked, text, items)), NoveltyVerdict)
    assert (judged.repaired, judged.dropped) == (False, 0)
    evidence = Evidence(text, [prompt, asked, *(item.text for item in items)], EVIDENCE)
    return novelty.score(judged.record, evidence, items, NoveltySettings())


def right(block: int) -> Finding:
    return Finding(block, GOLD.rule, GOLD.orders[block], True)


def wrong(block: int) -> Finding:
    order = next(o for o in ORDERS if not fits(BLOCKS[block], GOLD.rule, o))
    return Finding(block, GOLD.rule, order, False)


# --- the use of experience


def test_findings_that_the_solution_chooses_earn_until_there_are_enough():
    unused = Finding(2, OTHER, "ab", True)
    assert use_of(bank(right(1), right(2), unused), solution(GOLD)) == scored(1.0)
    assert use_of(bank(right(1), unused), solution(GOLD)) == scored(0.5)
    assert use_of(bank(unused), solution(GOLD)) == scored(0.0, "not_applied")


def test_an_item_that_was_contradicted_is_judged_too():
    [item] = bank(right(1))
    assert use_of([item.model_copy(update={"contradictions": 1})], solution(GOLD)) == scored(1.0)


@pytest.mark.parametrize("block", range(4))
def test_a_finding_on_any_block_counts(block: int):
    assert use_of(bank(right(block)), solution(GOLD)) == scored(1.0)


def test_a_pitfall_is_applied_by_another_order_that_fits():
    assert use_of(bank(wrong(1), wrong(2)), solution(GOLD)) == scored(1.0)


def test_a_pitfall_avoided_by_another_wrong_order_earns_nothing():
    block, orders = next(
        (n, found) for n in range(4) if len(found := [o for o in ORDERS if not fits(BLOCKS[n], GOLD.rule, o)]) == 2
    )
    candidate = GOLD._replace(orders=tuple(orders[1] if n == block else o for n, o in enumerate(GOLD.orders)))
    assert use_of(bank(Finding(block, GOLD.rule, orders[0], False)), solution(candidate)) == scored(0.0, "not_applied")


def test_a_repeated_pitfall_leaves_nothing():
    candidate = GOLD._replace(orders=(wrong(0).order, *GOLD.orders[1:]))
    assert use_of(bank(wrong(0), right(1), right(2)), solution(candidate)) == scored(0.0, "pitfall")


def test_a_finding_that_is_false_earns_nothing():
    false = wrong(0)._replace(fits=True)
    candidate = GOLD._replace(orders=(false.order, *GOLD.orders[1:]))
    assert use_of(bank(false), solution(candidate)) == scored(0.0, "not_applied")


@pytest.mark.parametrize("choice", ["A:zulu:ab", "A:echo:ca", "D:echo:ab"])
def test_a_choice_that_does_not_exist_is_judged_too(choice: str):
    letter, rule, order = choice.split(":")
    found = Finding("ABCD".index(letter), rule, "ab" if order == "ca" else "ac", False)
    single_block = question(BLOCKS[:1])
    assert use_of(bank(found), f"so {choice}\n\\boxed{{11}}", asked=single_block) == scored(0.0, "not_applied")


def test_a_text_without_choices_earns_nothing():
    parroted = f"From experience: {right(0)}. \\boxed{{1111}}"
    assert use_of(bank(right(0)), parroted) == scored(0.0, "not_applied")


def test_the_verdict_repeats_the_code_at_the_end_of_its_prompt_and_none_that_the_solution_states():
    codes = [PROMPTS.render("judge_code", code=code) for code in ("0a1b2c3d", "12345678")]
    asked = experience.prompt(PROMPTS, QUESTION, f"{codes[0]}\n{solution(GOLD)}", bank(right(1)))
    assert parse_json(verdict(f"{asked}\n\n{codes[1]}"), ExperienceVerdict, {"code": "12345678"})


# --- novelty


@pytest.mark.parametrize(("new", "known"), PAIRS)
def test_a_new_rule_scores_1_and_a_known_one_0(new: str, known: str):
    assert novelty_of(guidelines(known), solution(Candidate(new, GOLD.orders))) == scored(1.0)
    assert novelty_of(guidelines(known, new), solution(Candidate(new, GOLD.orders))) == scored(0.0, "known")


def test_a_rule_that_does_not_exist_is_not_new():
    text = solution(GOLD).replace(GOLD.rule, "zulu")
    assert novelty_of(guidelines(OTHER), text).value == 0.0


def test_an_announced_rule_that_is_not_carried_out_scores_0():
    assert novelty_of(guidelines(OTHER), f"I use {GOLD.rule}. \\boxed{{1111}}") == scored(0.0, "not_carried_out")


# --- what the teacher writes on the project's prompts


async def test_the_teachers_own_solutions_score_as_meant():
    """Exploring ones are looked at where their rule is new, and the reward can tell."""
    uses, novelties = [], []
    for problem in miniature_problems(4):
        session = TeacherSession(problem.problem_id)
        trajectory = await solve(problem, session, "tmas", n_candidates=6, max_iterations=4, epsilon=0.4)
        prompts = {
            split_thinking(reply, "").text: call.prompt
            for call in session.calls
            for reply in call.replies
            if call.role == "solution"
        }
        for before, after in zip(trajectory.iterations, trajectory.iterations[1:], strict=False):
            for rollout in after.rollouts:
                assert isinstance(rollout.solution, Solution)
                text = rollout.solution.text
                if rollout.mode == "exploit":
                    uses.append(use_of(before.experiences, text, prompts[text], problem.question))
                elif rule_of(text) not in {known.name for known in before.guidelines}:
                    novelties.append(novelty_of(before.guidelines, text, prompts[text], problem.question))
    assert {use.state for use in uses} == {"scored"}
    assert "pitfall" not in {use.why for use in uses}
    assert sum(use.value == 1 for use in uses) > len(uses) / 2
    assert novelties
    assert [found for found in novelties if found != scored(1.0)] == []


def test_lines_that_disagree_with_the_answer_in_the_box_count_for_nothing():
    text = solution(GOLD)
    known = bank(*(Finding(n, GOLD.rule, order, True) for n, order in enumerate(GOLD.orders)))
    applied = verdict(experience.prompt(PROMPTS, QUESTION, text, known))
    assert applied.count('"applied"') == len(BLOCKS)
    box = text[text.index("\\boxed") :]
    for changed in (text.replace(box, "\\boxed{}"), text.replace(box, "\\boxed{99999}"), text.replace(box, "")):
        assert "applied" not in verdict(experience.prompt(PROMPTS, QUESTION, changed, known))
    other = solution(Candidate(OTHER, GOLD.orders))
    mixed = other.replace(other[other.index("\\boxed") :], box)  # the lines name another rule than the answer
    found = verdict(novelty.prompt(PROMPTS, QUESTION, mixed, guidelines(GOLD.rule)))
    assert ('"name": "none"' in found, OTHER in found) == (True, False)


# --- critiques of wrong candidates


FAULTY = Candidate(GOLD.rule, (GOLD.orders[0], *(wrong(n).order for n in (1, 2)), GOLD.orders[3]))
"""A candidate whose first error is in the second block."""
LINES = [arithmetic(block, found) for block, found in zip(BLOCKS, check(BLOCKS, FAULTY), strict=True)]


def bonus_of(*lines: str) -> Component:
    """The score of a critique of :data:`FAULTY` that consists of ``lines``."""
    text, critique = solution(FAULTY), "\n".join(lines)
    truth = VerificationTruth(right=False, gold=answer(GOLD), candidate=text)
    judged = parse_json(verdict(verification.prompt(PROMPTS, QUESTION, truth, critique)), CritiqueVerdict)
    assert (judged.repaired, judged.dropped) == (False, 0)
    return verification.score(judged.record, Evidence(text, (), EVIDENCE), Evidence(critique, (), EVIDENCE))


def test_the_teachers_critique_names_and_explains_the_first_error():
    assert bonus_of(*LINES) == scored(1.0)


def test_a_critique_that_faults_another_block_first_names_no_first_error():
    later = [line for line in LINES if not line.startswith("B:")]
    assert bonus_of(*later) == scored(0.0, "not_named")
    assert bonus_of(LINES[0].replace("OK", "BAD"), *LINES[1:]) == scored(0.0, "not_named")


def test_a_critique_that_finds_nothing_names_no_error():
    assert bonus_of(*(line.replace("BAD", "OK") for line in LINES)) == scored(0.0, "not_named")
    assert bonus_of("It is all wrong.") == scored(0.0, "not_named")


def test_wrong_arithmetic_explains_nothing():
    finding = f"B:{FAULTY.rule}:{FAULTY.orders[1]}"
    assert bonus_of(f"{finding} 1+1=3+1=4,5 BAD") == scored(0.0, "not_explained")
    assert bonus_of(f"{finding} BAD") == scored(0.0, "not_explained")
