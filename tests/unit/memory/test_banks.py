"""memory/bank.py with both banks: what a reply changes, what is given up, what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tmas.memory.bank import BankSettings, RenderedBank
from tmas.memory.experience import ExperienceBank
from tmas.memory.guidelines import GuidelineBank
from tmas.prompts.schemas import ExperienceOutput, ExperienceUpdate, GuidelineOutput, NewExperience
from tmas.records import BankChange, Experience

CLAIMS = [
    "The sum of the digits is congruent to n modulo 9",
    "The sum of all the digits is congruent to n modulo 9",
    "The sum of the digits is not congruent to n modulo 9",
    "Every bounded monotone sequence has a limit",
    "Induction on the number of vertices closes the argument",
    "Assuming f to be continuous without any proof",
    "Squaring both sides introduces roots that must be checked",
    "x = 2",
    "x = 3",
]


def new(statement: str, kind: str = "conclusion", rollouts: Sequence[int] = (0,)) -> dict[str, Any]:
    return {"kind": kind, "statement": statement, "rollouts": rollouts}


def update(item_id: str, action: str, statement: str = "") -> dict[str, Any]:
    return {"id": item_id, "action": action, "statement": statement}


def evolve(
    bank: ExperienceBank, *entries: dict[str, Any], t: int = 0, n_rollouts: int = 8
) -> tuple[ExperienceBank, BankChange]:
    output = ExperienceOutput.model_validate(
        {"new": [e for e in entries if "kind" in e], "updates": [e for e in entries if "id" in e]}
    )
    return bank.evolve(output, t, n_rollouts)


def bank_of(*claims: str, **settings: Any) -> ExperienceBank:
    bank = ExperienceBank(settings=BankSettings(**{"capacity": 48} | settings))
    return evolve(bank, *map(new, claims))[0]


def only(bank: ExperienceBank) -> Experience:
    [item] = bank.items
    return item


def test_new_items_get_ids_in_order() -> None:
    bank, change = evolve(ExperienceBank(), new(CLAIMS[0], rollouts=[3, 1, 3, 8, -1]), new(CLAIMS[3], "pitfall"), t=2)
    assert change == BankChange(added=("E1", "E2"))
    assert bank.items == (
        Experience(
            item_id="E1", kind="conclusion", statement=CLAIMS[0], created=2, last_seen=2, rollouts=((2, 1), (2, 3))
        ),
        Experience(item_id="E2", kind="pitfall", statement=CLAIMS[3], created=2, last_seen=2, rollouts=((2, 0),)),
    )


def test_a_near_duplicate_confirms() -> None:
    bank, change = evolve(bank_of(CLAIMS[0]), new(CLAIMS[1], rollouts=[5]), new(CLAIMS[2]), t=1)
    assert change == BankChange(added=("E2",), merged=("E1",))
    first = bank.items[0]
    assert (first.statement, first.support, first.created, first.last_seen) == (CLAIMS[0], 2, 0, 1)
    assert first.rollouts == ((0, 0), (1, 5))


def test_near_duplicates_within_one_reply_are_one_item() -> None:
    bank, change = evolve(ExperienceBank(), new(CLAIMS[0], rollouts=[0]), new(CLAIMS[1], rollouts=[1]))
    assert change == BankChange(added=("E1",), merged=("E1",))
    assert (only(bank).support, only(bank).rollouts) == (2, ((0, 0), (0, 1)))


def test_a_pitfall_is_no_duplicate_of_a_conclusion() -> None:
    assert evolve(bank_of(CLAIMS[5]), new(CLAIMS[5], "pitfall"))[1].added == ("E2",)


def test_updates() -> None:
    bank = bank_of(CLAIMS[0], CLAIMS[3], CLAIMS[4])
    bank, _ = evolve(bank, update("E2", "confirm"), t=1)
    bank, change = evolve(
        bank,
        update("E1", "confirm"),
        update("E2", "correct", CLAIMS[6]),
        update("E3", "drop"),
        update("E9", "drop"),
        t=2,
    )
    assert change == BankChange(confirmed=("E1",), corrected=("E2",), dropped=("E3",), unknown=1)
    assert [(i.item_id, i.statement, i.support, i.last_seen) for i in bank.items] == [
        ("E1", CLAIMS[0], 2, 2),
        ("E2", CLAIMS[6], 1, 2),
    ]


def test_a_correction_into_another_item_merges() -> None:
    bank, _ = evolve(bank_of(CLAIMS[0]), new(CLAIMS[3], rollouts=[4]), t=1)
    bank, change = evolve(bank, update("E2", "correct", CLAIMS[1]), t=2)
    assert change == BankChange(corrected=("E2",), merged=("E1",))
    assert (only(bank).item_id, only(bank).statement, only(bank).support) == ("E1", CLAIMS[0], 2)
    assert only(bank).rollouts == ((0, 0), (1, 4))


def test_updates_come_before_new_items() -> None:
    bank, change = evolve(bank_of(CLAIMS[0]), new(CLAIMS[1]), update("E1", "drop"), t=1)
    assert change == BankChange(added=("E2",), dropped=("E1",))
    assert only(bank).statement == CLAIMS[1]


def test_ids_are_not_reused_after_the_last_item_is_gone() -> None:
    bank, _ = evolve(bank_of(CLAIMS[0]), update("E1", "drop"))
    assert only(evolve(bank, new(CLAIMS[3]))[0]).item_id == "E2"


def test_an_iteration_unseen_costs_an_item_one_support() -> None:
    bank = bank_of(CLAIMS[0], CLAIMS[3], CLAIMS[4], capacity=3)
    bank, _ = evolve(bank, update("E1", "confirm"), update("E1", "confirm"), update("E2", "correct", CLAIMS[6]), t=1)
    bank, change = evolve(bank, new("x = 2"), t=2)
    assert change.evicted == ("E3",)  # support 1, unseen for two iterations
    bank, change = evolve(bank, new("x = 3"), t=3)
    assert change.evicted == ("E2",)  # support 1, unseen for two; E1 has support 3
    bank, change = evolve(bank, new("x = 5"), t=4)
    assert change.evicted == ("E4",)
    bank, change = evolve(bank, new("x = 6"), new("x = 7"), t=4)
    assert change.evicted == ("E1", "E5")  # E1 has cost its support, and is the oldest of the equals


def test_render_experiences() -> None:
    bank, _ = evolve(ExperienceBank(), new(CLAIMS[0]), new(CLAIMS[5], "pitfall"), new(CLAIMS[3]), new(CLAIMS[1]))
    assert bank.render(lambda _: True) == RenderedBank(
        text=f"Pitfalls to avoid:\n- [E2, support 1] {CLAIMS[5]}\n\n"
        "Findings to reuse, re-check before relying on them:\n"
        f"- [E1, support 2] {CLAIMS[0]}\n- [E3, support 1] {CLAIMS[3]}",
        shown=("E1", "E2", "E3"),
        left_out=(),
    )


def test_render_guidelines() -> None:
    output = GuidelineOutput.model_validate({"new": [{"name": "Induction", "description": "On n; stuck at the step."}]})
    bank, change = GuidelineBank().evolve(output, 0, 8)
    assert change.added == ("G1",)
    assert bank.render(lambda _: True).text == "- [G1, support 1] Induction: On n; stuck at the step."
    correction = {"updates": [{"id": "G1", "action": "correct", "description": "On m."}]}
    assert bank.evolve(GuidelineOutput.model_validate(correction), 1, 8)[0].items[0].text == "Induction: On m."


def test_render_leaves_out_the_first_to_be_evicted() -> None:
    bank, _ = evolve(bank_of(CLAIMS[0], CLAIMS[3], CLAIMS[4]), update("E1", "confirm"), t=1)
    rendered = bank.render(lambda text: text.count("- [") <= 2)
    assert (rendered.shown, rendered.left_out) == (("E1", "E3"), ("E2",))


def test_an_empty_bank_renders_nothing() -> None:
    empty = RenderedBank(text="", shown=(), left_out=())
    assert ExperienceBank().render(lambda _: False) == empty
    assert GuidelineBank().render(lambda _: True) == empty


def test_new_items_extend_the_text() -> None:
    before = bank_of(*CLAIMS[3:5])
    after, _ = evolve(before, new("x = 2"), t=1)
    assert after.render(lambda _: True).text.startswith(before.render(lambda _: True).text)


def test_defaults_and_immutability() -> None:
    assert (ExperienceBank().settings.capacity, GuidelineBank().settings.capacity) == (48, 24)
    with pytest.raises(ValidationError):
        ExperienceBank().items = ()  # type: ignore[misc]


def test_a_bank_survives_the_disk() -> None:
    bank = bank_of(*CLAIMS[:4])
    assert ExperienceBank.model_validate_json(bank.model_dump_json()) == bank


entries = st.builds(
    NewExperience,
    kind=st.sampled_from(["conclusion", "pitfall"]),
    statement=st.sampled_from(CLAIMS),
    rollouts=st.lists(st.integers(-1, 9), max_size=3).map(tuple),
)
updates = st.builds(
    ExperienceUpdate,
    id=st.integers(1, 12).map("E{}".format),
    action=st.sampled_from(["confirm", "correct", "drop"]),
    statement=st.sampled_from(CLAIMS),
)
outputs = st.builds(
    ExperienceOutput, new=st.lists(entries, max_size=6).map(tuple), updates=st.lists(updates, max_size=6).map(tuple)
)


def run(bank: ExperienceBank, history: Sequence[ExperienceOutput]) -> list[tuple[ExperienceBank, BankChange]]:
    steps = []
    for t, output in enumerate(history):
        bank, change = bank.evolve(output, t, 8)
        steps.append((bank, change))
    return steps


@given(st.lists(outputs, max_size=6), st.integers(1, 6))
def test_invariants_of_any_history(history: list[ExperienceOutput], capacity: int) -> None:
    start = ExperienceBank(settings=BankSettings(capacity=capacity))
    steps = run(start, history)
    assert run(start, history) == steps
    added = [item_id for _, change in steps for item_id in change.added]
    assert added == [f"E{n}" for n in range(1, len(added) + 1)]
    for t, (bank, _) in enumerate(steps):
        ids = [int(item.item_id[1:]) for item in bank.items]
        assert len(ids) <= capacity
        assert ids == sorted(set(ids))
        assert all(0 <= index < 8 and i <= t for item in bank.items for i, index in item.rollouts)
        assert all(item.created <= item.last_seen <= t and item.support >= 1 for item in bank.items)


@given(outputs, outputs)
def test_what_came_and_went_adds_up(first: ExperienceOutput, second: ExperienceOutput) -> None:
    before, _ = ExperienceBank(settings=BankSettings(capacity=4)).evolve(first, 0, 8)
    after, change = before.evolve(second, 1, 8)
    came = {i.item_id for i in before.items} | set(change.added)
    left = {i.item_id for i in after.items} | set(change.dropped) | set(change.evicted)
    assert left <= came
    assert came - left <= set(change.corrected)  # merged into another item
    assert len(change.confirmed + change.corrected + change.dropped) + change.unknown == len(second.updates)
    assert len(change.added) + len(change.merged) >= len(second.new)


@given(st.lists(entries, max_size=8))
def test_merging_is_idempotent_and_keeps_provenance(found: list[NewExperience]) -> None:
    output = ExperienceOutput(new=tuple(found))
    once, _ = ExperienceBank().evolve(output, 0, 8)
    twice, change = once.evolve(output, 1, 8)
    assert change.added == ()
    assert [i.statement for i in twice.items] == [i.statement for i in once.items]
    expected = {(t, index) for t in (0, 1) for new in found for index in new.rollouts if 0 <= index < 8}
    assert {pair for item in twice.items for pair in item.rollouts} == expected


@given(st.permutations([CLAIMS[0], *CLAIMS[2:]]))
def test_independent_items_may_come_in_any_order(claims: list[str]) -> None:
    bank = bank_of(*claims)
    assert [item.statement for item in bank.items] == claims
    assert all(item.support == 1 for item in bank.items)


@given(st.lists(outputs, max_size=3), st.integers(0, 600))
def test_what_is_rendered_fits(history: list[ExperienceOutput], limit: int) -> None:
    for bank, _ in run(ExperienceBank(), history):
        rendered = bank.render(lambda text: len(text) <= limit)
        assert len(rendered.text) <= limit
        assert {*rendered.shown, *rendered.left_out} == {item.item_id for item in bank.items}
        assert all(f"[{item_id}, support" in rendered.text for item_id in rendered.shown)


@given(outputs, st.sets(st.integers(0, 600)))
def test_an_odd_test_of_fit_is_still_respected(output: ExperienceOutput, lengths: set[int]) -> None:
    bank, _ = ExperienceBank().evolve(output, 0, 8)
    text = bank.render(lambda text: len(text) in lengths).text
    assert text == "" or len(text) in lengths
