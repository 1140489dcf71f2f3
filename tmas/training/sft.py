"""``tmas sft``: the cold start, supervised fine-tuning on teacher traces with DeepSpeed ZeRO.

It leaves ``final/`` (a Hugging Face folder), ``metrics.jsonl`` (a line a step), ``left_out.jsonl`` (rows that were not
trained on, and why), ``manifest.json`` and ``checkpoints/`` in ``output_dir``.
"""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, field_validator
from rich.console import Console

from tmas.config import Settings
from tmas.training.sft_rows import ChatEncoder, SFTFileError, load
from tmas.training.sft_run import SFTRun


class SFTModel(Settings):
    """The policy to start from: a folder or hub name; ``attn_implementation`` as transformers calls it."""

    path: str
    attn_implementation: str = "sdpa"


class SFTSettings(Settings):
    """Everything ``tmas sft`` takes; see conf/sft.yaml.

    ``batch_size``: rows in an update, over all processes; ``micro_batch_size``: rows that a process takes at once.
    ``max_length`` in tokens. ``warmup``: share of the updates. ``deepspeed``: goes over what the other keys make.
    """

    model: SFTModel
    train_files: list[Path] = Field(min_length=1)
    val_files: list[Path] = Field(default_factory=list)
    output_dir: Path
    on_bad_row: Literal["refuse", "skip"] = "refuse"
    max_length: int = Field(default=32768, ge=2)
    epochs: float = Field(default=3, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=64, ge=1)
    micro_batch_size: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-5, gt=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = Field(default=0.03, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    gradient_checkpointing: bool = True
    zero_stage: Literal[0, 1, 2, 3] = 2
    deepspeed: dict[str, JsonValue] = Field(default_factory=dict)
    device: Literal["cuda", "cpu"] = "cuda"
    seed: int = 0
    save_steps: int = Field(default=100, ge=1)
    eval_steps: int = Field(default=100, ge=1)
    report_to: list[str] = Field(default_factory=list)

    @field_validator("train_files", "val_files", "report_to", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    def identity(self) -> dict[str, Any]:
        """What the outcome depends on: a run goes on only where all of this is as it was. Files count by content."""
        free = {"output_dir", "train_files", "val_files", "save_steps", "eval_steps", "report_to"}
        return self.model_dump(mode="json", exclude=free)

    def accumulation(self, processes: int) -> int:
        """Micro batches in an update of each process."""
        accumulation, rest = divmod(self.batch_size, self.micro_batch_size * processes)
        if rest or not accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by micro_batch_size {self.micro_batch_size} x "
                f"{processes} processes"
            )
        return accumulation


def sft(settings: SFTSettings, console: Console) -> Path:
    """Trains, or goes on from the last checkpoint in ``output_dir``; returns the Hugging Face folder.

    Under ``torchrun`` this is one process of several. Raises ``ValueError`` for what cannot work, and
    :class:`~tmas.inference.run_directory.RunRefused` where ``output_dir`` holds something else, before any update.
    """
    rank, processes = _join(settings.device)
    console.quiet = rank > 0
    run = SFTRun(settings.output_dir, {**settings.identity(), "processes": processes}, settings.train_files)
    with closing(run):
        if not run.final.exists():
            _train(settings, run, rank, processes, console)
    console.print(f"finished: {run.final}", markup=False)
    return run.final


def _train(settings: SFTSettings, run: SFTRun, rank: int, processes: int, console: Console) -> None:
    from tmas.training.sft_trainer import check_device, train

    accumulation = settings.accumulation(processes)
    check_device(settings.device, console)
    encoder = ChatEncoder.load(settings.model.path, settings.max_length)
    data = load(settings.train_files, settings.val_files, encoder)
    if data.left_out and settings.on_bad_row == "refuse":
        raise SFTFileError(data.left_out)
    if not data.train:
        raise ValueError("train_files: there is no row to train on")
    if rank == 0:
        run.begin(data.left_out)
    console.print(str(data), markup=False)
    console.print(
        f"{processes} x {settings.device}, ZeRO {settings.zero_stage}; {settings.batch_size} rows an update: "
        f"{processes} processes x {settings.micro_batch_size} rows x {accumulation}",
        markup=False,
    )
    train(settings, run, encoder.tokenizer, data, accumulation, console)


def _join(device: str) -> tuple[int, int]:
    """This process's rank and how many there are, as the launcher says; without one it is alone."""
    if "RANK" not in os.environ:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        os.environ.update({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", **address})
    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"  # read when DeepSpeed is imported
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
