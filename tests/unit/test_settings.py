"""settings.py: what a role inherits, what is refused and how, and what makes a run the same run."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tmas.methods.tmas import TMASSettings
from tmas.settings import ROLES, Limits, ModelSettings, RunSettings, ServingSettings, flatten

SECRET = "sk-very-secret-0123456789"
URL = "http://h:8000/v1"
CONF = Path(__file__).parents[2] / "conf"


def model(**changes: Any) -> dict[str, Any]:
    return {"name": "m", "base_url": URL, "api_key_env": "KEY", "context_length": 8192} | changes


def role(role: str = "summary", /, **own: Any) -> ModelSettings:
    """What ``role`` gets where the model has sampling of its own and the role ``own``."""
    settings = model(sampling={"temperature": 0.6, "extra": {"top_k": 20, "min_p": 0}}, roles={"summary": own})
    return ModelSettings.model_validate(settings).for_role(role)


def run(**changes: Any) -> RunSettings:
    return RunSettings.model_validate({"model": model()} | changes)


def served(on: dict[str, Any] | None = None, **serving: Any) -> RunSettings:
    """A run with a server of its own."""
    return run(model=on or model(path="folder"), serving={"name": "vllm"} | serving)


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
        ({"base_url": ""}, "KEY"),
        ({"api_key_env": "OTHER"}, "OTHER"),
    ],
)
def test_the_key_goes_to_its_own_url_alone(own: dict[str, Any], key: str | None):
    assert role(**own).endpoint().api_key_env == key


def test_a_role_s_endpoint_may_take_its_token_limit_in_another_field():
    assert role().endpoint().token_limit_field == "max_tokens"
    assert role(token_limit_field="max_completion_tokens").endpoint().token_limit_field == "max_completion_tokens"
    assert role("verification", token_limit_field="max_completion_tokens").endpoint().token_limit_field == "max_tokens"


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
    with pytest.raises(ValidationError, match=r"no such role: verifier \(choose from solution, verification"):
        run(model=model(roles={"verifier": {"name": "judge"}}))


def test_a_missing_endpoint_is_refused_before_anything_is_begun():
    with pytest.raises(ValidationError, match=r"model\.base_url is not set"):
        run(model=model(base_url=None))
    every_role = {name: {"base_url": URL} for name in ROLES}
    run(model=model(base_url=None, roles=every_role))


def test_a_server_of_our_own_needs_something_to_load():
    with pytest.raises(ValidationError, match=r"serving=vllm needs model\.path"):
        run(model=model(base_url=None), serving={"name": "vllm"})
    served(model(base_url=None, path="folder"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patience": {"idle_timeout": 0}}, "patience.idle_timeout"),
        ({"patience": {"max_attempts": 0}}, "patience.max_attempts"),
        ({"roles": {"summary": {"base_url": "h:8000"}}}, "must be an http:// or https:// URL"),
        ({"roles": {"summary": {"api_key_env": "not a name"}}}, "api_key_env"),
        ({"api_key_env": "not a name"}, "api_key_env"),
    ],
)
def test_how_to_reach_a_role_is_checked_before_a_server_is_started(changes: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        served(model(base_url=None, path="folder", **changes))


@pytest.mark.parametrize(
    ("arg", "setting"),
    [("max-model-len", "model.context_length"), ("port", "the run itself"), ("tensor_parallel_size", "serving.tensor")],
)
def test_a_flag_that_has_a_setting_of_its_own_is_refused(arg: str, setting: str):
    with pytest.raises(ValidationError, match=f"is set by {setting}"):
        served(args={arg: 1})


@pytest.mark.parametrize("arg", ["hf-token", "ssl_key", "api-key"])
def test_a_flag_that_holds_a_secret_is_refused_without_telling_it(arg: str):
    with pytest.raises(ValidationError, match=r"is set by the run itself|may hold a secret") as refused:
        served(args={arg: "sk-canary"})
    assert "sk-canary" not in str(refused.value)


def test_a_wrong_limit_is_refused_without_telling_its_value():
    with pytest.raises(ValidationError, match="tokens_per_run") as refused:
        Limits.model_validate({"tokens_per_run": "sk-canary"})
    assert "sk-canary" not in str(refused.value)


def test_roles_without_a_url_of_their_own_go_to_the_server_of_our_own():
    models = served(model(roles={"summary": {"base_url": "http://other/v1"}}, path="p")).role_models()
    assert models["solution"].base_url == ()  # not started yet
    assert models["summary"].base_url == "http://other/v1"
    assert models["solution"].endpoint().send_priority  # it is started with vLLM's priority scheduling
    assert not models["summary"].endpoint().send_priority


def test_a_model_may_be_behind_several_servers():
    one = run(model=model(base_url=["http://a/v1/", "http://b/v1"])).model.endpoint()
    assert one.base_urls == ("http://a/v1", "http://b/v1")
    assert run(model=model(base_url="http://a/v1")).model.endpoint().base_urls == ("http://a/v1",)
    with pytest.raises(ValidationError, match="each server once"):
        run(model=model(base_url=["http://a/v1", "http://a/v1/"]))
    with pytest.raises(ValidationError, match=r"model\.base_url"):
        run(model=model(base_url=[]))


# --- identity


def changed(name: str, value: Any) -> dict[str, Any]:
    return run(model=model(**{name: value})).identity()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base_url", "http://elsewhere/v1"),
        ("base_url", ["http://elsewhere/v1", "http://there/v1"]),
        ("send_priority", True),
        ("api_key_env", "OTHER"),
        ("token_limit_field", "max_completion_tokens"),
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
        ("max_window_tokens", 4096),
        ("roles", {"guideline": {"max_window_tokens": 4096}}),
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


def test_a_run_without_a_window_limit_is_the_same_as_one_made_before_there_was_the_setting():
    assert not [key for key in run().identity() if "max_window_tokens" in key]
    limited = changed("max_window_tokens", 4096)
    assert limited == run().identity() | {f"model.{role}.max_window_tokens": 4096 for role in run().method.roles}


def test_how_a_run_is_scheduled_and_limited_is_not_part_of_it():
    scheduled = run(concurrency=1, active_problems=1, limits={"tokens_per_run": 5}, serving={"name": "endpoint"})
    assert scheduled.identity() == run().identity()
    assert run(seed=1).identity() != run().identity()


@pytest.mark.parametrize(
    "args", [{"dtype": "float16"}, {"quantization": "fp8"}, {"kv_cache_dtype": "fp8"}, {"a-flag-of-tomorrow": True}]
)
def test_flags_of_a_server_of_our_own_that_may_change_replies_are_part_of_the_run(args: dict[str, Any]):
    [(key, value)] = args.items()
    assert served(args=args).identity() == served().identity() | {f"serving.args.{key.replace('_', '-')}": value}


def test_flags_that_set_speed_alone_or_nothing_are_not_part_of_the_run():
    free = {"max-num-seqs": 4, "gpu_memory_utilization": 0.5, "enforce-eager": True, "dtype": None, "trust": False}
    assert served(args=free).identity() == served().identity()
    assert served(env={"A": "1"}).identity() == served().identity()
    assert served(tensor_parallel_size=2, replicas=3).identity() == served().identity()


def test_a_run_may_move_from_a_server_of_our_own_to_another():
    plain = yaml.safe_load((CONF / "serving" / "vllm.yaml").read_text())
    at_home = run(model=model(path="folder"), serving=plain)
    assert at_home.identity() == run(model=model(path="folder")).identity()


def test_every_setting_of_the_method_is_part_of_the_run():
    identity = run().identity()
    settings = flatten(TMASSettings().model_dump(mode="json"), "method.")
    assert settings.items() <= identity.items()
    assert len(settings) > 10


def test_every_setting_was_sorted_into_one_kind_or_the_other():
    assert set(ModelSettings.model_fields) == {
        *("base_url", "api_key_env", "token_limit_field", "send_priority", "patience", "price"),  # left out
        *("name", "path", "context_length", "max_window_tokens", "tokenizer", "send_seed", "sampling", "roles"),
    }
    assert set(RunSettings.model_fields) == {
        *("concurrency", "active_problems", "limits", "ray", "prices"),  # left out
        *("model", "method", "seed", "serving"),
        "prompts",  # the run directory compares their hashes
    }
    assert set(ServingSettings.model_fields) == {
        *("name", "host", "replicas", "tensor_parallel_size", "startup_timeout", "env"),  # left out
        "args",
    }


def test_a_finished_problem_stands_by_its_method_and_limits():
    assert run(concurrency=1, seed=1).terms() == run().terms()
    assert run(limits={"tokens_per_problem": 5}).terms() != run().terms()
    assert run(method={"name": "tmas", "max_iterations": 2}).terms() != run().terms()


def test_flat_joins_keys_and_keeps_what_is_empty():
    assert flatten({"a": {"b": {"c": 1}, "d": {}}, "e": [{"f": 1}], "g": None}) == {
        "a.b.c": 1,
        "a.d": {},
        "e": [{"f": 1}],
        "g": None,
    }


def test_local_paths_hold_in_any_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("policy").mkdir()
    Path("tokenizer.json").touch()
    roles = {"summary": {"tokenizer": "tokenizer.json"}, "solution": {"tokenizer": "org/hub"}}
    found = ModelSettings(**model(path="policy", roles=roles)).with_absolute_paths()
    assert (found.path, found.tokenizer) == (str(tmp_path.resolve() / "policy"), "auto")
    assert found.roles["summary"].tokenizer == str(tmp_path.resolve() / "tokenizer.json")
    assert found.roles["solution"].tokenizer == "org/hub"
