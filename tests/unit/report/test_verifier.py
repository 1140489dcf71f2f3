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
from tmas.report.verifier import _errors

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
