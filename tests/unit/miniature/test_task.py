"""recipes/miniature/task.py and language.py: problems have one solution, and what is written can be read back."""

from __future__ import annotations

import re
from itertools import islice, product
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.miniature.language import (
    FORMULAS,
    Finding,
    answer,
    arithmetic,
    blocks_in,
    check,
    findings,
    question,
    read_answer,
    solution,
)
from recipes.miniature.prepare import prepare
from recipes.miniature.task import LETTERS, ORDERS, RULES, Block, Blocks, Candidate, Split, Task, solves, split_of
from tests.support.miniature import blocks, problems_with_candidates
from tmas.answers.extract import extract_boxed
from tmas.records import Problem
from tmas.training.contexts import TrainingProblem

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def evaluated(rule: str, order: str, block: Block) -> int:
    """The formula as the introduction of a problem states it, evaluated without the task's own code."""
    x, y = (getattr(block, name) for name in order)
    [z] = [getattr(block, name) for name in "abc" if name not in order]
    _, first, _, second, _ = FORMULAS[rule]
    sums = {"+": lambda p, q: p + q, "-": lambda p, q: p - q, "~": lambda p, q: q - p, "*": lambda p, q: p * q}
    return sums[second](sums[first](x, y), z) % 10


def candidates(count: int) -> list[Candidate]:
    return [Candidate(rule, orders) for rule in RULES for orders in product(ORDERS, repeat=count)]


@given(problems_with_candidates())
def test_a_candidate_solves_a_problem_if_the_formula_gives_every_target(drawn: tuple[Blocks, Candidate]):
    given_blocks, candidate = drawn
    values = [evaluated(candidate.rule, o, b) for b, o in zip(given_blocks, candidate.orders, strict=True)]
    assert solves(given_blocks, candidate) == (values == [block.target for block in given_blocks])
    reached = tuple(block._replace(target=value) for block, value in zip(given_blocks, values, strict=True))
    assert solves(reached, candidate)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_problem_has_exactly_one_solution(count: int):
    for given_blocks, gold in islice(Task(blocks=count).problems("train", 0), 25):
        found = [
            candidate
            for candidate in candidates(count)
            if all(
                evaluated(candidate.rule, o, b) == b.target for b, o in zip(given_blocks, candidate.orders, strict=True)
            )
        ]
        assert found == [gold]


def test_splits_share_no_block():
    drawn = {split: {b for found, _ in islice(Task().problems(split, 0), 60) for b in found} for split in SPLITS}
    assert all({split_of(b) for b in found} == {split} for split, found in drawn.items())
    assert drawn["train"].isdisjoint(drawn["validation"])
    assert drawn["train"].isdisjoint(drawn["test"])
    assert drawn["validation"].isdisjoint(drawn["test"])


@pytest.mark.parametrize("split", SPLITS)
def test_the_seed_and_the_split_decide_the_problems(split: Split):
    first, again = ([*islice(Task().problems(split, 3), 20)] for _ in range(2))
    assert first == again
    assert first != [*islice(Task().problems(split, 4), 20)]
    assert len(set(first)) == 20


def test_rare_rules_occur_and_common_ones_are_more_frequent():
    rules = [gold.rule for _, gold in islice(Task().problems("train", 0), 400)]
    assert {*rules} == {*RULES}
    assert rules.count("alfa") > 3 * rules.count("hotel")


# --- text


@given(blocks)
def test_a_question_can_be_read_back(given_blocks: Blocks):
    assert blocks_in(question(given_blocks)) == given_blocks


@given(problems_with_candidates())
def test_an_answer_and_a_solution_can_be_read_back(drawn: tuple[Blocks, Candidate]):
    given_blocks, candidate = drawn
    assert read_answer(answer(candidate), len(given_blocks)) == candidate
    assert extract_boxed(solution(candidate)) == answer(candidate)


@given(st.text(st.sampled_from("0123456789 x"), max_size=6), st.integers(1, 4))
def test_only_digits_of_a_rule_and_of_orders_are_an_answer(digits: str, count: int):
    valid = len(digits) == count + 1 and digits[0] in "12345678" and set(digits[1:]) <= set("123")
    assert (read_answer(digits, count) is not None) == valid


@given(
    st.lists(
        st.builds(Finding, st.integers(0, 3), st.sampled_from([*RULES]), st.sampled_from([*ORDERS]), st.booleans())
    )
)
def test_findings_can_be_read_back_from_any_text_around_them(known: list[Finding]):
    assert findings("\n".join(map(str, known))) == known
    assert findings("".join(f"- [E1, support 2] {found}, and so on " for found in known)) == known


@given(problems_with_candidates())
def test_a_check_is_true_and_can_be_read_back_from_its_arithmetic(drawn: tuple[Blocks, Candidate]):
    given_blocks, candidate = drawn
    known = check(given_blocks, candidate)
    lines = [arithmetic(block, found) for block, found in zip(given_blocks, known, strict=True)]
    assert findings("\n".join(lines)) == known
    for line, block, order in zip(lines, given_blocks, candidate.orders, strict=True):
        value = evaluated(candidate.rule, order, block)
        assert re.search(rf"={value},{block.target} {'OK' if value == block.target else 'BAD'}$", line)


# --- files


def test_the_problem_files_are_what_the_commands_read(tmp_path: Path):
    sizes: dict[Split, int] = {"train": 3, "validation": 2, "test": 2}
    for folder in ("a", "b"):
        prepare(tmp_path / folder, Task(), sizes)
    for split, size in sizes.items():
        text = (tmp_path / "a" / f"{split}.jsonl").read_bytes()
        assert text == (tmp_path / "b" / f"{split}.jsonl").read_bytes()
        form = TrainingProblem if split == "train" else Problem
        problems = [form.model_validate(orjson.loads(line)) for line in text.splitlines()]
        assert [problem.problem_id for problem in problems] == [f"{split}-{n}" for n in range(size)]
        for problem in problems:
            gold = read_answer(problem.answer or "", len(LETTERS))
            assert gold is not None
            assert solves(blocks_in(problem.question), gold)
