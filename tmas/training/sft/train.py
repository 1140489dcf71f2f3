"""``tmas sft``: the cold start, which is supervised fine-tuning on a teacher's chats with DeepSpeed ZeRO.

It writes to ``output_dir``: ``final/`` (the model as a Hugging Face folder), ``metrics.jsonl`` (one line per step),
``left_out.jsonl`` (rows that were not used, and the reasons), ``manifest.json`` and ``checkpoints/``.
"""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path

from rich.console import Console

from tmas.errors import UserError
from tmas.training.sft.rows import ChatEncoder, SFTFileError, load
from tmas.training.sft.run import SFTRun
from tmas.training.sft.settings import SFTSettings


def sft(settings: SFTSettings, console: Console) -> Path:
    """Train, resuming from the last checkpoint in ``output_dir`` if there is one. Returns the Hugging Face folder.

    ``torchrun`` calls this in several processes. Before the first update it raises ``UserError`` for wrong settings or
    rows, and :class:`~tmas.run.directory.RunRefused` if ``output_dir`` has another run or other files.
    """
    for key, files in (("train_files", settings.train_files), ("val_files", settings.val_files)):
        if missing := [str(file) for file in files if not file.is_file()]:
            remedy = "Give the files of chats that tmas build wrote."
            raise UserError(f"there is no file {', '.join(missing)}", where=key, remedy=remedy)
    rank, processes = _rank_and_processes(settings)
    console.quiet = rank > 0
    run = SFTRun(settings.output_dir, {**settings.identity(), "processes": processes}, settings.train_files)
    with closing(run):
        if not run.final.exists():
            _train(settings, run, rank, processes, console)
    console.print(f"finished: {run.final}", markup=False)
    return run.final


def _train(settings: SFTSettings, run: SFTRun, rank: int, processes: int, console: Console) -> None:
    import torch.distributed as dist

    from tmas.training.sft.trainer import check_device, train

    accumulation = settings.accumulation(processes)
    check_device(settings, console)
    encoder = ChatEncoder.load(settings.model.path, settings.max_length, settings.loss_on)
    data = load(settings.train_files, settings.val_files, encoder)
    if data.left_out and settings.on_bad_row == "refuse":
        raise SFTFileError(data.left_out)
    if not data.train:
        raise UserError("contains no row to train on", where="train_files")
    if rank == 0:
        run.begin(data.left_out)
    console.print(str(data), markup=False)
    sharding = "without DeepSpeed" if settings.deepspeed is None else f"ZeRO {settings.zero_stage}"
    console.print(
        f"{processes} x {settings.device}, {sharding}, {settings.optimizer}; {settings.batch_size} rows per update: "
        f"{processes} processes x {settings.micro_batch_size} rows x {accumulation} micro batches",
        markup=False,
    )
    train(settings, run, encoder.tokenizer, data, accumulation, console)
    # Otherwise Gloo's threads may still be running when the interpreter exits, and it aborts.
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def _rank_and_processes(settings: SFTSettings) -> tuple[int, int]:
    """The rank of this process and the number of processes, as set by ``torchrun``; (0, 1) without ``torchrun``.

    Sets the environment variables that DeepSpeed needs if ``torchrun`` did not set them.
    """
    if settings.deepspeed is not None:
        if "RANK" not in os.environ:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
            os.environ.update({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", **address})
        if settings.device == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed reads it when it is imported
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
