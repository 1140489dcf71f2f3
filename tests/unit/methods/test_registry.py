"""A method is known by one line, and its settings by its name: shown with the method that CONTRIBUTING.md adds."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tmas import asolve
from tmas.files import read_lines
from tmas.methods import METHODS, AnyMethodSettings
from tmas.settings import ROLES, RunSettings
from tmas.testing import team
from tmas.testing.chat_server import Body, ScriptedServer

pytestmark = pytest.mark.usefixtures("answers_as_text")

PAGE = Path(__file__).parents[3] / "CONTRIBUTING.md"
MODEL = {"name": "m", "base_url": "http://h/v1"}


@pytest.fixture
def consensus(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the page's example, registered by the page's line."""
    page = PAGE.read_text(encoding="utf-8")
    [code] = re.findall(r"^## A new method.*?```python\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    assert '`"consensus": Consensus`' in page
    module = ModuleType("tmas.methods.consensus")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, "CONTRIBUTING.md", "exec"), module.__dict__)
    monkeypatch.setitem(METHODS, "consensus", module.__dict__["Consensus"])
    return module


def run(method: Any, **model: Any) -> RunSettings:
    return RunSettings.model_validate({"model": MODEL | model, "method": method})


def test_the_method_that_contributing_shows_is_known_by_its_name(consensus: ModuleType):
    settings = run({"name": "consensus", "n_candidates": 3})
    assert isinstance(settings.method, consensus.ConsensusSettings)
    assert settings.method.model_dump()["n_candidates"] == 3
    assert {key.split(".")[1] for key in settings.identity() if key.startswith("model.")} == {"solution"}


async def test_the_method_that_contributing_shows_runs_and_is_resumed(consensus: ModuleType, tmp_path: Path):
    def reply(body: Body) -> list[str]:
        return ["\\boxed{4}"] if len(server.requests) > 3 else team.reply(body)

    [problem] = team.problems(1)
    settings = consensus.ConsensusSettings(n_candidates=3, max_iterations=4)
    async with ScriptedServer(reply) as server:
        first, again = [
            await asolve(problem, team.model(server.base_url), settings, output_dir=tmp_path) for _ in range(2)
        ]
    assert len(server.requests) == 6
    assert first.trajectory == again.trajectory
    assert (first.answer, first.trajectory.stop) == ("4", "early_stop")
    [line] = read_lines(tmp_path / "predictions.jsonl")
    assert (line["method"], len(line["iterations"])) == ("consensus", 2)


@pytest.mark.parametrize("name", METHODS)
def test_plain_settings_become_those_of_the_method_they_name(name: str):
    settings = TypeAdapter(AnyMethodSettings).validate_python({"name": name, "agents": {"answer_format": "stated"}})
    assert type(settings) is METHODS[name].settings_type
    assert (settings.name, settings.agents.answer_format) == (name, "stated")
    assert TypeAdapter(AnyMethodSettings).validate_python(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    ("method", "place", "message"),
    [
        ({"name": "tmsa"}, "method", "no such method: 'tmsa' (choose from tmas, "),
        ({}, "method", "no such method: None"),
        ({"name": "pacore", "epsilon": 0.1}, "method.epsilon", "Extra inputs are not permitted"),
        ({"name": "rse", "agents": {"task": "essay"}}, "method.agents.task", "Input should be"),
        ({"name": "best_of_n", "max_iterations": 2}, "method.max_iterations", "Input should be 1"),
    ],
)
def test_wrong_settings_are_refused_by_their_place(method: dict[str, Any], place: str, message: str):
    with pytest.raises(ValidationError) as refused:
        run(method)
    [error] = refused.value.errors()
    assert ".".join(map(str, error["loc"])) == place
    assert message in error["msg"]


def test_a_run_depends_on_the_roles_of_its_method_alone():
    own = {"distill": {"name": "d", "base_url": "http://d/v1"}}
    vote, rse = ({"name": name} for name in ("majority_vote", "rse"))
    assert run(vote, roles=own).identity() == run(vote).identity()
    assert run(rse, roles=own).identity() != run(rse).identity()
    assert set(run(rse).role_models()) == {"solution", "distill"}


def test_every_role_of_a_method_can_have_a_model_of_its_own():
    assert {role for method in METHODS.values() for role in method.settings_type.roles} == set(ROLES)
