"""GenSelect: which candidates a prompt compares, how a tournament goes, and how the votes give the answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tmas import Problem, Result, asolve
from tmas.methods.genselect import chosen_index
from tmas.prompts.parsing import Unparsable
from tmas.testing import team
from tmas.testing.chat_server import Body, Script, ScriptedServer

pytestmark = pytest.mark.usefixtures("answers_as_text")

PROBLEM = Problem(problem_id="p", question="What is 1 + 1?")
Compare = Callable[[list[str]], str]
"""From the solutions of a prompt to the reply."""


def compared(body: Body) -> list[str]:
    """The solutions that a prompt shows; their indices have to be right."""
    found = re.findall(r"^Solution (\d+):\n(.+)$", team.prompt(body), re.MULTILINE)
    assert [int(index) for index, _ in found] == list(range(len(found)))
    return [text for _, text in found]


class Model:
    """Writes "Sample i" with an answer, and compares as ``compare`` says."""

    def __init__(self, compare: Compare, answer: Callable[[int], str] = lambda i: str(i % 3)) -> None:
        self.compare, self.answer, self.samples = compare, answer, 0
        self.comparisons: list[list[str]] = []

    def __call__(self, body: Body) -> list[str]:
        if team.role_of(body) == "comparison":
            self.comparisons.append(compared(body))
            return [self.compare(self.comparisons[-1])]
        if team.role_of(body) == "summary":
            return team.reply(body)
        self.samples += 1
        return [f"Sample {self.samples - 1} says \\boxed{{{self.answer(self.samples - 1)}}}."]


def picks_in_turn(*texts: str) -> Compare:
    """Selects the solution that holds the next of ``texts``."""
    following = iter(texts)

    def compare(shown: list[str]) -> str:
        return picks(next(following))(shown)

    return compare


def picks(text: str) -> Compare:
    """Selects the first solution that holds ``text``, or else the first one."""
    return lambda shown: f"Judgment: {next((i for i, solution in enumerate(shown) if text in solution), 0)}"


async def solve(model: Any, context_length: int = 100_000, output: Path | None = None, **method: Any) -> Result:
    async with ScriptedServer(model) as server:
        settings = team.small("genselect", **({"shown": "solution"} | method))
        endpoint = team.model(server.base_url, context_length=context_length)
        return await asolve(PROBLEM, endpoint, settings, concurrency=1, output_dir=output)


async def test_the_minority_s_answer_is_given_if_comparisons_select_it():
    model = Model(picks("Sample 5"), lambda i: "9" if i == 5 else "7")
    result = await solve(model, n_candidates=7, n_compared=16, n_votes=3)
    assert [len(shown) for shown in model.comparisons] == [7, 7, 7]
    assert len({tuple(shown) for shown in model.comparisons}) == 3  # each vote has an order of its own
    chosen = result.trajectory.selected
    assert chosen is not None
    assert (chosen.candidate, chosen.answer, chosen.votes, chosen.rule) == (5, "9", 3, "genselect")


async def test_a_tournament_has_groups_of_nearly_equal_size_and_compares_every_candidate():
    model = Model(picks("Sample 10"))
    result = await solve(model, n_candidates=13, n_compared=4, n_votes=2)
    assert Counter(len(shown) for shown in model.comparisons) == {4: 4, 3: 6}  # for each vote 4, 3, 3, 3, then 4
    times = Counter(re.findall(r"Sample (\d+)", " ".join(text for shown in model.comparisons for text in shown)))
    assert times.keys() == {str(i) for i in range(13)}
    assert times["10"] == 4  # it wins both rounds of both votes
    assert result.trajectory.selected is not None
    assert (result.trajectory.selected.candidate, result.trajectory.selected.votes) == (10, 2)


async def test_a_single_candidate_of_a_group_advances_without_a_comparison():
    model = Model(picks("Sample 0"))
    await solve(model, n_candidates=3, n_compared=2, n_votes=1)
    assert [len(shown) for shown in model.comparisons] == [2, 2]


async def test_a_subset_is_compared_once():
    model = Model(picks("nothing"))
    await solve(model, n_candidates=9, n_compared=4, n_votes=5, arrangement="subset")
    assert [len(shown) for shown in model.comparisons] == [4] * 5
    assert len({frozenset(shown) for shown in model.comparisons}) > 1


async def test_votes_are_counted_by_classes_of_equal_answers():
    """Two votes for each of two candidates with one answer, three for another candidate."""
    winners = picks_in_turn(*(f"Sample {i}" for i in (1, 1, 2, 2, 3, 3, 3)))
    model = Model(winners, lambda i: "7" if i in (1, 2) else str(i + 20))
    result = await solve(model, n_candidates=4, n_compared=4, n_votes=7)
    chosen = result.trajectory.selected
    assert chosen is not None
    assert (chosen.candidate, chosen.answer, chosen.votes) == (1, "7", 4)


async def test_proofs_are_selected_by_the_number_of_votes():
    model = Model(picks_in_turn("Sample 2", "Sample 0", "Sample 2"))
    result = await solve(model, n_candidates=3, n_compared=4, n_votes=3, agents={"task": "proof"})
    chosen = result.trajectory.selected
    assert chosen is not None
    assert (chosen.candidate, chosen.answer, chosen.votes) == (2, None, 2)


async def test_a_failed_comparison_is_a_failure_and_its_vote_does_not_count():
    orders: list[list[str]] = []

    def compare(shown: list[str]) -> str:
        orders.append(shown)
        if shown != orders[0]:
            return picks("Sample 1")(shown)
        return "I cannot tell." if orders.count(shown) == 1 else "Judgment: 9"

    result = await solve(Model(compare), n_candidates=3, n_compared=4, n_votes=2, agents={"parse_attempts": 2})
    [failure] = result.failures
    assert (failure.reason, failure.key.role if failure.key else None) == ("unparsable", "comparison")
    assert "indices are 0 to 2" in failure.message
    assert result.trajectory.selected is not None
    assert (result.trajectory.selected.candidate, result.trajectory.selected.votes) == (1, 1)


async def test_without_any_vote_the_candidates_vote():
    model = Model(lambda _: "I cannot tell.", lambda i: "7" if i else "8")
    result = await solve(model, n_candidates=3, n_compared=4, n_votes=2, agents={"parse_attempts": 1})
    assert result.trajectory.selected is not None
    assert (result.answer, result.trajectory.selected.rule, len(result.failures)) == ("7", "vote", 2)


async def test_a_failed_comparison_of_an_earlier_round_advances_a_random_candidate_which_replays(tmp_path: Path):
    calls = 0

    def compare(shown: list[str]) -> str:
        nonlocal calls
        calls += 1
        return "I cannot tell." if calls == 1 else "Judgment: 0"

    options: dict[str, Any] = {"n_candidates": 4, "n_compared": 2, "n_votes": 1, "agents": {"parse_attempts": 1}}
    model = Model(compare)
    first = await solve(model, output=tmp_path, **options)
    assert [len(shown) for shown in model.comparisons] == [2, 2, 2]
    assert first.trajectory.selected is not None
    assert first.trajectory.selected.rule == "genselect"
    again = await solve(model, output=tmp_path, **options)
    assert calls == 3
    assert again.trajectory == first.trajectory


async def test_groups_are_smaller_where_the_prompt_does_not_fit():
    model = Model(picks("Sample 6"), lambda i: "x" * 300)
    result = await solve(model, context_length=1064 + 1100, n_candidates=8, n_compared=8, n_votes=1)
    assert sorted(len(shown) for shown in model.comparisons) == [2, 4, 4]
    assert result.packed_prompts == 0
    assert result.trajectory.selected is not None
    assert result.trajectory.selected.candidate == 6


@pytest.mark.parametrize(
    ("sizes", "room"),
    [([3000, 4000], 1100), ([4000, 4000], 3100)],  # in 3100 tokens, both would fit after a cut of one to 2000
)
async def test_two_candidates_that_do_not_fit_are_cut_to_one_length(sizes: list[int], room: int):
    prompts: list[str] = []

    def reply(body: Body) -> list[str]:
        if team.role_of(body) == "comparison":
            prompts.append(team.prompt(body))
            return ["Judgment: 1"]
        return [f"Begin{'x' * next(lengths)}end \\boxed{{1}}."]

    lengths = iter(sizes)
    result = await solve(reply, context_length=1064 + room, n_candidates=2, n_compared=8, n_votes=1)
    assert result.packed_prompts == 1
    first, second = re.findall(r"^Begin.*?boxed", prompts[0], re.DOTALL | re.MULTILINE)
    assert "characters left out here" in first
    assert abs(len(first) - len(second)) < 10


async def test_a_summary_with_the_candidate_s_answer_is_shown_in_its_place():
    summaries = [
        "Short: \\boxed{7}.",
        "Longer than the first: \\boxed{7}.",
        "The longest, but about another: \\boxed{8}.",
    ]

    def reply(body: Body) -> list[str]:
        if team.role_of(body) == "summary":
            assert body["n"] == 3
            return summaries if "Sample 0" in team.prompt(body) else ["Wrong: \\boxed{1}."] * 3
        return model(body)

    model = Model(picks("Longer"), lambda i: "7" if i == 0 else "9")
    result = await solve(reply, n_candidates=2, n_compared=2, n_votes=1, shown="summary", n_summaries=3)
    [shown] = model.comparisons
    assert sorted(shown) == ["Longer than the first: \\boxed{7}.", "Sample 1 says \\boxed{9}."]
    assert result.answer == "7"
    assert result.solution == "Sample 0 says \\boxed{7}."  # the answer is the candidate, not its summary


async def test_candidates_without_an_answer_or_cut_short_are_not_compared():
    said = iter([["No box."], ["It is \\boxed{1}."], ["It is \\boxed{2}."]])
    model = Model(picks("{2}"))

    def reply(body: Body) -> list[str] | Script:
        if team.role_of(body) == "comparison":
            return model(body)
        return next(said, None) or Script(("So",), finish_reason="length")

    result = await solve(reply, n_candidates=4, n_compared=4, n_votes=1)
    [shown] = model.comparisons
    assert len(shown) == 2
    assert result.answer == "2"


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("Both hold.\nJudgment: 1", 1),
        ("**Judgement:** 0", 0),
        ("Judgment: [2]", 2),
        ("Judgment: \\boxed{2}", 2),
        ("Judgment: Solution 1", 1),
        ("First I thought: Judgment: 0. No.\nJudgment: 2", 2),
    ],
)
def test_the_last_judgment_counts(text: str, index: int):
    assert chosen_index(text, 3) == index


@pytest.mark.parametrize("text", ["Solution 1 is best.", "Judgment: IDX", "Judgment: 3", "Judgment: none of 2 holds"])
def test_a_reply_without_an_index_is_unparsable(text: str):
    with pytest.raises(Unparsable):
        chosen_index(text, 3)
