"""agents/team.py: what the memory agents are asked for, and how a reply reaches the bank."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from tmas.agents.packing import Prompt
from tmas.agents.settings import AgentSettings
from tmas.agents.team import Team
from tmas.memory.experience import ExperienceBank
from tmas.prompts import BUILT_IN
from tmas.records import (
    CallKey,
    Completion,
    Experience,
    Problem,
    Reply,
    Rollout,
    Solution,
    Usage,
    Verification,
)

PROBLEM = Problem(problem_id="p", question="What is the maximum?", answer="12")
BANK = ExperienceBank(
    items=(
        Experience(item_id="E1", kind="conclusion", statement="n is even.", created=0, last_seen=0),
        Experience(item_id="E2", kind="conclusion", statement="n < 9.", created=0, last_seen=0, refuted=1),
    ),
    next_id=3,
)


class Scripted:
    """A session that gives one reply to every call, and keeps the prompts and schemas."""

    stopped = None
    prompts = BUILT_IN

    def __init__(self, reply: str) -> None:
        self.reply = reply
        self.asked: list[tuple[Prompt, dict[str, Any] | None]] = []

    def draw(self, name: str) -> float:
        return 0.0

    def window(self, role: str) -> Any:
        return self

    def fits(self, prompt: str) -> bool:
        return True

    def count(self, text: str) -> int:
        return len(text)

    def shown_items(self, key: CallKey, prompt: Prompt) -> tuple[str, ...]:
        return prompt.shown

    async def share_allows(self, iteration: int, stalled: int) -> bool:
        return True

    async def decide(self, name: str, compute: Callable[[], Awaitable[Any]], output: type[Any]) -> Any:
        return await compute()

    async def ask(self, key: CallKey, prompt: Prompt, n: int = 1, output_schema: dict[str, Any] | None = None) -> Reply:
        self.asked.append((prompt, output_schema))
        return Reply(completions=(Completion(text=self.reply),) * n, usage=Usage())


def rollout(index: int) -> Rollout:
    solution = Solution(iteration=2, index=index, mode="exploit", text="It is 12.", answer="12")
    return Rollout(
        iteration=2,
        index=index,
        mode="exploit",
        solution=solution,
        verifications=(Verification(index=0, grade=1.0, critique="Right."),),
        summary="It is right.",
    )


async def evolved(output: dict[str, Any], **settings: Any) -> tuple[Scripted, Any]:
    session = Scripted(json.dumps(output))
    team = Team(PROBLEM, session, AgentSettings(**settings))
    return session, await team.evolve(BANK, 2, [rollout(0), rollout(1)])


async def test_the_prompt_states_the_limits_and_the_schema_names_what_exists():
    session, _ = await evolved({"new": [], "updates": []}, max_new_items=5, max_item_chars=90)
    [(prompt, schema)] = session.asked
    assert "at most 5 new items" in prompt.text
    assert "at most 90 characters" in prompt.text
    assert schema is not None
    new, updates = schema["properties"]["new"], schema["properties"]["updates"]
    assert new["maxItems"] == 5
    fields = updates["items"]["properties"]
    assert fields["id"]["enum"] == ["E1"]  # a refuted item cannot be updated
    assert fields["rollouts"]["items"] == {"type": "integer", "enum": [0, 1]}
    assert "rollouts" in updates["items"]["required"]


async def test_an_oversized_reply_adds_its_first_items_and_cuts_long_texts():
    new = [{"kind": "conclusion", "statement": f"x = {n} " + "word " * 900, "rollouts": [0]} for n in range(200)]
    _, found = await evolved({"new": new, "updates": []})
    assert found.failure is None
    assert len(found.bank.items) == 2 + 8
    assert all(len(item.statement) <= 600 for item in found.bank.items)
    assert (found.change.over_limit, len(found.change.shortened)) == (192, 8)


async def test_items_copied_from_the_example_in_the_prompt_are_left_out():
    example = BUILT_IN.render("experience", question="", task="answer", attempts=[], bank="", max_new=8, max_chars=600)
    copied = json.loads(example[example.rindex('{"new"') :])
    own = {"kind": "conclusion", "statement": "n is odd.", "rollouts": [1]}
    _, found = await evolved({"new": [*copied["new"], own], "updates": copied["updates"]})
    assert [item.text for item in found.bank.items] == ["n is even.", "n < 9.", "n is odd."]
    assert (found.change.copied, found.change.unknown) == (2, 2)


async def test_a_reply_in_the_older_form_is_read_and_its_confirmations_add_no_support():
    _, found = await evolved({"new": [], "updates": [{"id": "E1", "action": "confirm", "statement": ""}]})
    item = found.bank.items[0]
    assert (item.support, item.last_seen, found.change.echoed) == (1, 2, ("E1",))


async def test_a_candidate_knows_which_items_its_prompt_showed():
    session = Scripted(r"It is \boxed{12}.")
    team = Team(PROBLEM, session, AgentSettings())
    prompt = team.solution_prompt(rollouts=[rollout(0)], experience=BANK)
    assert (await team.solution(3, 0, "exploit", prompt)).shown == ("E1", "E2")
    assert (await team.solution(3, 1, "initial", team.solution_prompt())).shown == ()
