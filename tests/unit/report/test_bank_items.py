"""report/bank_items.py: which candidates were shown an item of the banks, and how many of them are right."""

from __future__ import annotations

from tests.support.runs import Line, candidate, iteration, prediction
from tmas.records.run_files import Prediction
from tmas.report.bank_items import _row, shown_items
from tmas.report.items import Cell


def judged(answer: str | None, correct: str | None, *shown: str, failure: str | None = None) -> Line:
    return {**candidate(answer, failure=failure), "correct": correct, "shown": shown}


def test_items_are_counted_by_the_candidates_that_were_shown_them():
    first = iteration([candidate("6")], banks=(["E1", "E2"], ["G1"]))
    second = iteration(
        [
            judged("5", "equal", "E1", "E2"),
            judged("6", "different", "E1"),
            judged(None, None, "E1", failure="truncated"),
            judged("odd n", "undecided", "E1"),
            judged("5", "equal", "G1"),
            judged(None, None, failure="endpoint"),
        ],
        banks=(["E1"], ["G1"]),
    )
    line = Prediction.model_validate(prediction("p", "5", [first, second]))
    e1, e2, g1 = shown_items(line)
    assert (e1.item.item_id, e1.shown, e1.right) == ("E1", [(1, 0), (1, 1), (1, 2), (1, 3)], [(1, 0)])
    assert e1.wrong == [(1, 1), (1, 2)]  # a truncated candidate is wrong, an undecided one neither
    assert (e1.others, e1.others_right) == (1, 1)  # the candidate that the server failed on says nothing
    assert (e2.item.item_id, len(e2.shown), e2.others, e2.others_right) == ("E2", 1, 4, 1)  # it was evicted afterwards
    assert g1.item.item_id == "G1"
    problem, item, _, shown, right, wrong, others = _row(e1)
    assert (problem, shown, others) == ("p", "4", "1 of 1")
    assert item == Cell("E1", "pitfall, support 1")
    assert (right, wrong) == (Cell("1", "1/0"), Cell("2", "1/1, 1/2"))
