"""recipes/miniature/teacher.py: on the project's own prompts, its replies parse, are true, and use the memory."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import islice
from statistics import mean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.miniature.language import Finding, answer, blocks_in, check, findings, question, read_answer, solution
from recipes.miniature.task import LETTERS, ORDERS, RULES, Blocks, Candidate, Task
from recipes.miniature.teacher import Teacher, split_thinking_lines, with_thinking
from recipes.miniature.teacher import labels as labels_in
from tests.support.miniature import PROMPTS, TeacherSession, miniature_problems, problems_with_candidates, solve
from tmas.agents.context import all_items
from tmas.answers.extract import extract_boxed
from tmas.llm.thinking import split_thinking
from tmas.memory.experience import ExperienceBank
from tmas.memory.guidelines import GuidelineBank
from tmas.methods import METHODS
from tmas.methods.genselect import chosen_index
from tmas.prompts.parsing import Parsed, parse_json, parse_verification
from tmas.prompts.schemas import DistillOutput, ExperienceOutput, GuidelineOutput
from tmas.records import Experience, Guideline, Solution

SMALL = {
    "majority_vote": {},
    "best_of_n": {},
    "tmas": {"n_verifications": 2, "max_iterations": 4, "epsilon": 0.3},
    "self_refine": {"max_iterations": 4},
    "verify_refine": {"n_verifications": 2, "n_best": 2, "max_iterations": 3},
    "pacore": {"max_iterations": 3},
    "rse": {"max_iterations": 3},
    "rsa": {"n_aggregated": 2, "max_iterations": 3},
    "genselect": {"n_compared": 3, "n_votes": 2, "shown": "summary", "n_summaries": 1},
}
"""Every method at a size for tests. PaCoRe has widths instead of a number of candidates."""
OUTPUTS = {"experience": ExperienceOutput, "guideline": GuidelineOutput, "distill": DistillOutput}
SEEN: dict[str, Any] = {"created": 0, "last_seen": 0}
[(BLOCKS, GOLD)] = islice(Task().problems("validation", 0), 1)
QUESTION = question(BLOCKS)

Labels = Mapping[tuple[int, str, str], bool]


def small(name: str) -> dict[str, object]:
    return SMALL[name] | ({"widths": [4]} if name == "pacore" else {"n_candidates": 4})


def teacher(seed: int = 0, **settings: float) -> Teacher:
    return Teacher(Task(), random.Random(seed), **settings)


def chosen(reply: str, count: int = len(LETTERS)) -> Candidate:
    """The candidate in the visible part of a reply."""
    candidate = read_answer(extract_boxed(split_thinking(reply, "").text) or "", count)
    assert candidate is not None, reply
    return candidate


def verification_prompt(blocks: Blocks, text: str) -> str:
    return PROMPTS.render("verification", question=question(blocks), task="answer", structured=False, solution=text)


def exploit_prompt(labels: Labels, attempts: Sequence[tuple[str, int]]) -> str:
    """Attempts with a rule and its number of fitting blocks each, and a bank with the findings ``labels``."""
    shown = [
        PROMPTS.render("attempt", index=i, answer="1111", grade="0.50", solution=None, summary=f"{rule} {right}/4")
        for i, (rule, right) in enumerate(attempts)
    ]
    items = tuple(
        Experience(item_id=f"E{n}", kind="conclusion", statement=str(Finding(*key, label)), **SEEN)
        for n, (key, label) in enumerate(labels.items(), 1)
    )
    memory = {"experience": all_items(ExperienceBank(items=items)), "guidelines": ""}
    return PROMPTS.render("solution", question=QUESTION, task="answer", attempts=shown, **memory)


def explore_prompt(tried: Sequence[str]) -> str:
    items = tuple(Guideline(item_id=f"G{n}", name=rule, description="x+y*z", **SEEN) for n, rule in enumerate(tried, 1))
    memory = {"experience": "", "guidelines": all_items(GuidelineBank(items=items))}
    return PROMPTS.render("solution", question=QUESTION, task="answer", attempts=[], **memory)


# --- every role, on the prompts of every method


@pytest.mark.parametrize("name", METHODS)
async def test_every_reply_to_every_prompt_of_a_method_can_be_parsed(name: str):
    roles: set[str] = set()
    for problem in miniature_problems(3):
        session = TeacherSession(problem.problem_id, spread=0.5)
        trajectory = await solve(problem, session, name, **small(name))
        assert [iteration.all_failures for iteration in trajectory.iterations if iteration.all_failures] == []
        for rollout in (r for iteration in trajectory.iterations for r in iteration.rollouts):
            assert isinstance(rollout.solution, Solution)
            assert read_answer(rollout.answer or "", len(LETTERS)) is not None
            assert (rollout.solution.own_grade is not None) == (name == "verify_refine")
        for call in session.calls:
            roles.add(call.role)
            for reply in call.replies:
                assert_parses(call.role, call.prompt, reply)
    assert roles == set(METHODS[name].settings_type.roles)


def assert_parses(role: str, prompt: str, reply: str) -> None:
    text = split_thinking(reply, "").text
    if role == "verification":
        assert_is_true(prompt, text)
    elif role in OUTPUTS:
        parsed: Parsed = parse_json(text, OUTPUTS[role])
        assert (parsed.repaired, parsed.dropped) == (False, 0)
        assert any(parsed.record.model_dump().values())
    elif role == "feedback":
        assert text.endswith("It is correct.") or extract_boxed(text.partition("# Rewritten solution\n")[2])
    elif role == "comparison":
        assert chosen_index(text, prompt.count("\nSolution ")) >= 0
    elif "Write a clean version" in prompt:
        assert extract_boxed(text) == extract_boxed(prompt)
    elif role == "summary":
        known = findings(text)
        assert text.startswith(f"{known[0].rule} {sum(f.fits for f in known)}/{len(known)}\n")


def assert_is_true(prompt: str, critique: str) -> None:
    blocks = blocks_in(prompt)
    candidate = read_answer(extract_boxed(prompt.partition("# Candidate solution")[2].partition("# Your")[0]) or "", 4)
    assert candidate is not None
    assert findings(critique) == check(blocks, candidate)


async def test_comparisons_select_the_candidate_with_the_most_fitting_blocks():
    for problem in miniature_problems(5):
        session = TeacherSession(problem.problem_id, spread=0.5)
        trajectory = await solve(problem, session, "genselect", n_candidates=12, n_compared=4, n_votes=1)
        blocks = blocks_in(problem.question)
        candidates = [read_answer(r.answer or "", len(blocks)) for r in trajectory.iterations[0].rollouts]
        right = [sum(found.fits for found in check(blocks, candidate)) for candidate in candidates if candidate]
        assert trajectory.selected is not None
        assert (right[trajectory.selected.candidate], trajectory.selected.rule) == (max(right), "genselect")


async def test_a_seed_repeats_every_reply():
    [problem] = miniature_problems(1)
    runs = [TeacherSession(problem.problem_id, error_rate=0.1, spread=0.5) for _ in range(2)]
    for session in runs:
        await solve(problem, session, "tmas", **small("tmas"))
    assert runs[0].calls == runs[1].calls
    bare = PROMPTS.render("solution", question=QUESTION, task="answer", attempts=[], experience="", guidelines="")
    replies = [teacher(seed).reply(bare) for seed in range(20)]
    assert replies == [teacher(seed).reply(bare) for seed in range(20)]
    assert len(set(replies)) > 5


async def test_the_team_solves_more_with_every_bank_update():
    shares: list[list[float]] = []
    for problem in miniature_problems(40):
        trajectory = await solve(
            problem, TeacherSession(problem.problem_id), "tmas", n_candidates=6, max_iterations=4, epsilon=0.3
        )
        shares.append([mean(r.answer == problem.answer for r in i.rollouts) for i in trajectory.iterations])
    first, *_, last = (mean(column) for column in zip(*shares, strict=True))
    assert first < 0.15
    assert last > first + 0.3


# --- verification


@given(problems_with_candidates())
def test_a_verification_is_the_arithmetic_truth(drawn: tuple[Blocks, Candidate]):
    blocks, candidate = drawn
    verdict = parse_verification(teacher().reply(verification_prompt(blocks, solution(candidate))))
    known = check(blocks, candidate)
    fitting = sum(found.fits for found in known) / len(known)
    assert findings(verdict.critique) == known
    assert verdict.grade == (1.0 if fitting == 1 else 0.5 if fitting >= 0.5 else 0.0)


def test_the_gold_answer_is_graded_1_and_an_unreadable_one_0():
    assert parse_verification(teacher().reply(verification_prompt(BLOCKS, solution(GOLD)))).grade == 1.0
    for text in ("I give up.", r"\boxed{9999}", r"\boxed{11}"):
        assert parse_verification(teacher().reply(verification_prompt(BLOCKS, text))).grade == 0.0


@pytest.mark.parametrize(("error_rate", "least", "most"), [(0.0, 0.0, 0.0), (0.2, 0.16, 0.24), (1.0, 1.0, 1.0)])
def test_the_error_rate_is_the_share_of_wrong_findings(error_rate: float, least: float, most: float):
    noisy, wrong = teacher(error_rate=error_rate), []
    for blocks, gold in islice(Task().problems("validation", 0), 20):
        for rule in RULES:
            candidate = Candidate(rule, gold.orders)
            said = findings(noisy.reply(verification_prompt(blocks, solution(candidate))))
            wrong += [a != b for a, b in zip(said, check(blocks, candidate), strict=True)]
    assert least <= mean(wrong) <= most


def test_a_summary_takes_the_majority_of_the_verifications():
    prompt = verification_prompt(BLOCKS, solution(GOLD))
    critiques = [teacher(error_rate=rate).reply(prompt) for rate in (0.0, 1.0, 0.0)]
    told = {"solution": solution(GOLD), "verifications": critiques, "words": 100}
    summary = teacher().reply(PROMPTS.render("summary", question=QUESTION, task="answer", **told))
    assert findings(summary) == check(BLOCKS, GOLD)
    assert summary.startswith(f"{GOLD.rule} 4/4\n")


# --- solutions with memory

keys = st.tuples(st.integers(0, 3), st.sampled_from(["alfa", "bravo", "carol", "delta"]), st.sampled_from([*ORDERS]))
attempts = st.lists(st.tuples(st.sampled_from(["alfa", "bravo", "carol"]), st.integers(0, 4)), min_size=1, max_size=5)


def refuted(rule: str, labels: Labels) -> bool:
    return any(all(labels.get((n, rule, order)) is False for order in ORDERS) for n in range(4))


def best_first(given_attempts: Sequence[tuple[str, int]]) -> list[str]:
    """The rules of the attempts: the most fitting blocks first, then the later attempt."""
    ranked = sorted(enumerate(given_attempts), key=lambda pair: (pair[1][1], pair[0]), reverse=True)
    return list(dict.fromkeys(rule for _, (rule, _) in ranked))


@given(st.dictionaries(keys, st.booleans(), min_size=1, max_size=40), attempts, st.integers(0, 3))
def test_exploitation_follows_the_findings(labels: Labels, given_attempts: list[tuple[str, int]], seed: int):
    candidate = chosen(teacher(seed).reply(exploit_prompt(labels, given_attempts)))
    rules = best_first(given_attempts)
    left = [rule for rule in rules if not refuted(rule, labels)]
    assert candidate.rule == [*left, *rules][0]
    for n, order in enumerate(candidate.orders if left else ()):
        known = {o: labels.get((n, candidate.rule, o)) for o in ORDERS}
        if True in known.values():
            assert known[order] is True
        else:
            assert known[order] is None


def test_exploitation_shows_its_look_ups():
    labels = {(0, "alfa", "ab"): False, (0, "alfa", "ac"): True}
    reply = teacher().reply(exploit_prompt(labels, [("alfa", 2)]))
    thinking, _ = split_thinking_lines(reply)
    assert thinking[:2] == ["A:alfa:ab BAD", "A:alfa:ac OK"]
    assert thinking[2:5] == ["B:alfa:ab new", "B:alfa:ac new", "B:alfa:bc new"]


def test_findings_that_contradict_each_other_are_settled_by_a_vote_with_the_support_of_bank_items():
    prompt = """\
echo 0/1
A:echo:ab BAD
echo 1/1
B:echo:ab OK
- [E1, support 2] A:echo:ab OK
- [E2, support 1] B:echo:ab BAD
- [E3, support 3] C:echo:ab BAD"""
    assert labels_in(prompt) == {
        (0, "echo", "ab"): True,
        (2, "echo", "ab"): False,
    }  # B is tied


def test_a_refuted_item_has_no_vote():
    items = (
        Experience(item_id="E1", kind="conclusion", statement="A:echo:ac OK", refuted=1, **SEEN),
        Experience(item_id="E2", kind="conclusion", statement="B:echo:ab OK", **SEEN),
    )
    assert labels_in(all_items(ExperienceBank(items=items))) == {(1, "echo", "ab"): True}


def test_findings_without_any_attempt_are_answered_by_a_guess():
    assert chosen(teacher().reply(exploit_prompt({(0, "alfa", "ab"): True}, []))).rule in RULES


@given(st.sets(st.sampled_from([*RULES]), min_size=1), st.integers(0, 100))
def test_exploration_avoids_the_listed_rules_while_others_are_left(tried: set[str], seed: int):
    rule = chosen(teacher(seed).reply(explore_prompt(sorted(tried)))).rule
    assert rule not in tried or len(tried) == len(RULES)


def test_guesses_follow_the_prior_or_are_uniform():
    prompt = PROMPTS.render("solution", question=QUESTION, task="answer", attempts=[], experience="", guidelines="")
    prior, uniform = teacher(), teacher(spread=1.0)
    by_prior = [chosen(prior.reply(prompt)).rule for _ in range(400)]
    evenly = [chosen(uniform.reply(prompt)).rule for _ in range(400)]
    assert by_prior.count("alfa") > 5 * by_prior.count("hotel")
    assert max(map(evenly.count, RULES)) < 2 * min(map(evenly.count, RULES))


# --- banks


def test_bank_updates_hold_every_finding_and_every_rule_with_its_attempt():
    tried = [Candidate("alfa", ("ab",) * 4), Candidate("echo", ("bc",) * 4)]
    shown = [
        PROMPTS.render(
            "attempt", index=i, answer=answer(c), grade="0.00", solution=None, summary=teacher().reply(told(c))
        )
        for i, c in enumerate(tried)
    ]
    texts = {
        "attempts": [*shown, shown[0].replace("alfa", "zulu").replace('id="0"', 'id="2"')],
        "bank": "",
        "max_new": 9,
        "max_chars": 99,
    }
    experience = parse_json(
        teacher().reply(PROMPTS.render("experience", question=QUESTION, task="answer", **texts)), ExperienceOutput
    )
    guideline = parse_json(
        teacher().reply(PROMPTS.render("guideline", question=QUESTION, task="answer", **texts)), GuidelineOutput
    )
    known = [(i, found) for i, c in enumerate(tried) for found in check(BLOCKS, c)]
    assert [(n.rollouts, n.statement, n.kind) for n in experience.record.new[: len(known)]] == [
        ((i,), str(found), "conclusion" if found.fits else "pitfall") for i, found in known
    ]
    assert [(new.name, new.rollouts) for new in guideline.record.new] == [("alfa", (0,)), ("echo", (1,))]


def told(candidate: Candidate) -> str:
    """The summary prompt of a candidate with one true verification."""
    critique = teacher().reply(verification_prompt(BLOCKS, solution(candidate)))
    values = {"solution": solution(candidate), "verifications": [critique], "words": 100}
    return PROMPTS.render("summary", question=QUESTION, task="answer", **values)


@given(
    st.lists(
        st.builds("{}:{}:{} new".format, st.sampled_from(LETTERS), st.sampled_from([*RULES]), st.just("ab")), min_size=1
    )
)
def test_thinking_is_split_off_as_the_project_splits_it(lines: list[str]):
    reply = with_thinking(lines, solution(GOLD))
    completion = split_thinking(reply, "")
    assert (completion.text, completion.reasoning) == (solution(GOLD), "\n".join(lines))
    assert split_thinking_lines(reply) == (lines, solution(GOLD))
