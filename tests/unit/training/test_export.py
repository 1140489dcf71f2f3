"""training/export.py: which checkpoint is meant, and is it all there. It is merged in tests/e2e/test_export.py."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from rich.console import Console

from tmas.training.export import ExportError, ExportSettings, check_complete, export, find_actor


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
