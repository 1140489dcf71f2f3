"""The configs of the data commands: complete, valid, and with the defaults of the code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tmas.data_prep.build_settings import BuildSettings
from tmas.data_prep.difficulty import FilterSettings
from tmas.data_prep.distill import DistillSettings
from tmas.methods.majority_vote import MajorityVoteSettings
from tmas.methods.tmas import TMASSettings

CONF = Path(__file__).parents[3] / "conf"
MODEL = ["model=endpoint", "model.name=m", "model.base_url=http://h/v1", "workspace=w"]


def composed(command: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(command, overrides=list(overrides))
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    plain.pop("workspace")
    return plain


def test_filter_composes_into_the_defaults_of_the_code():
    settings = FilterSettings.model_validate(composed("filter", *MODEL))
    expected = FilterSettings(
        model=settings.model,
        method=MajorityVoteSettings(n_candidates=8),
        problems=Path("w/pool/problems.jsonl"),
        output_dir=Path("w/filtered"),
        prices=settings.prices,  # conf/prices has the table
    )
    assert settings == expected


def test_distill_composes_into_the_defaults_of_the_code_and_names_a_budget():
    settings = DistillSettings.model_validate(composed("distill", *MODEL, "limits.tokens_per_run=7"))
    assert settings.limits.tokens_per_run == 7
    expected = DistillSettings(
        model=settings.model,
        method=TMASSettings(max_iterations=6),
        problems=Path("w/filtered/problems.jsonl"),
        output_dir=Path("w/teacher"),
        limits=settings.limits,
        prices=settings.prices,
        concurrency=200,
        active_problems=64,
    )
    assert settings == expected


def test_the_default_teacher_is_deepseek():
    settings = DistillSettings.model_validate(composed("distill", "workspace=w", "limits.tokens_per_run=null"))
    assert settings.model.api_key_env == "DEEPSEEK_API_KEY"


def test_build_composes_into_the_defaults_of_the_code():
    settings = BuildSettings.model_validate(composed("build", "workspace=w", "tokenizer=t"))
    expected = BuildSettings(
        problems=Path("w/filtered/problems.jsonl"),
        run=Path("w/teacher"),
        output_dir=Path("w/rows"),
        tokenizer="t",
        max_prompt_tokens=12288,
        earlier=(Path("w/pool"), Path("w/filtered")),
    )
    assert settings == expected
    assert settings.rows.by_source() == {"normal": 2200, "experience": 1600, "guideline": 600, "verification": 0}


def test_build_fits_prompts_to_what_training_takes():
    train = OmegaConf.load(CONF / "train.yaml")
    assert composed("build", "workspace=w", "tokenizer=t")["max_prompt_tokens"] == train.data.max_prompt_length
