"""rewards/settings.py and conf/reward/: what is refused, and that the files show what the code has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf
from pydantic import ValidationError

from tmas.rewards.settings import RewardSettings, reward_settings
from tmas.settings import flatten

ROOT = Path(__file__).parents[3]
CONF = ROOT / "conf" / "reward"
JUDGE = {"name": "judge", "base_url": "http://h/v1"}


def written(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / f"{name}.yaml").read_text("utf-8"))["custom_reward_function"]


def shown_settings() -> dict[str, Any]:
    """The settings of conf/reward/hybrid.yaml, with those of the judge from conf/train.yaml."""
    train = yaml.safe_load((CONF.parent / "train.yaml").read_text("utf-8"))
    reward = OmegaConf.create({"judge": train["judge"], "reward": written("hybrid")})
    plain = OmegaConf.to_container(reward, resolve=True)
    assert isinstance(plain, dict)
    return plain["reward"]["reward_kwargs"]["settings"]


def test_the_reward_takes_every_setting_of_the_judge_from_its_short_name():
    long = flatten(written("hybrid")["reward_kwargs"]["settings"]["judge"])
    assert long == {key: f"${{judge.{key}}}" for key in long}


def test_hybrid_shows_every_setting_with_its_default():
    shown = shown_settings()
    settings = reward_settings(shown | {"judge": shown["judge"] | JUDGE})
    assert settings.model_dump(exclude={"judge"}) == RewardSettings(judge=settings.judge).model_dump(exclude={"judge"})
    whole = settings.model_dump(mode="json")
    assert keys(whole) == keys(shown)


def keys(settings: Any) -> Any:
    return {key: keys(value) for key, value in settings.items()} if isinstance(settings, dict) else None


def test_the_page_explains_every_setting_and_quotes_the_defaults():
    page = (ROOT / "docs" / "rewards.md").read_text("utf-8")
    shown = flatten(shown_settings())
    shown |= {"judge.sampling": None, "judge.patience": None}
    names = [name for name in shown if not name.startswith(("judge.sampling.", "judge.patience."))]
    stands = {name: re.findall(rf"`(?:reward\.)?{re.escape(name)}(?:=([^`]*))?`", page) for name in names}
    assert [name for name, values in stands.items() if not values] == []
    quoted = {name: {value for value in values if value} for name, values in stands.items()}
    defaults = {name: {str(shown[name]).lower()} for name in names}
    gates = {name for name in names if isinstance(shown[name], int | float) and not isinstance(shown[name], bool)}
    assert {name: quoted[name] for name in gates} == {name: defaults[name] for name in gates}


def test_the_reference_lists_every_setting_with_its_default():
    page = (ROOT / "docs" / "rewards-reference.md").read_text("utf-8")
    tables = [text.partition("\n\n")[0] for text in page.split("| setting | default | meaning |")[1:]]
    listed = re.findall(r"^\| `([a-z_.]+)` \| `([^`]*)` \|", "\n".join(tables), re.MULTILINE)
    shown = {name: value for name, value in flatten(shown_settings()).items() if not name.startswith("judge.")}
    defaults = {name: "null" if value is None else str(value) for name, value in shown.items() if name != "prompts"}
    plain = {name: value.lower() if value in ("True", "False") else value for name, value in defaults.items()}
    assert sorted(listed) == sorted(plain.items())


def test_hybrid_names_the_function_that_verl_calls():
    assert written("hybrid")["path"] == "pkg://tmas.rewards.verl_entry"
    from tmas.rewards import verl_entry

    assert callable(getattr(verl_entry, written("hybrid")["name"]))


def test_vanilla_is_hybrid_in_all_but_the_bonuses():
    files = [yaml.safe_load((CONF / f"{file}.yaml").read_text("utf-8")) for file in ("hybrid", "vanilla")]
    assert files[1].pop("defaults")[0] == "hybrid"
    train = yaml.safe_load((CONF.parent / "train.yaml").read_text("utf-8"))
    merged = OmegaConf.to_container(OmegaConf.merge({"judge": train["judge"]}, *files), resolve=True)
    assert isinstance(merged, dict)
    settings = reward_settings(merged["custom_reward_function"]["reward_kwargs"]["settings"])
    assert (settings.experience.form, settings.novelty.form, settings.judge) == ("none", "none", None)
    assert settings.model_dump(include={"wrong_share", "truncated", "answer", "checker"}) == RewardSettings(
        experience=settings.experience, novelty=settings.novelty
    ).model_dump(include={"wrong_share", "truncated", "answer", "checker"})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"experience": {"weight": 1.0}}, "experience.weight"),
        ({"novelty": {"weight": -0.1}}, "novelty.weight"),
        ({"wrong_share": 1.1}, "wrong_share"),
        ({"novelty": {"form": "rule"}}, "novelty.form"),
        ({"weight": 0.3}, "weight"),
        ({"judge": None}, "experience and novelty: form=judge needs a judge"),
        ({"judge": None, "experience": {"form": "none"}}, "novelty: form=judge needs a judge"),
        ({"judge": JUDGE | {"base_url": None}}, "judge.base_url"),
    ],
)
def test_wrong_settings_are_refused_by_name(wrong: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        reward_settings({"judge": JUDGE | {"timeout": 120.0}} | wrong)


def test_without_bonuses_no_judge_is_needed():
    settings = reward_settings({"experience": {"form": "none"}, "novelty": {"form": "none"}})
    assert settings.judge is None


def test_a_judge_that_verl_hosts_is_found_by_its_router():
    settings = reward_settings({"judge": {"name": "m", "base_url": None, "timeout": 10}}, "10.0.0.1:1234")
    assert settings.judge
    assert settings.judge.base_url == "http://10.0.0.1:1234/v1"
    assert not settings.judge.stream  # the router knows no streams
    assert reward_settings({"experience": {"form": "none"}, "novelty": {"form": "none"}}, "h:1").judge is None
    elsewhere = reward_settings({"judge": JUDGE | {"timeout": 10}}, "10.0.0.1:1234")
    assert elsewhere.judge
    assert elsewhere.judge.base_url == JUDGE["base_url"]
