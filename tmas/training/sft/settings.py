"""The settings of ``tmas sft``; conf/sft.yaml lists them with their defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from tmas.errors import UserError
from tmas.settings import Settings

Beta = Annotated[float, Field(ge=0, lt=1)]


class SFTModel(Settings):
    """The policy to start from."""

    path: str = Field(description="Folder or hub name of the policy to start from.")
    attn_implementation: str = Field(
        default="sdpa",
        description="Attention of transformers: sdpa, flash_attention_2 (needs flash-attn) or eager (fastest on a"
        " CPU).",
    )


class SFTSettings(Settings):
    """All settings of ``tmas sft``."""

    model: SFTModel = Field(description="The policy to start from.")
    train_files: list[Path] = Field(
        min_length=1, description="JSONL or parquet file with a column messages, or a list of such files."
    )
    val_files: list[Path] = Field(default_factory=list, description="Files for validation, in the same form.")
    output_dir: Path = Field(
        description="Run directory: final/ (the result), metrics.jsonl, checkpoints/. Run the same command again to"
        " resume.",
    )
    on_bad_row: Literal["refuse", "skip"] = Field(
        default="refuse",
        description="refuse: stop if a row is invalid. skip: train without invalid rows and write them to"
        " left_out.jsonl with the reason.",
    )
    max_length: int = Field(
        default=32768, ge=2, description="Longest chat in tokens; a longer one is an invalid row and is never cut."
    )
    loss_on: Literal["assistant", "all"] = Field(
        default="assistant", description="assistant: only the assistant's turns train. all: every token trains."
    )
    packing: bool = Field(
        default=False,
        description="Put several chats into one row of up to pack_length tokens. No chat attends to another.",
    )
    pack_length: int | None = Field(default=None, ge=2, description="Tokens of a packed row. null: max_length.")
    group_by_length: bool = Field(
        default=False,
        description="Use rows of similar length in each update, in an order drawn with seed. There is less padding, and"
        " processes wait less for each other, but an update no longer mixes short and long rows. For training without"
        " packing.",
    )
    epochs: float = Field(default=3, gt=0, description="Passes over the training rows.")
    max_steps: int | None = Field(default=None, ge=1, description="Number of updates. null: epochs decides.")
    batch_size: int = Field(
        default=64, ge=1, description="Rows per update over all processes; a row is a chat or a packed row."
    )
    micro_batch_size: int = Field(
        default=1, ge=1, description="Rows that a process computes at once; gradients are accumulated up to batch_size."
    )
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="adamw, or muon: Muon for the matrices of the layers and AdamW for the rest."
    )
    learning_rate: float = Field(default=1e-5, gt=0, description="Peak learning rate of AdamW.")
    muon_learning_rate: float = Field(default=0.02, gt=0, description="Peak learning rate of Muon.")
    adam_betas: tuple[Beta, Beta] = Field(default=(0.9, 0.999), description="The two decay rates of AdamW's averages.")
    schedule: Literal["cosine", "linear", "constant_with_warmup", "warmup_stable_decay"] = Field(
        default="cosine", description="Course of the learning rate after the warm-up."
    )
    warmup: float = Field(
        default=0.03, ge=0, description="Warm-up as a share of the updates; 1 or more: as a number of updates."
    )
    decay: float = Field(
        default=0.2, gt=0, le=1, description="Share of the updates in which warmup_stable_decay falls linearly to 0."
    )
    weight_decay: float = Field(default=0.0, ge=0, description="Weight decay of the optimizer.")
    max_grad_norm: float | None = Field(
        default=1.0, gt=0, description="Norm to which gradients are clipped. null: no clipping."
    )
    loss_chunk: int | None = Field(
        default=1024,
        ge=1,
        description="Number of tokens whose logits a process computes at once for the loss. Saves memory if chats"
        " are long and the vocabulary is large. null: all logits at once, which saves computing them again in the"
        " backward pass.",
    )
    liger_kernels: bool = Field(
        default=False,
        description="Use Liger's Triton kernels for norms, rotary positions and feed-forward layers: less memory and"
        " time. Needs liger-kernel and a GPU.",
    )
    gradient_checkpointing: bool = Field(
        default=True, description="Recompute activations in the backward pass: less memory, more time."
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        default=2,
        description="What DeepSpeed shards over the processes: 1 the optimizer's state, 2 also gradients, 3 also"
        " weights; 0 nothing.",
    )
    deepspeed: dict[str, JsonValue] | None = Field(
        default_factory=dict,
        description="DeepSpeed settings that override the values derived from the other keys. null: train without"
        " DeepSpeed, for small policies; fast on a CPU.",
    )
    device: Literal["cuda", "cpu"] = Field(default="cuda", description="Where to train.")
    seed: int = Field(default=0, description="Seed of the order of the rows and of all random numbers.")
    save_steps: int = Field(
        default=100, ge=1, description="Updates between two checkpoints; the last two checkpoints are kept."
    )
    eval_steps: int = Field(default=100, ge=1, description="Updates between two validations.")
    report_to: list[str] = Field(
        default_factory=list,
        description="Loggers in addition to the console and metrics.jsonl: wandb, tensorboard.",
    )

    @field_validator("train_files", "val_files", "report_to", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_combinations(self) -> SFTSettings:
        if self.optimizer == "muon" and self.deepspeed is not None and self.zero_stage == 0:
            raise ValueError("optimizer=muon needs zero_stage 1, 2 or 3, or deepspeed=null")
        if self.optimizer == "muon" and self.deepspeed is not None and self.max_grad_norm is not None:
            raise ValueError(
                "optimizer=muon needs max_grad_norm=null: DeepSpeed would clip Muon's orthogonalized update, whose "
                "norm grows with the number of weights, instead of the gradient"
            )
        if self.packing and self.group_by_length:
            raise ValueError("packing=true needs group_by_length=false: packed rows all have the same length")
        if self.pack_length is not None and self.pack_length < self.max_length:
            raise ValueError(
                f"pack_length {self.pack_length} is less than max_length {self.max_length}: a chat of max_length "
                "tokens must fit into a row"
            )
        if self.liger_kernels and self.device == "cpu":
            raise ValueError("liger_kernels=true needs device=cuda: Liger's kernels run only on a GPU")
        if self.packing and self.micro_batch_size > 1 and "flash" in self.model.attn_implementation:
            raise ValueError(
                f"packing with {self.model.attn_implementation} needs micro_batch_size=1: transformers keeps packed "
                "chats apart only in a single row; raise pack_length to have more tokens in it"
            )
        return self

    @property
    def row_length(self) -> int | None:
        """Tokens in each packed row; None without packing."""
        return (self.pack_length or self.max_length) if self.packing else None

    def identity(self) -> dict[str, Any]:
        """The settings that the result depends on. A checkpoint is resumed only if they are unchanged.

        Training files are compared separately, by content. ``liger_kernels`` and ``group_by_length`` are included only
        if they are on, so that a run that was begun before these settings existed can be resumed.
        """
        ignored = {"output_dir", "train_files", "val_files", "save_steps", "eval_steps", "report_to"}
        off = {key for key in ("liger_kernels", "group_by_length") if not getattr(self, key)}
        return self.model_dump(mode="json", exclude=ignored | off)

    def accumulation(self, processes: int) -> int:
        """Number of micro batches per update and process. Raises ``UserError`` if ``batch_size`` is not divisible."""
        accumulation, rest = divmod(self.batch_size, self.micro_batch_size * processes)
        if rest or not accumulation:
            raise UserError(
                f"batch_size {self.batch_size} is not divisible by micro_batch_size {self.micro_batch_size} x "
                f"{processes} processes"
            )
        return accumulation
