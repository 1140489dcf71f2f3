"""memory/recycled.py: each statement once, in its newest and longest form, with all that it was found in."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tmas.memory.recycled import RecycledBank
from tmas.prompts.schemas import DistillOutput
from tmas.records import BankChange

CLAIMS = [
    "n is even",
    "n is even. (Source: parity)",
    "If m = 3 then n is even. (Source: parity)",
    "The sum of the digits is congruent to n modulo 9",
    "The sum of all the digits is congruent to n modulo 9",
    "The sum of the digits is not congruent to n modulo 9",
    "x = 2",
    "x = 3",
]


def found(*propositions: str, pitfalls: Sequence[str] = ()) -> DistillOutput:
    return DistillOutput(verified_propositions=propositions, critical_pitfalls=tuple(pitfalls))


def bank_of(*propositions: str, pitfalls: Sequence[str] = ()) -> RecycledBank:
    return RecycledBank().evolve({0: found(*propositions, pitfalls=pitfalls)}, 0)[0]


def statements(bank: RecycledBank) -> list[str]:
    return [item.statement for item in bank.items]


def test_what_is_new_gets_an_id_and_its_rollout():
    bank, change = RecycledBank().evolve({2: found("x = 2"), 5: found(pitfalls=["dividing by zero"])}, 3)
    assert change == BankChange(added=("E1", "E2"))
    assert [(i.item_id, i.kind, i.created, i.rollouts) for i in bank.items] == [
        ("E1", "pitfall", 3, ((3, 5),)),
        ("E2", "conclusion", 3, ((3, 2),)),
    ]


def test_equal_statements_substrings_and_near_duplicates_are_one_the_longest():
    bank = bank_of(*CLAIMS)
    assert statements(bank) == [CLAIMS[4], CLAIMS[5], CLAIMS[2], CLAIMS[6], CLAIMS[7]]
    support = dict(zip(statements(bank), (item.support for item in bank.items), strict=True))
    assert support == {CLAIMS[4]: 2, CLAIMS[5]: 1, CLAIMS[2]: 3, CLAIMS[6]: 1, CLAIMS[7]: 1}


def test_a_proposition_is_never_a_pitfall():
    assert statements(bank_of("x = 2", pitfalls=["x = 2"])) == ["x = 2", "x = 2"]


def test_the_new_stands_before_the_old_however_long_that_is():
    old, change = RecycledBank().evolve({0: found(CLAIMS[4], CLAIMS[7])}, 0)
    assert change.added == ("E1", "E2")
    bank, change = old.evolve({1: found(CLAIMS[3], CLAIMS[0])}, 1)
    assert statements(bank) == [CLAIMS[3], CLAIMS[0], CLAIMS[7]]
    assert change == BankChange(added=("E3", "E4"), merged=("E3",), dropped=("E1",))
    head = bank.items[0]
    assert (head.created, head.last_seen, head.support, head.rollouts) == (0, 1, 2, ((0, 0), (1, 1)))
    assert [item.item_id for item in bank.items] == ["E3", "E4", "E2"]


def test_an_old_statement_that_a_new_one_contains_goes_into_it():
    bank, change = bank_of(CLAIMS[0]).evolve({0: found(CLAIMS[1])}, 1)
    assert statements(bank) == [CLAIMS[1]]
    assert (change.merged, change.dropped) == (("E2",), ("E1",))


def test_a_number_is_not_a_part_of_a_longer_one():
    kept = [
        "so x = 12",
        "so x = 1.5",
        "so x = 1/2",
        "so x = 1 + y",
        "x = 1",
        "2 is a root",
        "12 is a root",
        "-2 is a root",
    ]
    assert sorted(statements(bank_of(*kept))) == sorted(kept)


def test_nothing_new_leaves_the_bank():
    old = bank_of("x = 2", pitfalls=["dividing by zero"])
    bank, change = old.evolve({0: found()}, 1)
    assert set(bank.items) == set(old.items)
    assert change == BankChange()


def test_there_is_no_limit():
    assert len(bank_of(*(f"x = {n}." for n in range(300))).items) == 300


ROUND = st.dictionaries(
    st.integers(0, 3),
    st.builds(
        lambda a, b: found(*a, pitfalls=b),
        st.lists(st.sampled_from(CLAIMS), max_size=3),
        st.lists(st.sampled_from(CLAIMS), max_size=3),
    ),
)


@given(st.lists(ROUND, max_size=4))
def test_nothing_is_lost_and_ids_are_given_once(rounds: list[dict[int, DistillOutput]]):
    bank, given_ids = RecycledBank(), []
    for t, distilled in enumerate(rounds):
        bank, change = bank.evolve(distilled, t)
        given_ids += change.added
    assert len(set(given_ids)) == len(given_ids)
    assert {item.item_id for item in bank.items} <= set(given_ids)
    said = [
        (kind, statement)
        for distilled in rounds
        for output in distilled.values()
        for kind, texts in (("conclusion", output.verified_propositions), ("pitfall", output.critical_pitfalls))
        for statement in texts
    ]
    assert sum(item.support for item in bank.items) == len(said)
    rollouts = {(t, index) for t, d in enumerate(rounds) for index, o in d.items() if o != found()}
    assert {rollout for item in bank.items for rollout in item.rollouts} == rollouts


def test_pitfalls_are_shown_first_and_the_least_supported_are_left_out_first():
    bank, _ = bank_of("x = 2", "y = 3", pitfalls=["dividing by zero"]).evolve({0: found("x = 2")}, 1)
    whole = bank.render(lambda _: True).text
    assert whole == "Critical pitfalls:\n- dividing by zero\n\nPropositions:\n- x = 2\n- y = 3"
    assert bank.render(lambda text: text.count("\n- ") <= 1).text == "Propositions:\n- x = 2"
    assert bank.render(lambda _: False).text == ""
    assert RecycledBank().render(lambda _: True).text == ""
