"""The names that the field `model` of a request may have, and the settings behind each."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import ValidationError

from tests.support.serving import served
from tmas.cli.main import register_resolvers
from tmas.methods import METHODS
from tmas.serve.models import ServedModel
from tmas.serve.settings import ServeSettings
from tmas.testing import team
from tmas.testing.chat_server import ScriptedServer

CONF = Path(__file__).parents[3] / "conf"


def shipped(*overrides: str) -> ServeSettings:
    register_resolvers()
    given = ["serve.output_dir=x", "model.name=m", "model.base_url=http://127.0.0.1:1/v1", "model.context_length=1000"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("serve", overrides=[*given, *overrides])
    return ServeSettings.model_validate(OmegaConf.to_container(config, resolve=True))


def test_the_configuration_serves_every_method_and_two_presets_as_tmas_solve_runs_them():
    models = shipped().served_models
    assert models.keys() == METHODS.keys() | {"tmas-fast", "tmas-max"}
    for name in METHODS:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("serve", overrides=["serve.output_dir=x", "model.name=m", f"method={name}"])
        assert (
            models[name].method.model_dump()
            == METHODS[name].settings_type.model_validate(OmegaConf.to_container(config.method)).model_dump()
        )
        for role in METHODS[name].settings_type.roles:
            sampling = models[name].model.for_role(role).sampling
            assert sampling.temperature == OmegaConf.select(config, f"model.roles.{role}.sampling.temperature") or (
                sampling.temperature == config.model.sampling.temperature
            )
    sizes = {name: (m.method.n_candidates, m.method.max_iterations) for name, m in models.items() if "tmas" in name}  # type: ignore[attr-defined]
    assert sizes == {"tmas": (8, 20), "tmas-fast": (4, 4), "tmas-max": (16, 20)}


def test_the_method_of_the_server_has_its_own_name_and_its_own_settings():
    models = shipped("method=majority_vote", "method.n_candidates=5").served_models
    assert next(iter(models)) == "majority_vote"
    assert models["majority_vote"].method.n_candidates == 5  # type: ignore[attr-defined]
    assert models["tmas"].method.name == "tmas"
    assert list(shipped("serve.models=null").served_models) == ["tmas"]


def test_a_name_can_be_changed_added_and_lowered_to_the_limits(caplog: pytest.LogCaptureFixture):
    models = shipped(
        "serve.models.tmas-fast.method.n_candidates=2",
        "+method@serve.models.mine.method=best_of_n",
        "serve.most.n_candidates=8",
    ).served_models
    assert [models[name].method.n_candidates for name in ("tmas-fast", "mine", "majority_vote")] == [2, 8, 8]  # type: ignore[attr-defined]
    assert "serve.models.mine: lowered to the limits of serve.most: n_candidates=8" in caplog.text


def test_decoding_settings_of_an_unknown_role_are_refused():
    with pytest.raises(ValidationError, match="no such role: solver"):
        ServedModel.model_validate({"method": {"name": "tmas"}, "model": {"roles": {"solver": {}}}})


@pytest.mark.usefixtures("answers_as_text")
async def test_a_request_names_its_method_and_an_unknown_name_is_told_what_there_is(tmp_path: Path):
    models = {
        "vote": {"method": team.small("majority_vote"), "model": {"sampling": {"temperature": 0.2}}},
        "refine": {"method": team.small("self_refine")},
    }
    async with ScriptedServer(team.reply) as engine, served(tmp_path, engine.base_url, models=models) as server:
        listed = (await server.send("GET", "/models")).json["data"]
        one = (await server.send("GET", "/models/vote")).json
        vote, refine = await server.ask(model="vote"), await server.ask(model="refine")
        unknown, missing = await server.ask(model="gpt-5"), await server.send("GET", "/models/gpt-5")
        over = await server.ask(model="vote", tmas={"n_candidates": 6})
    assert [model["id"] for model in listed] == ["tmas", "vote", "refine"]
    assert one["tmas"] == {"method": "majority_vote", "n_candidates": 5, "max_iterations": 1}
    assert [(reply.json["model"], reply.json["tmas"]["method"]) for reply in (vote, refine)] == [
        ("vote", "majority_vote"),
        ("refine", "self_refine"),
    ]
    assert [body["temperature"] for body in engine.requests][:5] == [0.2] * 5
    assert "feedback" in {team.role_of(body) for body in engine.requests}
    for reply in (unknown, missing):
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")
        assert reply.error["message"] == "there is no model 'gpt-5' here, only tmas, vote, refine"
    assert (over.status, over.error["code"]) == (400, "over_limit")


@pytest.mark.usefixtures("answers_as_text")
async def test_a_server_is_asked_for_its_context_length_once_for_all_models_and_requests(tmp_path: Path):
    models = {"refine": {"method": team.small("self_refine")}}
    reported = {"context_length": None}
    async with (
        ScriptedServer(team.reply, context_length=100_000) as engine,
        served(tmp_path, engine.base_url, model=reported, models=models) as server,
    ):
        engine.context_length = None  # it would be an error now
        assert [(await server.ask(model=name)).status for name in ("tmas", "refine", "refine")] == [200] * 3
