"""The training loop of ``tmas sft``: transformers' Trainer, with DeepSpeed ZeRO or without, on GPUs and on the CPU."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from rich.console import Console
from transformers import AutoModelForCausalLM, PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging

from tmas.errors import UserError
from tmas.files import whole_folder
from tmas.training.sft.chunked_loss import use_chunked_loss
from tmas.training.sft.grouping import LengthGroups
from tmas.training.sft.optimizer import MuonWithAdamW
from tmas.training.sft.packing import pack
from tmas.training.sft.progress import SFTProgress
from tmas.training.sft.rows import IGNORED, Example, SFTData
from tmas.training.sft.run import SFTRun
from tmas.training.sft.settings import SFTSettings


def check_device(settings: SFTSettings, console: Console) -> None:
    """Raise ``UserError`` if the device is missing. Print a hint if some GPUs stay idle.

    On the CPU, it also makes DeepSpeed use gloo.
    """
    if settings.device == "cpu":
        if settings.deepspeed is not None:
            from deepspeed import ops

            # DeepSpeed would compile its own collectives, which needs a compiler and takes a minute. gloo suffices.
            ops.__compatible_ops__["deepspeed_shm_comm"] = False
        return
    available, used = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if not available:
        raise UserError("torch finds no GPU here", where="device=cuda", remedy="Set device=cpu to train on the CPU.")
    if available > used:
        command = f"torchrun --nproc_per_node={available} -m tmas.cli sft ..."
        console.print(f"using {used} of {available} GPUs; to use all: {command}")


def train(
    settings: SFTSettings, run: SFTRun, tokenizer: Any, data: SFTData, accumulation: int, console: Console
) -> None:
    """Train, resuming from the last checkpoint if there is one, and write the model to ``run.final``."""
    logging.disable_progress_bar()
    getLogger("accelerate.accelerator").setLevel("ERROR")  # hides a warning: the Trainer accumulates gradients itself
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")  # from DeepSpeed
    os.environ.setdefault("WANDB_PROJECT", "tmas")
    os.environ.setdefault("WANDB_DIR", str(run.path))
    if settings.row_length:
        train_rows, val_rows = (pack(e, settings.row_length, settings.seed) for e in (data.train, data.validation))
        lengths = [_tokens(row) for row in train_rows]
        mean = sum(lengths) / len(lengths)
        console.print(
            f"packed into {len(lengths):,} rows of {mean:,.0f} tokens on average, at most {max(lengths):,}",
            markup=False,
        )
    else:
        train_rows, val_rows = ([[example] for example in e] for e in (data.train, data.validation))
    # The arguments must exist before the model is loaded, because ZeRO 3 shards the model while it loads.
    arguments = _arguments(settings, run, accumulation, bool(val_rows))
    try:
        model = AutoModelForCausalLM.from_pretrained(
            settings.model.path,
            # DeepSpeed keeps fp32 master weights. Without DeepSpeed the weights are fp32 and autocast computes in bf16.
            dtype=torch.float32 if settings.deepspeed is None else torch.bfloat16,
            attn_implementation=settings.model.attn_implementation,
        )
    except (ImportError, ValueError) as error:  # raised by transformers for an attn_implementation that is unavailable
        raise UserError(str(error), where="model") from error
    configs = copy.deepcopy((model.config, model.generation_config))  # the Trainer changes them
    if settings.liger_kernels:
        _check_liger(model)
    if settings.loss_chunk is not None:
        use_chunked_loss(model, settings.loss_chunk)
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=train_rows,  # type: ignore[arg-type]
        eval_dataset=val_rows or None,  # type: ignore[arg-type]
        data_collator=partial(collate, length=settings.row_length),
        callbacks=[SFTProgress(run, console)],
        optimizer_cls_and_kwargs=_muon(settings),  # type: ignore[arg-type]
    )
    trainer.decay, trainer.packed = settings.decay, settings.packing
    if settings.group_by_length:
        trainer.groups = LengthGroups([_tokens(row) for row in train_rows], settings.batch_size, settings.seed)
    trainer.remove_callback(PrinterCallback)
    checkpoint = run.last_checkpoint()
    if checkpoint:
        console.print(f"resuming from {checkpoint}", markup=False)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    _save(trainer, run.final, [tokenizer, *configs])


class _Arguments(TrainingArguments):
    """transformers' training arguments with a CPU device that torch.load accepts."""

    @property
    def device(self) -> torch.device:
        """The device. A CPU has no index: accelerate adds one per process, but torch.load refuses ``cpu:0``."""
        device = super().device
        return torch.device("cpu") if device.type == "cpu" else device


class SFTTrainer(Trainer):
    """transformers' Trainer with packed rows, groups of similar length, and ``decay``.

    ``decay``: share of the updates in which the schedule ``warmup_stable_decay`` reduces the learning rate.
    ``packed``: whether rows have several chats. ``groups``: the order of the training rows; None: a random order.
    """

    decay: float
    packed: bool
    groups: LengthGroups | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.groups or super()._get_train_sampler(train_dataset)

    def get_train_dataloader(self) -> Any:
        loader: Any = super().get_train_dataloader()
        if self.groups:
            # accelerate finds the sampler through this to set its epoch, but calls it only for a sampler of its own.
            # Without this call, several processes that resume within an epoch would use the order of epoch 0.
            loader.set_sampler(self.groups)
        return loader

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(model, model_inputs(inputs) if self.packed else inputs, *args, **kwargs)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.args.lr_scheduler_type == "warmup_stable_decay":
            steps = round(self.decay * num_training_steps)
            self.args.lr_scheduler_kwargs = {"num_decay_steps": steps, "decay_type": "linear"}
        return super().create_scheduler(num_training_steps, optimizer)


def _tokens(row: Sequence[Example]) -> int:
    return sum(len(chat.labels) for chat in row)


def _check_liger(model: Any) -> None:
    """Raise ``UserError`` if liger-kernel is missing, or has no kernels for the model and would do nothing."""
    try:
        # liger-kernel is only in the GPU environment (locks/gpu.txt).
        from liger_kernel.transformers.monkey_patch import (  # pyright: ignore[reportMissingImports]
            MODEL_TYPE_TO_APPLY_LIGER_FN as SUPPORTED,
        )
    except ImportError as error:
        raise UserError(
            f"cannot load liger-kernel: {error}",
            where="liger_kernels",
            remedy="Install it, or set liger_kernels=false.",
        ) from error
    if model.config.model_type not in SUPPORTED:
        raise UserError(
            f"liger-kernel has no kernels for {model.config.model_type} models",
            where="liger_kernels",
            remedy="Set liger_kernels=false.",
        )


def model_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The model's arguments for a batch of packed rows.

    transformers separates the chats of a row where ``position_ids`` restart, but only without a cache and without an
    attention mask. The Trainer uses the batch's attention mask to count tokens; it is removed here.
    """
    return {**{key: value for key, value in batch.items() if key != "attention_mask"}, "use_cache": False}


def deepspeed_config(settings: SFTSettings) -> dict[str, Any] | None:
    """DeepSpeed's configuration: ZeRO in bf16 with fp32 master weights. None without DeepSpeed.

    ``settings.deepspeed`` overrides single values. transformers replaces ``auto`` by the Trainer's arguments.
    """
    if settings.deepspeed is None:
        return None
    zero: dict[str, Any] = {"stage": settings.zero_stage, "stage3_gather_16bit_weights_on_model_save": True}
    config: dict[str, Any] = {
        "bf16": {"enabled": True},
        "zero_optimization": zero,
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }
    if settings.zero_stage:
        config["data_types"] = {"grad_accum_dtype": "fp32"}  # bf16 is too coarse to accumulate many micro batches
    if settings.optimizer == "muon":
        zero["reduce_scatter"] = False  # DeepSpeed's Muon needs whole matrices
        rates = {"muon_lr": settings.muon_learning_rate, "adam_lr": settings.learning_rate, "momentum": 0.95}
        automatic = {"betas": "auto", "eps": "auto", "weight_decay": "auto"}
        config["optimizer"] = {"type": "Muon", "params": {**rates, **automatic}}
    return OmegaConf.to_container(OmegaConf.merge(config, settings.deepspeed))  # type: ignore[return-value]


def _muon(settings: SFTSettings) -> tuple[Any, dict[str, Any]] | None:
    """A factory for :class:`MuonWithAdamW` and its arguments. None if DeepSpeed's Muon or AdamW alone is used."""
    if settings.optimizer != "muon" or settings.deepspeed is not None:
        return None
    rates = {"muon_learning_rate": settings.muon_learning_rate, "learning_rate": settings.learning_rate}
    return lambda: MuonWithAdamW, {**rates, "betas": settings.adam_betas, "weight_decay": settings.weight_decay}


def _arguments(settings: SFTSettings, run: SFTRun, accumulation: int, validate: bool) -> TrainingArguments:
    return _Arguments(
        output_dir=str(run.checkpoints),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.micro_batch_size,
        per_device_eval_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        adam_beta1=settings.adam_betas[0],
        adam_beta2=settings.adam_betas[1],
        max_grad_norm=settings.max_grad_norm or 0,
        gradient_checkpointing=settings.gradient_checkpointing,
        use_liger_kernel=settings.liger_kernels,
        # Liger's own loss is off, because it keeps all logits during validation. loss_chunk applies as without Liger.
        liger_kernel_config={"cross_entropy": False, "fused_linear_cross_entropy": False},
        bf16=True,
        use_cpu=settings.device == "cpu",
        deepspeed=deepspeed_config(settings),
        ddp_find_unused_parameters=False,
        seed=settings.seed,
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        eval_strategy="steps" if validate else "no",
        eval_steps=settings.eval_steps,
        prediction_loss_only=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        remove_unused_columns=False,
        report_to=settings.report_to,
        run_name=run.path.name,
        disable_tqdm=True,
        log_level="warning",
    )


def collate(rows: Sequence[Sequence[Example]], length: int | None = None) -> dict[str, torch.Tensor]:
    """Make a micro batch. All tensors are int64 ``[rows, length]``; ``length`` defaults to that of the longest row.

    ``position_ids`` restart with each chat. Shorter rows are padded with token 0. The padding has no loss, and no other
    token attends to it, because it comes last and restarts the positions.
    """
    length = length or max(_tokens(row) for row in rows)

    def padded(parts: Sequence[NDArray[Any]], value: int) -> torch.Tensor:
        whole = numpy.concatenate(parts)
        return torch.from_numpy(numpy.pad(whole, (0, length - len(whole)), constant_values=value)).long()

    return {
        "input_ids": torch.stack([padded([chat.input_ids for chat in row], 0) for row in rows]),
        "labels": torch.stack([padded([chat.labels for chat in row], IGNORED) for row in rows]),
        "position_ids": torch.stack([padded([numpy.arange(len(c.labels)) for c in row], 0) for row in rows]),
        "attention_mask": torch.stack([padded([numpy.ones(len(c.labels)) for c in row], 0) for row in rows]),
    }


def _save(trainer: Trainer, final: Path, parts: Sequence[Any]) -> None:
    """Write the model folder ``final``, which appears only when it is complete.

    ``parts``: the tokenizer and the configs as they were before the training; they are saved unchanged.
    """
    # A collective call: every process must take part.
    state: Any = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return
    model: Any = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    tied = model.all_tied_weights_keys  # gathering has copied them: save each only once
    weights = {name: value for name, value in state.items() if name not in tied}
    floating = {name: value.to(torch.bfloat16) for name, value in weights.items() if value.is_floating_point()}
    with whole_folder(final) as building:
        model.save_pretrained(building, state_dict={**weights, **floating})
        for part in parts:
            part.save_pretrained(building)
