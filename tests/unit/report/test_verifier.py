"""The report's tab on the verifier: its error rates."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.support import runs
from tests.support.runs import candidate, iteration
from tmas.evaluation.estimators import BootstrapSettings
from tmas.evaluation.verifier import calibration
from tmas.records.evaluation_files import NO_ESTIMATE
from tmas.records.run_files import Prediction
from tmas.report.items import Cell
from tmas.report.verifier import _errors, _without_grade

RULE = [{("5", "5"): True, ("5", "6"): False}]


def test_the_error_rates_of_each_run_are_shown_and_older_evaluations_have_none():
    graded = iteration([candidate("5", [1]), candidate("6", [1]), candidate("6", [0])])
    line = Prediction.model_validate(runs.prediction("p", "5", [graded]))
    found = calibration([line], RULE, BootstrapSettings())
    older = found.model_copy(update={"false_accept": NO_ESTIMATE, "false_reject": NO_ESTIMATE})
    new, old = (SimpleNamespace(name=name) for name in ("new", "old"))
    given: Any = [(new, found), (old, older)]
    [table] = _errors(given)
    [[name, accepts, rejects]] = table.rows
    assert name == "new"
    assert isinstance(accepts, Cell)
    assert isinstance(rejects, Cell)
    assert (accepts.text, rejects.text) == ("50.0%", "0.0%")
    assert list(_errors(given[1:])) == []


def test_candidates_without_a_grade_are_counted_and_older_evaluations_do_not_have_them():
    failed = candidate(None, failure="truncated")
    found = [candidate("5", [1]), candidate("6"), failed, candidate(None, failure="endpoint")]
    line = Prediction.model_validate(runs.prediction("p", "5", [iteration(found)]))
    graded: Any = [(SimpleNamespace(name="run"), calibration([line], RULE, BootstrapSettings()))]
    [table] = _without_grade(graded)
    assert table.rows == [["run", "1", "1", "1"]]  # a candidate that the server failed on is in no rate
    older: Any = [(name, one.model_copy(update={"graded": None})) for name, one in graded]
    assert list(_without_grade(older)) == []
