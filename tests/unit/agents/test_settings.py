"""tmas/agents/settings.py: which setting has an effect on which role, and what a method refuses."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tmas.agents.settings import AgentSettings
from tmas.methods import METHODS, all_roles


def test_every_setting_names_the_roles_that_read_it():
    assert AgentSettings.READ_BY.keys() == AgentSettings.model_fields.keys()
    assert set().union(*AgentSettings.READ_BY.values()) == set(all_roles())


@pytest.mark.parametrize("name", METHODS)
def test_a_method_writes_down_only_the_agent_settings_that_it_reads(name: str):
    settings = METHODS[name].settings_type
    written = settings.model_validate({"name": name}).model_dump()["agents"]
    assert written.keys() == AgentSettings.names_for(settings.roles)


def test_a_setting_without_effect_is_refused():
    with pytest.raises(
        ValidationError, match=r"agents\.max_new_items has no effect on best_of_n, which calls solution"
    ):
        METHODS["best_of_n"].settings_type.model_validate({"name": "best_of_n", "agents": {"max_new_items": 3}})


def test_the_default_of_a_method_is_not_refused():
    rse = METHODS["rse"].settings_type.model_validate({"name": "rse"})
    assert rse.agents == AgentSettings(parse_attempts=6)
