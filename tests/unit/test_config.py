"""config.py: what a role inherits, what is refused and how, and what makes a run the same run."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from pydantic import ValidationError

from tmas.config import ROLES, ModelSettings, RunSettings, flat
from tmas.methods.tmas import TMASSettings

SECRET = "sk-very-secret-0123456789"
URL = "http://h:8000/v1"


def model(**changes: Any) -> dict[str, Any]:
    return {"name": "m", "base_url": URL, "api_key_env": "KEY", "context_length": 8192} | changes


def role(role: str = "summary", /, **own: Any) -> ModelSettings:
    """What ``role`` gets where the model has sampling of its own and the role ``own``."""
    settings = model(sampling={"temperature": 0.6, "extra": {"top_k": 20, "min_p": 0}}, roles={"summary": own})
    return ModelSettings.model_validate(settings).for_role(role)


def run(**changes: Any) -> RunSettings:
    return RunSettings.model_validate({"model": model()} | changes)


# --- roles


def test_a_role_without_settings_of_its_own_is_the_model():
    assert role("verification", name="other") == role("summary") == role("summary", name=None)


def test_a_role_s_own_settings_stand_over_the_model_s():
    own = role(name="judge", context_length=4096, tokenizer="estimate", sampling={"temperature": 0, "max_tokens": 64})
    assert (own.name, own.context_length, own.tokenizer) == ("judge", 4096, "estimate")
    assert (own.sampling.temperature, own.sampling.max_tokens, own.sampling.top_p) == (0, 64, 0.95)
    assert (own.base_url, own.api_key_env) == (URL, "KEY")


def test_extra_sampling_is_merged_key_by_key():
    assert role(sampling={"extra": {"top_k": 5, "stop": ["x"]}}).sampling.extra == {
        "top_k": 5,
        "min_p": 0,
        "stop": ["x"],
    }


@pytest.mark.parametrize(
    ("own", "key"),
    [
        ({"base_url": "http://other/v1"}, None),
        ({"base_url": "http://other/v1", "api_key_env": "OTHER"}, "OTHER"),
        ({"base_url": URL}, "KEY"),
        ({"api_key_env": "OTHER"}, "OTHER"),
    ],
)
def test_the_key_goes_to_its_own_url_alone(own: dict[str, Any], key: str | None):
    assert role(**own).endpoint().api_key_env == key


def test_patience_reaches_the_endpoint():
    settings = ModelSettings.model_validate(model(patience={"max_attempts": 3, "idle_timeout": 5}))
    assert (settings.endpoint().max_attempts, settings.endpoint().idle_timeout) == (3, 5)


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"model": model(api_key=SECRET)}, "model.api_key"),
        ({"model": model(api_key_env=SECRET)}, "api_key_env"),
        ({"model": model(base_url=f"http://user:{SECRET}@h/v1")}, "base_url"),
        ({"model": model(base_url=f"http://h/v1?key={SECRET}")}, "base_url"),
        ({"model": model(context_length=SECRET)}, "model.context_length"),
        ({"model": model(sampling={"max_tokens": SECRET})}, "model.sampling.max_tokens"),
        ({"model": model(sampling={"key": SECRET})}, "model.sampling.key"),
        ({"model": model(patience={"max_attempts": SECRET})}, "model.patience.max_attempts"),
        ({"model": model(roles={"summary": {"api_key_env": SECRET}})}, "api_key_env"),
        ({"method": {"name": "tmas", "epsilon": SECRET}}, "epsilon"),
        ({"limits": {"tokens_per_run": SECRET}}, "limits.tokens_per_run"),
        ({"serving": {"name": SECRET}}, "serving.name"),
        ({"concurrency": SECRET}, "concurrency"),
        ({"unknown": SECRET}, "unknown"),
    ],
)
def test_a_wrong_value_is_refused_by_place_and_not_repeated(changes: dict[str, Any], where: str):
    with pytest.raises(ValidationError) as refused:
        run(**changes)
    assert where in str(refused.value)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    "own",
    [
        {"context_length": 1},
        {"sampling": {"temperature": -1}},
        {"sampling": {"top_p": 7}},
        {"sampling": {"max_tokens": 0}},
    ],
)
def test_a_role_s_values_are_held_to_the_model_s_limits(own: dict[str, Any]):
    with pytest.raises(ValidationError, match=r"model\.roles\.summary"):
        run(model=model(roles={"summary": own}))


def test_a_role_that_does_not_exist_is_refused():
    with pytest.raises(ValidationError, match=r"no such role: verifier \(there are solution, verification"):
        run(model=model(roles={"verifier": {"name": "judge"}}))


def test_a_missing_endpoint_is_refused_before_anything_is_begun():
    with pytest.raises(ValidationError, match=r"model\.base_url is not set"):
        run(model=model(base_url=None))
    every_role = {name: {"base_url": URL} for name in ROLES}
    run(model=model(base_url=None, roles=every_role))


def test_a_server_of_our_own_needs_something_to_load():
    with pytest.raises(ValidationError, match=r"serving=vllm needs model\.path"):
        run(model=model(base_url=None), serving={"name": "vllm"})
    run(model=model(base_url=None, path="folder"), serving={"name": "vllm"})


# --- identity


def changed(name: str, value: Any) -> dict[str, Any]:
    return run(model=model(**{name: value})).identity()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base_url", "http://elsewhere/v1"),
        ("api_key_env", "OTHER"),
        ("patience", {"max_attempts": 1}),
    ],
)
def test_where_and_how_patiently_a_model_is_reached_is_not_part_of_the_run(name: str, value: Any):
    assert changed(name, value) == run().identity()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "n"),
        ("context_length", 4096),
        ("tokenizer", "estimate"),
        ("path", "another/place"),
        ("send_seed", False),
        ("sampling", {"temperature": 0.1}),
        ("sampling", {"extra": {"top_k": 1}}),
        ("roles", {"guideline": {"name": "n"}}),
    ],
)
def test_what_a_model_s_replies_depend_on_is_part_of_the_run(name: str, value: Any):
    assert changed(name, value) != run().identity()


def test_how_a_run_is_scheduled_and_limited_is_not_part_of_it():
    scheduled = run(concurrency=1, active_problems=1, limits={"tokens_per_run": 5}, serving={"name": "endpoint"})
    assert scheduled.identity() == run().identity()
    assert run(seed=1).identity() != run().identity()


def test_every_setting_of_the_method_is_part_of_the_run():
    identity = run().identity()
    settings = flat(TMASSettings().model_dump(mode="json"), "method.")
    assert settings.items() <= identity.items()
    assert len(settings) > 10


def test_every_setting_was_sorted_into_one_kind_or_the_other():
    assert set(ModelSettings.model_fields) == {
        *("base_url", "api_key_env", "patience"),  # left out
        *("name", "path", "context_length", "tokenizer", "send_seed", "sampling", "roles"),
    }
    assert set(RunSettings.model_fields) == {
        *("serving", "concurrency", "active_problems", "limits"),  # left out
        *("model", "method", "seed"),
    }


def test_a_finished_problem_stands_by_its_method_and_limits():
    assert run(concurrency=1, seed=1).terms() == run().terms()
    assert run(limits={"tokens_per_problem": 5}).terms() != run().terms()
    assert run(method={"name": "tmas", "max_iterations": 2}).terms() != run().terms()


def test_flat_joins_keys_and_keeps_what_is_empty():
    assert flat({"a": {"b": {"c": 1}, "d": {}}, "e": [{"f": 1}], "g": None}) == {
        "a.b.c": 1,
        "a.d": {},
        "e": [{"f": 1}],
        "g": None,
    }
