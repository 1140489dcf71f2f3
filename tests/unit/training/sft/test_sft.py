"""training/sft/: settings, the output directory, batches. The training itself runs in tests/e2e/test_sft.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import orjson
import pytest
import yaml
from pydantic import ValidationError
from rich.console import Console

from tmas.errors import UserError
from tmas.files import read_lines
from tmas.run.directory import RunRefused
from tmas.training.sft.rows import IGNORED, Example, LeftOut
from tmas.training.sft.run import SFTRun, TrainingFailed
from tmas.training.sft.settings import SFTSettings

CONF = Path(__file__).parents[4] / "conf" / "sft.yaml"


def settings(**changes: Any) -> SFTSettings:
    given = {"model": {"path": "m"}, "train_files": "a.jsonl", "output_dir": "out"}
    return SFTSettings.model_validate({**given, **changes})


def test_the_config_file_shows_every_setting_with_the_default_of_the_code():
    written: dict[str, Any] = yaml.safe_load(CONF.read_text("utf-8"))
    for key in ("defaults", "hydra"):
        written.pop(key)
    assert {key for key, value in written.items() if value == "???"} == {"train_files", "output_dir"}
    composed = SFTSettings.model_validate({**written, "train_files": "a.jsonl", "output_dir": "out"})
    assert composed == settings(model={"path": "Qwen/Qwen3-4B-Thinking-2507"})
    assert set(written) == set(SFTSettings.model_fields)


def test_one_file_and_several_may_be_given():
    assert settings(train_files="a.jsonl").train_files == [Path("a.jsonl")]
    assert settings(train_files=["a.jsonl", "b.parquet"]).train_files == [Path("a.jsonl"), Path("b.parquet")]


@pytest.mark.parametrize("wrong", [{"zero_stage": 4}, {"learning_rate": 0}, {"schedule": "x"}, {"train_files": []}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        settings(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"optimizer": "muon"}, "optimizer=muon needs max_grad_norm=null"),
        ({"packing": True, "group_by_length": True}, "packing=true needs group_by_length=false"),
        ({"device": "cpu", "liger_kernels": True}, "liger_kernels=true needs device=cuda"),
        ({"packing": True, "pack_length": 100}, "pack_length 100 is less than max_length 32768"),
        (
            {
                "packing": True,
                "micro_batch_size": 2,
                "model": {"path": "m", "attn_implementation": "flash_attention_2"},
            },
            "packing with flash_attention_2 needs micro_batch_size=1",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(wrong: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        settings(**wrong)


def test_the_update_is_the_same_however_many_processes_share_it():
    for processes, accumulation in [(1, 16), (4, 4), (16, 1)]:
        assert settings(batch_size=32, micro_batch_size=2).accumulation(processes) == accumulation


@pytest.mark.parametrize("processes", [3, 64])
def test_a_batch_that_does_not_divide_is_refused(processes: int):
    with pytest.raises(UserError, match=f"batch_size 32 is not divisible by micro_batch_size 1 x {processes}"):
        settings(batch_size=32).accumulation(processes)


# --- the output directory


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    return tmp_path / "rows.jsonl"


def begun(rows: Path, left_out: list[LeftOut] | None = None, **changes: Any) -> SFTRun:
    run = SFTRun(rows.parent / "run", settings(**changes).identity(), [rows])
    run.begin(left_out or [])
    return run


def test_a_run_goes_on_where_nothing_that_counts_has_changed(rows: Path):
    begun(rows).close()
    begun(rows, save_steps=7, eval_steps=3, report_to="wandb", val_files="v.jsonl", output_dir="elsewhere")


def test_a_run_with_other_settings_or_rows_is_refused_with_the_keys(rows: Path):
    begun(rows).close()
    with pytest.raises(
        RunRefused, match=r"learning_rate: 1e-05 in the run, 0.1 now\n  zero_stage: 2 in the run, 3 now"
    ):
        begun(rows, learning_rate=0.1, zero_stage=3)
    rows.write_text("{ }\n")
    with pytest.raises(RunRefused, match="train_files"):
        begun(rows)


def test_switches_that_are_off_are_not_part_of_the_identity():
    """So that a run that was begun before they existed can be resumed."""
    assert not {"liger_kernels", "group_by_length"} & settings().identity().keys()
    assert settings(liger_kernels=True, group_by_length=True).identity()["group_by_length"] is True


def test_two_runs_cannot_write_one_directory(rows: Path):
    begun(rows)
    with pytest.raises(RunRefused, match="in use by another run"):
        begun(rows)


def test_a_directory_of_something_else_is_refused(rows: Path):
    (rows.parent / "run").mkdir()
    (rows.parent / "run" / "notes.txt").touch()
    with pytest.raises(RunRefused, match="not empty and contains no run"):
        begun(rows)


def test_rows_left_out_are_written_with_their_reason(rows: Path):
    run = begun(rows, [LeftOut(rows, "line 3", "too_long", "9 tokens")])
    assert list(read_lines(run.path / "left_out.jsonl")) == [
        {"file": str(rows), "place": "line 3", "reason": "too_long", "message": "9 tokens"}
    ]


def test_a_torn_checkpoint_is_passed_over(rows: Path):
    run = begun(rows)
    assert run.last_checkpoint() is None
    for step in (8, 16, 24):
        (run.checkpoints / f"checkpoint-{step}").mkdir(parents=True)
    run.mark_complete(8)
    run.mark_complete(16)
    assert run.last_checkpoint() == run.checkpoints / "checkpoint-16"


def test_metrics_have_one_line_a_step_after_a_resume(rows: Path):
    run = begun(rows)
    for step in (1, 2, 3):
        run.log({"step": step, "loss": 1 / step})
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step":4,"lo')  # a kill
    run.truncate_metrics(2)
    run.log({"step": 3, "loss": 9.0})
    lines = list(read_lines(run.path / "metrics.jsonl"))
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 0.5), (3, 9.0)]
    assert all(line["seconds"] >= 0 for line in lines)


# --- batches and DeepSpeed


def example(*labels: int) -> Example:
    return Example(numpy.arange(1, len(labels) + 1, dtype=numpy.int32), numpy.array(labels, numpy.int32))


def test_shorter_rows_are_filled_masked_and_not_learned():
    pytest.importorskip("torch", reason="needs the cpu or gpu extra")
    from tmas.training.sft.trainer import collate

    batch = collate([[example(IGNORED, 2, 3)], [example(IGNORED)]])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 2, 3], [IGNORED] * 3]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_positions_restart_with_each_chat_of_a_row_of_fixed_length():
    pytest.importorskip("torch", reason="needs the cpu or gpu extra")
    from tmas.training.sft.trainer import collate

    batch = collate([[example(IGNORED, 2, 3), example(IGNORED, 2)], [example(IGNORED, 2)]], length=6)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 1, 2, 0], [1, 2, 0, 0, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 2, 3, IGNORED, 2, IGNORED], [IGNORED, 2, *[IGNORED] * 4]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 0, 0, 0, 0]]
    assert batch["attention_mask"].sum() == 7


def test_deepspeed_settings_override_those_of_the_keys():
    pytest.importorskip("torch", reason="needs the cpu or gpu extra")
    from tmas.training.sft.trainer import deepspeed_config

    over = {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}
    config = deepspeed_config(settings(zero_stage=3, deepspeed=over))
    assert config is not None
    assert config["zero_optimization"]["stage"] == 3
    assert config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"]
    assert config["zero_optimization"]["offload_optimizer"] == {"device": "cpu"}
    assert orjson.dumps(config)  # plain values
    assert deepspeed_config(settings(deepspeed=None)) is None


# --- what is shown and kept


def test_a_step_is_a_line_and_a_loss_that_is_no_number_ends_the_run(rows: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("torch", reason="needs the cpu or gpu extra")
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from tmas.training.sft.progress import SFTProgress

    run = begun(rows)
    progress = SFTProgress(run, Console(width=200))
    arguments, control = TrainingArguments(use_cpu=True), TrainerControl()
    state = TrainerState(global_step=3, max_steps=9, epoch=0.5, num_input_tokens_seen=1234, is_world_process_zero=True)
    progress.on_log(
        arguments, state, control, logs={"loss": 1.5, "grad_norm": 2.0, "learning_rate": 1e-5, "epoch": 0.5}
    )
    progress.on_log(arguments, state, control, logs={"eval_loss": 1.25, "eval_runtime": 1.0})
    progress.on_log(arguments, state, control, logs={"train_runtime": 1.0})
    place = {"step": 3, "epoch": 0.5, "tokens": 1234}
    lines = [{k: v for k, v in line.items() if k != "seconds"} for line in read_lines(run.path / "metrics.jsonl")]
    assert lines == [{**place, "loss": 1.5, "grad_norm": 2.0, "learning_rate": 1e-5}, {**place, "eval_loss": 1.25}]
    assert "step 3/9 loss 1.5 grad_norm 2 learning_rate 1e-05 1,234 tokens" in capsys.readouterr().out
    with pytest.raises(TrainingFailed, match=r"step 3: \{'loss': nan\}"):
        progress.on_log(arguments, state, control, logs={"loss": float("nan")})
