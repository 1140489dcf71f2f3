"""The training loop of ``tmas sft``: transformers' Trainer over DeepSpeed ZeRO, on GPUs and on the CPU."""

from __future__ import annotations

import copy
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import OmegaConf
from rich.console import Console
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging

from tmas.training.sft_progress import Progress
from tmas.training.sft_rows import IGNORED, Example, SFTData
from tmas.training.sft_run import SFTRun

if TYPE_CHECKING:
    from tmas.training.sft import SFTSettings


def check_device(device: str, console: Console) -> None:
    """Raises ``ValueError`` where there is no such device; points to GPUs that stay idle."""
    if device == "cpu":
        from deepspeed import ops

        # DeepSpeed would compile its own collectives, which takes a compiler and a minute; gloo's do as well.
        ops.__compatible_ops__["deepspeed_shm_comm"] = False
        return
    there, used = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if not there:
        raise ValueError("device=cuda, but torch finds no GPU here; device=cpu trains on the processors")
    if there > used:
        console.print(f"{used} of {there} GPUs: torchrun --nproc_per_node={there} -m tmas.cli sft ... takes all")


def train(
    settings: SFTSettings, run: SFTRun, tokenizer: Any, data: SFTData, accumulation: int, console: Console
) -> None:
    """Runs from the last checkpoint, or from the start, to the end; then ``run.final`` is there."""
    logging.disable_progress_bar()
    getLogger("accelerate.accelerator").setLevel("ERROR")  # it warns that the Trainer accumulates on its own
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")  # of DeepSpeed's calls
    os.environ.setdefault("WANDB_PROJECT", "tmas")
    os.environ.setdefault("WANDB_DIR", str(run.path))
    # Before the model: ZeRO 3 shards it as it loads.
    arguments = _arguments(settings, run, accumulation, bool(data.validation))
    model = AutoModelForCausalLM.from_pretrained(
        settings.model.path, dtype=torch.bfloat16, attn_implementation=settings.model.attn_implementation
    )
    configs = copy.deepcopy((model.config, model.generation_config))  # the Trainer changes them
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=data.train,  # type: ignore[arg-type]
        eval_dataset=data.validation or None,  # type: ignore[arg-type]
        data_collator=collate,
        callbacks=[Progress(run, console)],
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = run.last_checkpoint()
    if checkpoint:
        console.print(f"going on from {checkpoint}", markup=False)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    _save(trainer, run.final, [tokenizer, *configs])


def deepspeed_config(zero_stage: int, over: Mapping[str, Any]) -> dict[str, Any]:
    """ZeRO in bf16 with fp32 master weights; ``over`` goes over it. ``auto``: from the Trainer's own settings."""
    config: dict[str, Any] = {
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": zero_stage, "stage3_gather_16bit_weights_on_model_save": True},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }
    if zero_stage:
        config["data_types"] = {"grad_accum_dtype": "fp32"}  # many micro batches do not add up in bf16
    return OmegaConf.to_container(OmegaConf.merge(config, over))  # type: ignore[return-value]


def _arguments(settings: SFTSettings, run: SFTRun, accumulation: int, validate: bool) -> TrainingArguments:
    return TrainingArguments(
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
        max_grad_norm=settings.max_grad_norm,
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=True,
        use_cpu=settings.device == "cpu",
        deepspeed=deepspeed_config(settings.zero_stage, settings.deepspeed),
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


def collate(examples: Sequence[Example]) -> dict[str, torch.Tensor]:
    """``input_ids``, ``labels`` and ``attention_mask`` of a micro batch: rows x tokens of the longest row.

    Which token fills the shorter rows does not matter: it comes last, is masked and is not learned.
    """

    def padded(rows: Sequence[Any], value: int) -> torch.Tensor:
        return pad_sequence([torch.from_numpy(row).long() for row in rows], batch_first=True, padding_value=value)

    lengths = torch.tensor([len(example.input_ids) for example in examples])
    return {
        "input_ids": padded([example.input_ids for example in examples], 0),
        "labels": padded([example.labels for example in examples], IGNORED),
        "attention_mask": (torch.arange(int(lengths.max())) < lengths[:, None]).long(),
    }


def _save(trainer: Trainer, final: Path, parts: Sequence[Any]) -> None:
    """``final`` appears whole: weights, and the ``parts`` (tokenizer with its chat template, configs) as they were."""
    state: Any = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # every process has a share in it
    if not trainer.is_world_process_zero():
        return
    model: Any = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    building = final.with_name(f".{final.name}.new")
    shutil.rmtree(building, ignore_errors=True)
    tied = model.all_tied_weights_keys  # gathering has made copies of them
    model.save_pretrained(building, state_dict={name: value for name, value in state.items() if name not in tied})
    for part in parts:
        part.save_pretrained(building)
    os.replace(building, final)
