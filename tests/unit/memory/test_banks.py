"""memory/bank.py with both banks: what a reply changes, what is evicted, and what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tmas.memory.bank import RenderedBank
from tmas.memory.experience import ExperienceBank
from tmas.memory.guidelines import GuidelineBank
from tmas.memory.settings import OLDER_RULES, BankSettings
from tmas.prompts.schemas import ExperienceOutput, ExperienceUpdate, GuidelineOutput, NewExperience
from tmas.records import BankChange, Experience, Rollout, Solution, Verification

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


def update(item_id: str, action: str, statement: str = "", rollouts: Sequence[int] = ()) -> dict[str, Any]:
    return {"id": item_id, "action": action, "statement": statement, "rollouts": rollouts}


def rollout(t: int, index: int, grade: float = 1.0, shown: Sequence[str] = ()) -> Rollout:
    solution = Solution(iteration=t, index=index, mode="exploit", text="It is 12.", answer="12")
    checked = (Verification(index=0, grade=grade, critique="Checked."),)
    return Rollout(
        iteration=t, index=index, mode="exploit", solution=solution, verifications=checked, shown=tuple(shown)
    )


def rollouts(t: int, shown: Sequence[str] = ()) -> list[Rollout]:
    return [rollout(t, index, shown=shown) for index in range(8)]


def evolve(
    bank: ExperienceBank, *entries: dict[str, Any], t: int = 0, found: Sequence[Rollout] = (), **limits: int
) -> tuple[ExperienceBank, BankChange]:
    output = ExperienceOutput.model_validate(
        {"new": [e for e in entries if "kind" in e], "updates": [e for e in entries if "id" in e]}
    )
    return bank.evolve(output, t, found or rollouts(t), **limits)


def bank_of(*claims: str, **settings: Any) -> ExperienceBank:
    bank = ExperienceBank(settings=BankSettings.model_validate({"capacity": 48} | settings))
    return evolve(bank, *map(new, claims))[0]


def only(bank: ExperienceBank) -> Experience:
    [item] = bank.items
    return item


def test_new_items_get_ids_in_order() -> None:
    bank, change = evolve(ExperienceBank(), new(CLAIMS[0], rollouts=[3, 1, 3, 8, -1]), new(CLAIMS[3], "pitfall"), t=2)
    assert change == BankChange(added=("E1", "E2"), unknown_rollouts=1)  # parsing leaves out -1
    seen = {"created": 2, "last_seen": 2}
    assert bank.items == (
        Experience(item_id="E1", kind="conclusion", statement=CLAIMS[0], support=2, rollouts=((2, 1), (2, 3)), **seen),
        Experience(item_id="E2", kind="pitfall", statement=CLAIMS[3], rollouts=((2, 0),), **seen),
    )


def test_what_is_stated_again_confirms() -> None:
    bank, change = evolve(bank_of(CLAIMS[0]), new(f"Thus the {CLAIMS[0][4:]}.", rollouts=[5]), new(CLAIMS[2]), t=1)
    assert change == BankChange(added=("E2",), merged=("E1",))
    first = bank.items[0]
    assert (first.statement, first.support, first.created, first.last_seen) == (CLAIMS[0], 2, 0, 1)
    assert first.rollouts == ((0, 0), (1, 5))


def test_opposites_and_rewordings_are_items_of_their_own() -> None:
    claims = (
        *("P is reducible over the rationals", "P is irreducible over the rationals"),
        *("n divides a_n for all n", "a_n divides n for all n"),
        *("ABC is acute", "ABC is obtuse", "R is symmetric", "R is antisymmetric"),
        *("For all x there is a y with P(x, y)", "There is a y with P(x, y) for all x", *CLAIMS[:2]),
    )
    bank = bank_of(*claims)
    assert [(item.statement, item.support) for item in bank.items] == [(claim, 1) for claim in claims]


def test_a_similarity_merges_near_duplicates_as_before() -> None:
    bank, change = evolve(bank_of(CLAIMS[0], similarity=0.7), new(CLAIMS[1], rollouts=[5]), new(CLAIMS[2]), t=1)
    assert change == BankChange(added=("E2",), merged=("E1",))
    assert bank.items[0].rollouts == ((0, 0), (1, 5))


def test_one_statement_within_one_reply_is_one_item() -> None:
    bank, change = evolve(ExperienceBank(), new(CLAIMS[0], rollouts=[0]), new(f"{CLAIMS[0]}.", rollouts=[1]))
    assert change == BankChange(added=("E1",), merged=("E1",))
    assert (only(bank).support, only(bank).rollouts) == (2, ((0, 0), (0, 1)))


def test_a_pitfall_is_no_duplicate_of_a_conclusion() -> None:
    assert evolve(bank_of(CLAIMS[5]), new(CLAIMS[5], "pitfall"))[1].added == ("E2",)


def test_updates() -> None:
    bank = bank_of(CLAIMS[0], CLAIMS[3], CLAIMS[4])
    bank, _ = evolve(bank, update("E2", "confirm", rollouts=[1]), t=1)
    bank, change = evolve(
        bank,
        update("E1", "confirm", rollouts=[3]),
        update("E2", "correct", CLAIMS[6], rollouts=[1, 2]),
        update("E3", "drop"),
        update("E9", "drop"),
        t=2,
    )
    assert change == BankChange(confirmed=("E1",), corrected=("E2",), dropped=("E3",), unknown=1)
    assert [(i.item_id, i.statement, i.support, i.last_seen, i.refuted) for i in bank.items] == [
        ("E1", CLAIMS[0], 2, 2, None),
        ("E2", CLAIMS[6], 2, 2, None),
        ("E3", CLAIMS[4], 1, 2, 2),
    ]


def test_a_correction_into_another_item_merges() -> None:
    bank, _ = evolve(bank_of(CLAIMS[0]), new(CLAIMS[3], rollouts=[4]), t=1)
    bank, change = evolve(bank, update("E2", "correct", CLAIMS[0], rollouts=[6]), t=2)
    assert change == BankChange(corrected=("E2",), merged=("E1",))
    assert (only(bank).item_id, only(bank).statement) == ("E1", CLAIMS[0])
    assert (only(bank).support, only(bank).rollouts) == (2, ((0, 0), (2, 6)))  # without those of the old text


def test_a_correction_into_a_refuted_item_refutes_the_old_text() -> None:
    bank, _ = evolve(bank_of("x = 1", "x = 2"), update("E1", "drop"), t=1)
    bank, change = evolve(bank, update("E2", "correct", "x = 1", rollouts=[6]), t=2)
    assert change == BankChange(dropped=("E2",), refused=("E1",))
    assert [(i.statement, i.refuted) for i in bank.items] == [("x = 1", 1), ("x = 2", 2)]


def test_updates_come_before_new_items() -> None:
    bank, change = evolve(bank_of(CLAIMS[0], tombstones=0), new(CLAIMS[0]), update("E1", "drop"), t=1)
    assert change == BankChange(added=("E2",), dropped=("E1",))
    assert only(bank).statement == CLAIMS[0]


# --- evidence


def test_support_is_the_number_of_distinct_rollouts_that_derived_the_item() -> None:
    five = [update("E1", "confirm", rollouts=[2, 3])] * 5
    bank, change = evolve(bank_of("The maximum is 17."), *five, new("The maximum is $17$", rollouts=[3]), t=1)
    assert change == BankChange(confirmed=("E1",), merged=("E1",), echoed=("E1",))
    assert (only(bank).support, only(bank).rollouts) == (3, ((0, 0), (1, 2), (1, 3)))


def test_rollouts_that_do_not_exist_are_ignored_and_counted() -> None:
    bank, change = evolve(bank_of("x = 2"), update("E1", "confirm", rollouts=[7, 8, 9]), t=1)
    assert (only(bank).support, change.unknown_rollouts) == (2, 2)


def test_a_confirmation_without_rollouts_keeps_the_item_in_sight_and_adds_nothing() -> None:
    bank, change = evolve(bank_of("x = 2"), update("E1", "confirm"), t=3)
    assert (only(bank).support, only(bank).last_seen) == (1, 3)
    assert change == BankChange(confirmed=("E1",), echoed=("E1",))


@pytest.mark.parametrize(("weight", "support"), [(0.0, 2), (0.25, 3), (0.5, 4), (1.0, 7)])
def test_rollouts_that_were_shown_the_item_count_the_shown_weight(weight: float, support: int) -> None:
    found = [*rollouts(1, shown=["E1"])[:7], rollout(1, 7)]
    bank = bank_of("The maximum is 17.", shown_weight=weight)
    bank, change = evolve(bank, update("E1", "confirm", rollouts=[0, 1, 2, 3, 4, 7]), t=1, found=found)
    assert (only(bank).support, only(bank).echoes, change.echoed) == (support, 5, ())


@pytest.mark.parametrize(("settings", "support"), [({"shown_weight": 0.0}, 1), ({}, 5), (OLDER_RULES, 9)])
def test_echoes_raise_the_support_of_a_false_claim_slowly_or_not_at_all(settings: dict[str, Any], support: int) -> None:
    bank = bank_of("The maximum is 17.", **settings)
    for t in range(1, 5):
        bank, change = evolve(
            bank, update("E1", "confirm", rollouts=[0, 1]), new("The maximum is 17."), t=t, found=rollouts(t, ["E1"])
        )
        assert change.merged == ("E1",)
    assert only(bank).support == support


def test_a_drop_costs_support_and_removes_only_what_has_none_left() -> None:
    bank, _ = evolve(ExperienceBank(), new("x = 2", rollouts=[0, 1, 2, 3, 4]))
    bank, change = evolve(bank, update("E1", "drop", rollouts=[*range(8)]), update("E1", "drop"), t=1)
    assert (only(bank).support, only(bank).contradictions, change) == (5, 2, BankChange(contradicted=("E1",)))
    assert bank.render(lambda _: True).text.endswith("- [E1, support 5, contradicted 2] x = 2")
    bank, _ = evolve(bank, update("E1", "drop", rollouts=[3]), t=2)
    bank, change = evolve(bank, update("E1", "drop", rollouts=[3, 4]), t=3)
    assert (only(bank).refuted, change) == (3, BankChange(dropped=("E1",)))


def test_a_correction_of_an_item_with_support_leaves_it_and_adds_the_new_text() -> None:
    bank, _ = evolve(ExperienceBank(), new("x = 2", rollouts=[0, 1, 2, 3, 4]))
    bank, change = evolve(bank, update("E1", "correct", "x = 3", rollouts=[6]), t=1)
    assert change == BankChange(contradicted=("E1",), added=("E2",))
    assert [(i.statement, i.support, i.contradictions) for i in bank.items] == [("x = 2", 5, 1), ("x = 3", 1, 0)]


def test_a_correction_that_changes_nothing_confirms() -> None:
    assert evolve(bank_of("x = 2"), update("E1", "correct", "$x=2$"), t=1)[1].confirmed == ("E1",)


def test_a_refuted_claim_cannot_return_and_is_shown_as_a_warning() -> None:
    bank, _ = evolve(bank_of("The maximum is 17."), update("E1", "drop", rollouts=[2]), t=1)
    text = bank.render(lambda _: True).text
    assert text == "Refuted claims, not to be used again:\n- [E1, refuted] The maximum is 17."
    bank, change = evolve(bank, new("the maximum is $17$"), update("E1", "confirm", rollouts=[1]), t=2)
    assert change == BankChange(refused=("E1",), unknown=1)
    assert (only(bank).refuted, only(bank).support) == (1, 1)


def test_the_latest_refuted_claims_are_kept_and_take_no_room_from_others() -> None:
    bank = bank_of("x = 1", "x = 2", "x = 3", capacity=3, tombstones=2)
    for n in (1, 2, 3):
        bank, change = evolve(bank, update(f"E{n}", "drop"), new(f"y = {n}"), t=n)
    assert change.evicted == ("E1",)
    assert [i.item_id for i in bank.items if i.refuted is not None] == ["E2", "E3"]
    assert [i.statement for i in bank.items if i.refuted is None] == ["y = 1", "y = 2", "y = 3"]


def test_an_item_of_rollouts_with_low_grades_loses_rank() -> None:
    found = [rollout(0, index, grade=0.0 if index < 2 else 1.0) for index in range(4)]
    entries = new("x = 2", rollouts=[0, 1]), new("x = 3", rollouts=[2]), new("never x = 4", "pitfall", rollouts=[0, 1])
    bank, _ = evolve(ExperienceBank(settings=BankSettings(capacity=2, grade_weight=0.5)), *entries, found=found)
    assert [i.statement for i in bank.items] == ["x = 2", "never x = 4"]  # E1 has support 2, E2 has 1
    weighed, _ = evolve(ExperienceBank(settings=BankSettings(capacity=2)), *entries, found=found)
    assert [i.statement for i in weighed.items] == ["x = 3", "never x = 4"]
    assert [i.shortfall for i in weighed.items] == [-0.5, 1.0]


# --- limits


def test_of_too_many_new_items_the_first_are_added() -> None:
    old = bank_of(*(f"x = {n}" for n in range(48)))
    bank, change = evolve(old, *(new(f"y = {n}") for n in range(200)), new("x = 7"), t=1, max_new=8)
    assert [i.statement for i in bank.items][-8:] == [f"y = {n}" for n in range(8)]
    assert sum(i.statement.startswith("x") for i in bank.items) == 40
    assert (change.over_limit, change.merged) == (192, ("E8",))
    uncapped = old.model_copy(update={"settings": BankSettings(capacity=48, cap_new=False)})
    assert len(evolve(uncapped, *(new(f"y = {n}") for n in range(200)), t=1, max_new=8)[1].added) == 200


def test_corrections_add_no_more_items_than_the_limit() -> None:
    old, _ = evolve(bank_of(*(f"x = {n}" for n in range(47))), new("The sum is 5.", rollouts=[0, 1, 2, 3]))
    many = (update("E48", "correct", f"y = {n}", rollouts=[1]) for n in range(200))
    bank, change = evolve(old, *many, new("z = 1"), t=1, max_new=8)
    assert [i.statement for i in bank.items][-8:] == [f"y = {n}" for n in range(8)]
    assert sum(i.statement.startswith("x") for i in bank.items) == 39
    assert (len(change.added), change.over_limit) == (8, 193)


def test_a_long_text_is_cut_at_the_end_of_a_word() -> None:
    bank, change = evolve(bank_of("x = 2"), new("word " * 200), new("w" * 90), update("E1", "correct", "an " * 90), t=1,
                          max_chars=40)  # fmt: skip
    assert [i.statement for i in bank.items] == [
        "an " * 12 + "an…", "word " * 6 + "word…", "w" * 39 + "…",
    ]  # fmt: skip
    assert change.shortened == ("E1", "E2", "E3")


def test_a_long_name_is_cut_too() -> None:
    long = {"name": "route " * 90, "description": "On n."}
    bank, _ = GuidelineBank().evolve(GuidelineOutput.model_validate({"new": [long]}), 0, [], 8, 600)
    assert len(bank.items[0].name) <= 120


def test_the_older_rules_are_a_set_of_settings() -> None:
    bank = bank_of("The maximum is 17.", similarity=0.7, **OLDER_RULES)
    confirms = [update("E1", "confirm")] * 5
    bank, _ = evolve(bank, *confirms, new("The maximum is 17."), t=1, found=rollouts(1, shown=["E1"]))
    assert only(bank).support == 7
    assert evolve(bank, update("E1", "drop"), t=2)[0].items == ()


# --- eviction and prompts


def test_ids_are_not_reused_after_the_last_item_is_gone() -> None:
    bank, _ = evolve(bank_of(CLAIMS[0], tombstones=0), update("E1", "drop"))
    assert only(evolve(bank, new(CLAIMS[3]))[0]).item_id == "E2"


def test_an_iteration_unseen_costs_an_item_one_support() -> None:
    bank = bank_of(CLAIMS[0], CLAIMS[3], CLAIMS[4], capacity=3)
    bank, _ = evolve(bank, update("E1", "confirm", rollouts=[0, 1]), update("E2", "correct", CLAIMS[6]), t=1)
    bank, change = evolve(bank, new("x = 2"), t=2)
    assert change.evicted == ("E3",)  # support 1, unseen for two iterations
    bank, change = evolve(bank, new("x = 3"), t=3)
    assert change.evicted == ("E2",)  # support 1, unseen for two; E1 has support 3
    bank, change = evolve(bank, new("x = 5"), t=4)
    assert change.evicted == ("E4",)
    bank, change = evolve(bank, new("x = 6"), new("x = 7"), t=4)
    assert change.evicted == ("E1", "E5")  # E1 has cost its support, and is the oldest of the equals


def test_render_experiences() -> None:
    bank, _ = evolve(
        ExperienceBank(), new(CLAIMS[0]), new(CLAIMS[5], "pitfall"), new(CLAIMS[3]), new(CLAIMS[0], rollouts=[1])
    )
    assert bank.render(lambda _: True) == RenderedBank(
        text=f"Pitfalls to avoid:\n- [E2, support 1] {CLAIMS[5]}\n\n"
        "Findings to reuse, re-check before relying on them:\n"
        f"- [E1, support 2] {CLAIMS[0]}\n- [E3, support 1] {CLAIMS[3]}",
        shown=("E1", "E2", "E3"),
        left_out=(),
    )


def test_render_guidelines() -> None:
    output = GuidelineOutput.model_validate({"new": [{"name": "Induction", "description": "On n; stuck at the step."}]})
    bank, change = GuidelineBank().evolve(output, 0, rollouts(0))
    assert change.added == ("G1",)
    assert bank.render(lambda _: True).text == "- [G1, support 1] Induction: On n; stuck at the step."
    correction = {"updates": [{"id": "G1", "action": "correct", "description": "On m."}]}
    assert (
        bank.evolve(GuidelineOutput.model_validate(correction), 1, rollouts(1))[0].items[0].text == "Induction: On m."
    )


def test_render_leaves_out_the_first_to_be_evicted() -> None:
    bank, _ = evolve(bank_of(CLAIMS[0], CLAIMS[3], CLAIMS[4]), update("E1", "confirm", rollouts=[0]), t=1)
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
    with pytest.raises(ValidationError, match="Instance is frozen"):
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
    rollouts=st.lists(st.integers(0, 9), max_size=3).map(tuple),
)
outputs = st.builds(
    ExperienceOutput, new=st.lists(entries, max_size=6).map(tuple), updates=st.lists(updates, max_size=6).map(tuple)
)


def run(bank: ExperienceBank, history: Sequence[ExperienceOutput]) -> list[tuple[ExperienceBank, BankChange]]:
    steps = []
    for t, output in enumerate(history):
        bank, change = bank.evolve(output, t, rollouts(t))
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
        assert sum(item.refuted is None for item in bank.items) <= capacity
        assert ids == sorted(set(ids))
        assert all(0 <= index < 8 and i <= t for item in bank.items for i, index in item.rollouts)
        assert all(item.created <= item.last_seen <= t and item.support >= 1 for item in bank.items)


@given(outputs, outputs)
def test_what_came_and_went_adds_up(first: ExperienceOutput, second: ExperienceOutput) -> None:
    before, _ = ExperienceBank(settings=BankSettings(capacity=4)).evolve(first, 0, rollouts(0))
    after, change = before.evolve(second, 1, rollouts(1))
    came = {i.item_id for i in before.items} | set(change.added)
    left = {i.item_id for i in after.items} | set(change.dropped) | set(change.evicted)
    assert left <= came
    assert came - left <= set(change.corrected)  # merged into another item
    refuted = {i.item_id for i in after.items if i.refuted is not None}
    assert refuted <= set(change.dropped) | {i.item_id for i in before.items if i.refuted is not None}
    live = {i.item_id for i in before.items if i.refuted is None}
    touched = {*change.confirmed, *change.corrected, *change.dropped, *change.contradicted}
    assert touched == {u.id for u in second.updates if u.id in live}
    stated = len({new.content["statement"] for new in second.new})
    assert len({*change.added, *change.merged, *change.refused}) >= min(stated, 1)


@given(st.lists(entries, max_size=8))
def test_merging_is_idempotent_and_keeps_provenance(found: list[NewExperience]) -> None:
    output = ExperienceOutput(new=tuple(found))
    once, _ = ExperienceBank().evolve(output, 0, rollouts(0))
    twice, change = once.evolve(output, 1, rollouts(1))
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
        assert all(f"[{item_id}, " in rendered.text for item_id in rendered.shown)


@given(outputs, st.sets(st.integers(0, 600)))
def test_an_odd_test_of_fit_is_still_respected(output: ExperienceOutput, lengths: set[int]) -> None:
    bank, _ = ExperienceBank().evolve(output, 0, rollouts(0))
    text = bank.render(lambda text: len(text) in lengths).text
    assert text == "" or len(text) in lengths
