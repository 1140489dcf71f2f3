"""``tmas export``: a checkpoint of ``tmas train`` as a Hugging Face folder, by verl's own model merger."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from pydantic import Field
from rich.console import Console

from tmas.errors import UserError
from tmas.files import whole_folder
from tmas.settings import Settings


class ExportSettings(Settings):
    """All settings of ``tmas export``."""

    checkpoint: Path = Field(
        description="Run directory of tmas train (its latest checkpoint is used), a global_step_N folder, or the actor"
        " folder in it."
    )
    output_dir: Path = Field(description="Folder for the Hugging Face model; it must not exist yet.")


class ExportError(UserError):
    """There is no complete checkpoint, or what it gives is no whole model."""


def export(settings: ExportSettings, console: Console) -> Path:
    """Merges the shards into bf16 safetensors, with tokenizer, chat template and generation config; returns the folder.

    It appears whole, after it was loaded once. Raises :class:`ExportError`; then nothing is left behind.
    """
    actor = find_actor(settings.checkpoint)
    check_complete(actor)
    output = settings.output_dir.absolute()
    if output.exists():
        raise ExportError(f"output_dir {output} exists already")
    console.print(f"merging {actor}", markup=False)
    with whole_folder(output) as building:
        with contextlib.redirect_stdout(sys.stderr):  # verl talks
            _merge(actor, building)
        parameters = check_loads(building)
    console.print(f"{output}: {parameters:,} parameters, loads", markup=False)
    return output


def find_actor(path: Path) -> Path:
    """The ``actor`` folder that ``path`` means."""
    if not path.is_dir():
        raise ExportError(f"checkpoint {path}: there is no such folder")
    for folder in (path / "checkpoints", path):
        if (latest := folder / "latest_checkpointed_iteration.txt").is_file():
            return folder / f"global_step_{int(latest.read_text())}" / "actor"
    if path.name == "actor" or (path / "actor").is_dir():
        return path if path.name == "actor" else path / "actor"
    raise ExportError(
        f"checkpoint {path}: neither a run directory of `tmas train` with a finished checkpoint (no "
        "checkpoints/latest_checkpointed_iteration.txt), nor a global_step_N folder"
    )


def check_complete(actor: Path) -> None:
    """Raises :class:`ExportError` with the files that are missing of an FSDP checkpoint."""
    config = actor / "fsdp_config.json"  # verl writes it after its own shards
    if not config.is_file():
        raise ExportError(f"{actor}: no {config.name}, so not a complete FSDP checkpoint of verl")
    size = int(json.loads(config.read_text("utf-8"))["world_size"])
    wanted = [f"model_world_size_{size}_rank_{rank}.pt" for rank in range(size)]
    wanted += [f"huggingface/{name}" for name in ("config.json", "tokenizer_config.json")]
    if missing := [name for name in wanted if not (actor / name).is_file()]:
        raise ExportError(f"{actor}: incomplete, missing {', '.join(missing)}")


def _merge(actor: Path, target: Path) -> None:
    from verl.model_merger.base_model_merger import ModelMergerConfig
    from verl.model_merger.fsdp_model_merger import FSDPModelMerger

    config = ModelMergerConfig(
        operation="merge",
        backend="fsdp",
        local_dir=str(actor),
        target_dir=str(target),
        hf_model_config_path=str(actor / "huggingface"),
    )
    try:
        FSDPModelMerger(config).merge_and_save()
    except (RuntimeError, KeyError, EOFError, UnpicklingError) as error:  # what torch and verl say of a damaged shard
        raise ExportError(f"{actor}: cannot be merged, a shard may be damaged: {error!r}") from error


def check_loads(folder: Path) -> int:
    """Loads the model as anyone would and returns its number of parameters; raises :class:`ExportError` if it is not
    whole: a weight that is missing, unknown or of another shape, or no chat template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    model, info = loaded
    if wrong := {kind: sorted(map(str, names)) for kind, names in info.items() if names}:
        raise ExportError(f"{folder}: the merged weights do not fit the model: {wrong}")
    if not AutoTokenizer.from_pretrained(folder).chat_template:
        raise ExportError(f"{folder}: the tokenizer has no chat template")
    return model.num_parameters()
