"""``tmas export``: turns a checkpoint of ``tmas train`` into a Hugging Face folder, with verl's own model merger.

The merger loads the shards with pickle (``torch.load(..., weights_only=False)``), which can run any code. Therefore
only checkpoints that the run itself has listed are loaded (:mod:`tmas.training.checkpoints`), unless the setting
``trust_checkpoint`` allows others.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from pydantic import Field
from rich.console import Console

from tmas.errors import UserError
from tmas.files import whole_folder
from tmas.settings import Settings
from tmas.training.checkpoints import MANIFEST, unknown_shards


class ExportSettings(Settings):
    """All settings of ``tmas export``."""

    checkpoint: Path = Field(
        description="Run directory of tmas train (its latest checkpoint is used), a global_step_N folder, or the actor"
        " folder in it."
    )
    output_dir: Path = Field(description="Folder for the Hugging Face model; it must not exist yet.")
    trust_checkpoint: bool = Field(
        default=False,
        description="Also load a checkpoint that checkpoints/manifest.jsonl of its run does not list. verl loads it"
        " with pickle, which can run any code: set this only for files from people you trust.",
    )


class ExportError(UserError):
    """The checkpoint is missing or incomplete, or the merged weights do not form a complete model."""


def export(settings: ExportSettings, console: Console) -> Path:
    """Merge the checkpoint's shards, and a LoRA adapter, into bf16 safetensors and return the new folder.

    The folder also has the tokenizer, the chat template and the generation config. It appears only when it is complete
    and the model in it could be loaded. Otherwise, no partial folder is left behind.

    Raises :class:`ExportError` if the checkpoint cannot be exported, or if the run has not listed it and
    ``trust_checkpoint`` is not set.
    """
    actor = find_actor(settings.checkpoint)
    check_complete(actor)
    output = settings.output_dir.absolute()
    if output.exists():
        raise ExportError(f"output_dir {output} exists already: choose another folder")
    if not settings.trust_checkpoint:
        check_known(actor)
    console.print(f"merging {actor}", markup=False)
    with whole_folder(output) as building:
        with contextlib.redirect_stdout(sys.stderr):  # verl prints to stdout, which is for our output
            _merge(actor, building)
            _merge_adapter(actor, building)
        parameters = check_loadable(building)
    console.print(f"{output}: {parameters:,} parameters, loaded successfully", markup=False)
    return output


def find_actor(path: Path) -> Path:
    """Return the ``actor`` folder of the checkpoint at ``path``.

    ``path`` is a run directory (its latest checkpoint is used), a ``global_step_N`` folder, or the ``actor`` folder.
    Raises :class:`ExportError` if it is none of these.
    """
    if not path.is_dir():
        raise ExportError(f"checkpoint {path}: there is no such folder")
    for folder in (path / "checkpoints", path):
        if (latest := folder / "latest_checkpointed_iteration.txt").is_file():
            return folder / f"global_step_{int(latest.read_text())}" / "actor"
    if path.name == "actor" or (path / "actor").is_dir():
        return path if path.name == "actor" else path / "actor"
    raise ExportError(
        f"checkpoint {path}: neither a run directory of `tmas train` with a checkpoint nor a global_step_N folder. A "
        "run directory with a checkpoint has the file checkpoints/latest_checkpointed_iteration.txt"
    )


def check_complete(actor: Path) -> None:
    """Raise :class:`ExportError` with the names of the missing files if the FSDP checkpoint is incomplete."""
    config = actor / "fsdp_config.json"  # verl writes it after its own shards
    if not config.is_file():
        raise ExportError(f"{actor}: no {config.name}, so this is not a complete FSDP checkpoint of verl")
    size = int(json.loads(config.read_text("utf-8"))["world_size"])
    wanted = [f"model_world_size_{size}_rank_{rank}.pt" for rank in range(size)]
    wanted += [f"huggingface/{name}" for name in ("config.json", "tokenizer_config.json")]
    if missing := [name for name in wanted if not (actor / name).is_file()]:
        raise ExportError(f"{actor}: incomplete, missing {', '.join(missing)}")


def check_known(actor: Path) -> None:
    """Raise :class:`ExportError` if the run's manifest does not list a shard, or if the shard has changed."""
    if not (unknown := unknown_shards(actor)):
        return
    manifest = actor.absolute().parent.parent / MANIFEST
    state = "does not list it as it is now" if manifest.exists() else "is missing, as in runs of older versions"
    raise ExportError(
        f"not a known checkpoint of this run: {manifest} {state}",
        where=unknown[0],
        remedy="verl loads checkpoints with pickle, which can run any code. If you trust those who wrote this one, set"
        " trust_checkpoint=true.",
    )


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
    except (RuntimeError, KeyError, EOFError, UnpicklingError) as error:  # raised by torch and verl for a damaged shard
        raise ExportError(f"{actor}: cannot be merged. A shard may be damaged: {error!r}") from error


def _merge_adapter(actor: Path, folder: Path) -> None:
    """Add the LoRA adapter, if there is one, to the weights in ``folder``.

    verl's merger writes the weights of the base model to ``folder``, and the adapter to ``folder/lora_adapter``.
    """
    if not (adapter := folder / "lora_adapter").exists():
        return
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    if not json.loads((adapter / "adapter_config.json").read_text("utf-8"))["lora_alpha"]:
        raise ExportError("has no lora_train_meta.json, so the scale of the adapter is unknown", where=str(actor))
    base_model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    PeftModel.from_pretrained(base_model, adapter).merge_and_unload(safe_merge=True).save_pretrained(folder)
    shutil.rmtree(adapter)


def check_loadable(folder: Path) -> int:
    """Load the model with transformers and return its number of parameters.

    Raises :class:`ExportError` if a weight is missing, unknown or of the wrong shape, or if the tokenizer has no chat
    template.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    model, info = loaded
    if wrong := {kind: sorted(map(str, names)) for kind, names in info.items() if names}:
        raise ExportError(f"{folder}: the merged weights do not fit the model: {wrong}")
    if not AutoTokenizer.from_pretrained(folder).chat_template:
        raise ExportError(f"{folder}: the tokenizer has no chat template")
    return model.num_parameters()
