"""Descriptions of all settings, and what shows them: ``tmas options``, ``--help`` and docs/options.md."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hydra import compose, initialize_config_dir
from pydantic import BaseModel

from tmas.cli import main as cli
from tmas.cli.config_files import config_name
from tmas.cli.help import help_text
from tmas.cli.main import COMMANDS, SETTINGS
from tmas.cli.options import groups_of, options_of, options_of_command, options_page, print_options
from tmas.methods import METHODS
from tmas.settings import flatten

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"


def classes(settings: Any) -> Iterator[type[BaseModel]]:
    """``settings`` and all settings classes that its fields hold."""
    if isinstance(settings, type) and issubclass(settings, BaseModel):
        yield settings
        for field in settings.model_fields.values():
            yield from classes(field.annotation)
    for argument in get_args(settings):
        yield from classes(argument)


def reachable() -> dict[str, type[BaseModel]]:
    homes = [pkgutil.resolve_name(home) for home in SETTINGS.values()]
    homes += [method.settings_type for method in METHODS.values()]
    return {f"{found.__module__}.{found.__name__}": found for home in homes for found in classes(home)}


def test_every_command_has_a_settings_class():
    assert SETTINGS.keys() == COMMANDS.keys()


def test_every_setting_of_every_command_has_a_description():
    found = reachable()
    assert len(found) > 40
    missing = [
        f"{name}.{field}"
        for name, settings in found.items()
        for field, info in settings.model_fields.items()
        if not info.description
    ]
    assert missing == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_of_a_command_s_file_is_a_setting_with_a_description(command: str):
    written = yaml.safe_load((CONF / f"{config_name(command)}.yaml").read_text("utf-8"))
    options = {option.key: option for option in options_of_command(command, SETTINGS[command])}
    keys = flatten({key: value for key, value in written.items() if key not in ("defaults", "hydra")})
    verls = {
        "train": ("data.", "algorithm.", "actor_rollout_ref.", "critic.", "reward.", "trainer."),
        "rescore": ("reward.reward_model.",),
    }.get(command)
    own = [key for key in keys if not key.startswith(verls)] if verls else list(keys)
    assert own
    served = written.get("serve", {}).get("models", {})
    known = [key.replace("NAME", name) for key in options for name in ["NAME", *written.get("benchmarks", {}), *served]]
    assert [
        key for key in own if not any(f"{name}.".startswith(f"{key}.") or key.startswith(f"{name}.") for name in known)
    ] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_shows_an_example_frequent_settings_and_the_command_s_own_groups(command: str):
    text = help_text(command, SETTINGS[command])
    assert text.startswith(f"tmas {command}: ")
    assert f"\n  tmas {command}" in text
    descriptions = {option.key: option.description for option in options_of_command(command, SETTINGS[command])}
    written = yaml.safe_load((CONF / f"{config_name(command)}.yaml").read_text("utf-8"))
    for key in written["hydra"]["help"]["footer"].split():
        assert f"\n  {key}" in text
        assert key in descriptions
    groups = {folder.name for folder in CONF.iterdir() if folder.is_dir()} | {"experiment"}
    shown = {group for group in groups if f"\n  {group:<14}" in text}
    assert shown == groups_of(command).keys() & groups
    assert "$" not in text


def test_experiments_are_those_of_their_command():
    names = {command: {choice.name for choice in groups_of(command).get("experiment", [])} for command in COMMANDS}
    assert names["train"] >= {"hybrid_grpo", "vanilla_grpo", "hybrid_ppo"}
    assert names["solve"] == names["distill"] == names["filter"] == {"demo_smollm2", "miniature", "older_memory"}
    assert not names["train"] & names["solve"]
    for command in ("train", "solve"):
        with (
            initialize_config_dir(str(CONF), version_base="1.3"),
            pytest.raises(Exception, match="Could not find") as no,
        ):
            compose(command, overrides=["experiment=nothing"])
        assert all(f"\t{name}" in str(no.value) for name in names[command])
        assert not any(f"\t{name}\n" in str(no.value) for other in names for name in names[other] - names[command])


def test_every_choice_of_a_group_explains_itself():
    silent = [
        f"{group}={choice.name}"
        for command in COMMANDS
        for group, choices in groups_of(command).items()
        for choice in choices
        if not choice.comment
    ]
    assert silent == []


def test_the_page_of_all_settings_is_up_to_date():
    written = (ROOT / "docs" / "options.md").read_text("utf-8")
    assert written == options_page(SETTINGS), "run `make options`"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    print_options(arguments, SETTINGS)
    return capsys.readouterr().out


def test_options_prints_key_default_type_and_description(capsys: pytest.CaptureFixture[str]):
    text = printed(capsys, "evaluate")
    assert "  timeout=5.0\n      number. Seconds of CPU time per comparison by rule.\n" in text
    assert "  runs\n      list of path. Run directories of tmas solve." in text
    assert "  judge_scope=all\n      all | undecided. " in text
    assert "  judge.patience.max_attempts=3\n" in text
    assert "  judge         deepseek, endpoint" in text


def test_options_of_train_are_ours_and_point_to_verl_s(capsys: pytest.CaptureFixture[str]):
    text = printed(capsys, "train")
    assert "  policy.path\n" in text
    assert "  judge.timeout=120.0\n" in text
    assert "  reward.custom_reward_function.reward_kwargs.settings.experience.weight=0.3\n" in text
    assert "Every key of verl's own configuration can be set as well" in text


def test_options_of_a_group_explain_its_choices(capsys: pytest.CaptureFixture[str]):
    text = printed(capsys, "solve", "method")
    assert "  method=rse                      RSE: " in text
    assert "Settings of method=pacore:\n\n  method.name=pacore\n" in text
    assert "vanilla_grpo" in printed(capsys, "train", "experiment")


def test_options_of_a_section_are_its_settings(capsys: pytest.CaptureFixture[str]):
    text = printed(capsys, "solve", "limits")
    assert text.startswith("Settings of limits:\n\n  limits.tokens_per_problem=null\n")
    assert "model.name" not in text
    text = printed(capsys, "solve", "model")
    assert text.startswith("  model=")
    assert "\n\nSettings of model:\n\n  model.name" in text
    assert printed(capsys, "solve", "method").count("Settings of method=tmas:") == 1


def test_an_unknown_group_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        print_options(["train", "model"], SETTINGS)
    message = (
        "tmas train has no section or group 'model': its groups are policy, hardware, experiment, switches, reward"
    )
    assert (ended.value.code, capsys.readouterr().err) == (2, f"tmas: {message}\n")


def test_options_is_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.argv", ["tmas", "options", "export"])
    cli.main()
    assert "  checkpoint\n" in capsys.readouterr().out
    assert "  tmas options" in cli.usage()


def test_nested_defaults_are_those_of_the_field_that_holds_them():
    class Inner(BaseModel):
        size: int = 1

    class Outer(BaseModel):
        plain: Inner = Inner()
        larger: Inner = Inner(size=5)
        perhaps: Inner | None = None
        many: dict[str, Inner] = {}

    defaults = {option.key: option.default for option in options_of(Outer)}
    assert defaults == {
        "plain.size": "1", "larger.size": "5", "perhaps": "null", "perhaps.size": "1", "many.NAME.size": "1",
    }  # fmt: skip


def test_the_decisions_page_shows_the_defaults():
    page = (ROOT / "docs/decisions.md").read_text("utf-8").partition("## What the agents see")[0]
    shown = dict(re.findall(r"^\|[^|]+\| `([\w.]+)` \| `([^`]+)` \|", page, re.M))
    assert len(shown) > 30
    defaults: dict[str, set[str]] = {}
    for option in (option for command in COMMANDS for option in options_of_command(command, SETTINGS[command])):
        defaults.setdefault(option.key, set()).add(option.default)
    for name, method in METHODS.items():
        if name != "tmas":
            for option in options_of(method.settings_type, "method."):
                defaults.setdefault(option.key, {option.default})
    assert {key: default for key, default in shown.items() if default not in defaults.get(key, ())} == {}
