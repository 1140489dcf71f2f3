"""training/export.py: which checkpoint is meant, and is it all there. It is merged in tests/e2e/test_export.py."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from omegaconf import OmegaConf
from rich.console import Console

from tmas.errors import UserError
from tmas.records.reading import read_records
from tmas.training.checkpoints import SavedCheckpoint, record_checkpoint, unknown_shards
from tmas.training.export import ExportError, ExportSettings, check_complete, export, find_actor

CONF = Path(__file__).parents[3] / "conf"


def checkpoint(run: Path, step: int, ranks: int = 2) -> Path:
    """The files of a checkpoint, all but their content."""
    actor = run / "checkpoints" / f"global_step_{step}" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor / "fsdp_config.json").write_bytes(orjson.dumps({"FSDP_version": 2, "world_size": ranks}))
    for rank in range(ranks):
        (actor / f"model_world_size_{ranks}_rank_{rank}.pt").touch()
    for name in ("config.json", "tokenizer_config.json"):
        (actor / "huggingface" / name).touch()
    (run / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(str(step))
    return actor


def test_a_run_directory_means_its_latest_finished_checkpoint(tmp_path: Path):
    first = checkpoint(tmp_path, 4)
    latest = checkpoint(tmp_path, 12)
    (tmp_path / "checkpoints" / "global_step_16" / "actor").mkdir(parents=True)  # being written
    assert find_actor(tmp_path) == find_actor(tmp_path / "checkpoints") == latest
    assert find_actor(first) == find_actor(first.parent) == first


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path):
    with pytest.raises(ExportError, match="there is no such folder"):
        find_actor(tmp_path / "nowhere")
    with pytest.raises(ExportError, match=r"neither a run directory .* nor a global_step_N folder"):
        find_actor(tmp_path)


@pytest.mark.parametrize("lost", ["model_world_size_2_rank_1.pt", "huggingface/tokenizer_config.json"])
def test_an_incomplete_checkpoint_is_refused_with_what_is_missing(tmp_path: Path, lost: str):
    actor = checkpoint(tmp_path, 4)
    check_complete(actor)
    (actor / lost).unlink()
    with pytest.raises(ExportError, match=f"incomplete, missing {lost}"):
        check_complete(actor)


def test_a_folder_that_is_no_checkpoint_of_verl_is_refused(tmp_path: Path):
    actor = checkpoint(tmp_path, 4)
    (actor / "fsdp_config.json").unlink()
    with pytest.raises(ExportError, match=r"no fsdp_config\.json"):
        check_complete(actor)


def test_what_is_there_already_is_not_overwritten(tmp_path: Path):
    checkpoint(tmp_path / "run", 4)
    (tmp_path / "model").mkdir()
    with pytest.raises(ExportError, match="exists already"):
        export(ExportSettings(checkpoint=tmp_path / "run", output_dir=tmp_path / "model"), Console(quiet=True))


# --- checkpoints that the run did not save


class Opened(Exception):
    """The merger was reached."""


class Exploit:
    """Its pickle runs code when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ``actor`` folder of a checkpoint that the run has listed, with shards as torch writes them."""
    torch = pytest.importorskip("torch")
    actor = checkpoint(tmp_path / "run", 4)
    for rank in range(2):
        torch.save({"weight": torch.ones(3)}, actor / f"model_world_size_2_rank_{rank}.pt")
    record_checkpoint(actor.parent, 4)

    def merge(actor: Path, target: Path) -> None:
        for shard in sorted(actor.glob("*.pt")):
            torch.load(shard, weights_only=False)
        raise Opened

    monkeypatch.setattr("tmas.training.export._merge", merge)
    return actor


def exported(actor: Path, **more: Any) -> None:
    output = actor.parents[3] / "model"
    export(ExportSettings(checkpoint=actor, output_dir=output, **more), Console(quiet=True))


def test_a_checkpoint_that_the_run_has_listed_is_merged(saved: Path):
    with pytest.raises(Opened):
        exported(saved)


def test_a_list_holds_after_the_run_was_moved(saved: Path, tmp_path: Path):
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.raises(Opened):
        exported(tmp_path / "moved" / "checkpoints" / "global_step_4" / "actor")


def test_a_changed_shard_is_refused_before_it_is_loaded(saved: Path, tmp_path: Path):
    import torch

    torch.save(Exploit(tmp_path / "exploited"), saved / "model_world_size_2_rank_1.pt")
    with pytest.raises(ExportError, match=r"rank_1\.pt: not a known checkpoint of this run: .*trust_checkpoint=true"):
        exported(saved)
    assert not (tmp_path / "exploited").exists()
    with pytest.raises(Opened):
        exported(saved, trust_checkpoint=True)
    assert (tmp_path / "exploited").exists()


@pytest.mark.parametrize("kind", ["another step", "no zip"])
def test_an_unlisted_checkpoint_is_refused(saved: Path, kind: str):
    if kind == "another step":
        saved = saved.parent.rename(saved.parent.with_name("global_step_8")) / "actor"
    else:
        (saved / "model_world_size_2_rank_0.pt").write_bytes(pickle.dumps({}))
    with pytest.raises(ExportError, match="does not list it as it is now"):
        exported(saved)


def test_a_run_without_a_list_is_refused_with_the_way_out(saved: Path):
    (saved.parents[1] / "manifest.jsonl").unlink()
    with pytest.raises(ExportError, match=r"is missing, as in runs of older versions.*can run any code"):
        exported(saved)


def test_a_damaged_list_is_named(saved: Path):
    with (saved.parents[1] / "manifest.jsonl").open("ab") as file:
        file.write(b"[]\n")
    with pytest.raises(UserError, match=r"manifest\.jsonl:2: "):
        exported(saved)


def test_the_trainer_lists_what_it_saves(tmp_path: Path):
    pytest.importorskip("verl")
    from verl.trainer.ppo.checkpoint_callback import build_checkpoint_callback

    actor = checkpoint(tmp_path, 4)
    name = yaml.safe_load((CONF / "train.yaml").read_text())["trainer"]["checkpoint_callback_class"]
    callback = build_checkpoint_callback(OmegaConf.create({"trainer": {"checkpoint_callback_class": name}}))
    callback.on_save(trainer=None, global_step=4, checkpoint_dir=str(actor.parent), later="argument")
    assert unknown_shards(actor) == []
    callback.on_save(trainer=None, global_step=8, checkpoint_dir=str(tmp_path / "checkpoints" / "none"))
    [line, other] = read_records(tmp_path / "checkpoints" / "manifest.jsonl", SavedCheckpoint)
    assert (line.step, len(line.shards), other.step, other.shards) == (4, 2, 8, ())
