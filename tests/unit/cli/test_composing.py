"""cli/composing.py: arguments become settings, and what is wrong with them is one message."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.hydra import Hydra
from pydantic import BaseModel, Field

from tmas.cli.composing import compose_settings, validated
from tmas.cli.main import main
from tmas.errors import UserError

CONF = Path(__file__).parents[3] / "conf"
GIVEN = ("problems=p.jsonl", "output_dir=runs/x", "model.name=m", "model.base_url=http://h/v1")


def message(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a command that refuses its arguments."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    return printed.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(
            ["solve", "concurency=4"],
            "concurency: tmas solve has no such setting. Did you mean concurrency? "
            "`tmas options solve` lists all settings.",
            id="misspelt key",
        ),
        pytest.param(
            ["collect", "workspace=w"],
            "not set: benchmarks_dir. Give each as KEY=VALUE. `tmas collect --help` shows an example.",
            id="value that a list needs",
        ),
        pytest.param(
            ["solve", *GIVEN, "method.n_candidats=4"],
            "method.n_candidats: tmas solve has no such setting. Did you mean method.n_candidates? "
            "`tmas options solve method` lists the settings of method.",
            id="misspelt nested key",
        ),
        pytest.param(
            ["solve", "method=best_of_n", "method.epsilon=0.3"],
            "method.epsilon: tmas solve has no such setting. `tmas options solve method` lists the settings of method.",
            id="key of another option of the group",
        ),
        pytest.param(
            ["solve", "epsilon=0.3"],
            "epsilon: tmas solve has no such setting. Did you mean method.epsilon? "
            "`tmas options solve method` lists the settings of method.",
            id="key without its group",
        ),
        pytest.param(
            ["solve", "method=rse", "qwertz.uiop=1"],
            "qwertz.uiop: tmas solve has no such setting. `tmas options solve` lists all settings.",
            id="nothing like it",
        ),
        pytest.param(
            ["solve", "method=tmass"],
            "method=tmass: the group method has no such choice. Did you mean method=tmas? "
            "`tmas options solve method` lists the choices of method.",
            id="unknown group option",
        ),
        pytest.param(
            ["solve", "method=3"],
            "method=3: the group method has no such choice. The choices are best_of_n, genselect, majority_vote, "
            "pacore, rsa, rse, self_refine, tmas, tmas_adaptive, tmas_no_experience, tmas_no_guidelines, tmas_small, "
            "verify_refine. `tmas options solve method` lists the choices of method.",
            id="number for a group option",
        ),
        pytest.param(
            ["solve", "methd=rse"],
            "methd: tmas solve has no such setting. Did you mean method? "
            "`tmas options solve method` lists the settings of method.",
            id="unknown group",
        ),
        pytest.param(
            ["gold-check", "method=rse"],
            "method: tmas gold-check has no such setting. `tmas options gold-check` lists all settings.",
            id="group of another command",
        ),
        pytest.param(
            ["solve", "problems"],
            "problems: this is not of the form KEY=VALUE. `tmas solve --help` shows an example.",
            id="no value",
        ),
        pytest.param(
            ["solve", "model.name={a:1"],
            "model.name={a:1: the value cannot be read (no viable alternative at input '{a:1'). A value with spaces or "
            "special characters needs quotes inside the shell's quotes: 'KEY=\"VALUE\"'.",
            id="syntax error",
        ),
        pytest.param(
            ["solve", "model.name=a,b"],
            "model.name=a,b: the value has a comma. "
            "Write a list as KEY=[A,B] and a text with a comma as 'KEY=\"A,B\"'.",
            id="comma",
        ),
        pytest.param(
            ["solve", "+seed=1"],
            "+seed: this setting already exists. Give seed=VALUE without the +.",
            id="added twice",
        ),
        pytest.param(
            ["solve", "model.name=m"],
            "not set: output_dir, problems. Give each as KEY=VALUE. `tmas solve --help` shows an example.",
            id="missing value",
        ),
        pytest.param(
            ["solve", *GIVEN, "prompts=${nowhere}"],
            "prompts: Interpolation key 'nowhere' not found",
            id="interpolation",
        ),
        pytest.param(
            ["solve", *GIVEN, "method.n_candidates=many", "seed=x"],
            "wrong settings:\n"
            "  method.n_candidates: Input should be a valid integer, unable to parse string as an integer\n"
            "  seed: Input should be a valid integer, unable to parse string as an integer",
            id="wrong type",
        ),
    ],
)
def test_wrong_arguments_are_one_message(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]):
    assert message(capsys, *arguments) == f"tmas: {expected}\n"


def test_the_keys_of_verl_are_suggested_for_a_training_run(capsys: pytest.CaptureFixture[str]):
    text = message(capsys, "train", "output_dir=runs/x", "data.trian_files=a")
    assert text.startswith("tmas: data.trian_files: tmas train has no such setting. Did you mean data.train_files or ")
    assert text.endswith(
        "`tmas options train` lists this project's settings, and `tmas train --cfg job` prints those of verl, too.\n"
    )


@pytest.mark.parametrize(
    ("argument", "listed"), [("limits.token_per_run=5", "limits.tokens_per_run"), ("model.nmae=m", "model.name")]
)
def test_the_command_that_a_message_suggests_lists_the_settings(
    argument: str, listed: str, capsys: pytest.CaptureFixture[str]
):
    [suggested] = re.findall(r"`tmas (options [^`]+)` lists the settings", message(capsys, "solve", argument))
    main(suggested.split())
    assert f"\n  {listed}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--help"], "tmas solve: solve problems with a team of agents"),
        (["--cfg", "job", "method.epsilon=0.3"], "epsilon: 0.3\n"),
        (["--info", "defaults"], "Defaults List"),
    ],
)
def test_hydra_s_own_flags_print_and_carry_out_nothing(arguments: list[str], expected: str, tmp_path: Path):
    """In a process of its own: --info leaves Hydra's debug log switched on."""
    code = f"from tmas.cli.main import main; main({['solve', *arguments]})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert expected in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_settings_are_plain_values_and_the_process_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    before = list(sys.argv), dict(os.environ)
    [settings] = compose_settings("solve", [*GIVEN, "method.epsilon=0.3"], CONF)
    assert settings["problems"] == "p.jsonl"
    assert settings["method"]["epsilon"] == 0.3
    assert "hydra" not in settings
    with pytest.raises(UserError):
        compose_settings("solve", ["x=1"], CONF)
    assert (sys.argv, dict(os.environ)) == before


def test_a_model_without_a_list_price_gets_one_by_its_name():
    prices = "prices.my-model.input=1", "prices.my-model.output=2"
    [settings] = compose_settings("solve", [*GIVEN, *prices], CONF)
    assert settings["prices"]["my-model"] == {"input": 1, "output": 2}
    assert "gpt-4.1" in settings["prices"]
    with pytest.raises(UserError, match=r"prices\.my-model\.inputs.*no such setting"):
        compose_settings("solve", [*GIVEN, "prices.my-model.inputs=1"], CONF)


@pytest.mark.parametrize("sweep", ["--multirun", "hydra.mode=MULTIRUN"])
def test_each_job_of_a_sweep_has_its_settings(sweep: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    jobs = compose_settings("solve", [sweep, *GIVEN, "seed=1,2"], CONF)
    assert [job["seed"] for job in jobs] == [1, 2]


def test_the_settings_of_one_job_are_composed_once(monkeypatch: pytest.MonkeyPatch):
    made: list[object] = []
    compose = Hydra.compose_config
    monkeypatch.setattr(Hydra, "compose_config", lambda *a, **k: made.append(k) or compose(*a, **k))
    assert compose_settings("solve", [*GIVEN], CONF)[0]["problems"] == "p.jsonl"
    assert len(made) == 1


class Sizes(BaseModel):
    width: int = Field(ge=1)
    height: int


def test_wrong_settings_are_named_and_an_error_of_another_kind_is_none_of_the_user_s():
    def broken(values: dict[str, Any]) -> Sizes:
        raise ValueError("a bug")

    assert validated(Sizes.model_validate, {"width": 1, "height": 2}).height == 2
    with pytest.raises(UserError, match=r"^wrong settings:\n  width: .* greater than .*\n  height: Field required$"):
        validated(Sizes.model_validate, {"width": 0})
    with pytest.raises(ValueError, match="a bug"):
        validated(broken, {})
