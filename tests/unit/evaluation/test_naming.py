"""evaluation/naming.py: the names of groups of runs."""

from __future__ import annotations

import pytest

from tmas.evaluation.naming import group_names, own_settings


def test_a_method_that_occurs_once_is_named_by_itself_and_others_by_what_differs():
    settings = [{"method.epsilon": 0.2}, {"method.epsilon": 0.4}, {"method.n_candidates": 8}]
    names = group_names(["tmas", "tmas", "vote"], settings, ["a", "b", "c"])
    assert names == ["tmas (epsilon=0.2)", "tmas (epsilon=0.4)", "vote"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            [{"model.solution.name": "runs/hybrid/final"}, {"model.solution.name": "runs/vanilla/final"}],
            ["m (model=hybrid/final)", "m (model=vanilla/final)"],
        ),
        (
            [{"model.solution.name": "big/4B"}, {"model.solution.name": "big/30B"}],
            ["m (model=4B)", "m (model=30B)"],
        ),
        (
            [{"method.experience.capacity": 1, "method.guidelines.capacity": 2},
             {"method.experience.capacity": 3, "method.guidelines.capacity": 4}],
            ["m (experience.capacity=1, guidelines.capacity=2)", "m (experience.capacity=3, guidelines.capacity=4)"],
        ),
        (
            [{"a": 1, "b": 1, "c": 1, "d": 1, "method.e": None}, {"a": 2, "b": 2, "c": 2, "d": 2}],
            ["m", "m (a=2, b=2, c=2, and 1 more)"],
        ),
        ([{"method.use": True}, {}], ["m (one)", "m (two)"]),  # an evaluation of an older version
        ([{"method.use": True}, {"method.use": True}], ["m (one)", "m (two)"]),  # other prompts or problems
        (
            [{"benchmark": "imo", "x": "a" * 30}, {"benchmark": "imo", "x": "a" * 31}],
            [f"m (x={'a' * 23}…; one)", f"m (x={'a' * 23}…; two)"],
        ),
    ],
)  # fmt: skip
def test_names_are_short_and_distinct(settings: list[dict[str, object]], expected: list[str]):
    assert group_names(["m", "m"], settings, ["one", "two"]) == expected


def test_an_ablation_is_named_by_what_it_changes():
    full = {
        "method.epsilon": 0.25,
        "method.n_candidates": 4,
        "method.use_experience": True,
        "method.use_guidelines": True,
    }
    changes = [{}, {"method.use_experience": False}, {"method.use_guidelines": False}, {"method.epsilon": 0.0}]
    changes += [{"method.epsilon": 0.5}, {"method.n_candidates": 2}]
    names = group_names(["m"] * 6, [full | change for change in changes], list("abcdef"))
    assert names == [
        *("m", "m (use_experience=false)", "m (use_guidelines=false)"),
        *("m (epsilon=0.0)", "m (epsilon=0.5)", "m (n_candidates=2)"),
    ]


def test_the_seed_and_what_a_role_shares_with_the_solver_name_nothing():
    settings = {"seed": 3, "model.solution.name": "a", "model.summary.name": "a", "model.verification.name": "b"}
    assert own_settings(settings) == {"model.solution.name": "a", "model.verification.name": "b"}
