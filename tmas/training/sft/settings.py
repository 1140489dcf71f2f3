"""The settings of ``tmas sft``; conf/sft.yaml lists them with their defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from tmas.errors import UserError
from tmas.settings import Settings

Beta = Annotated[float, Field(ge=0, lt=1)]


class SFTModel(Settings):
    """The policy to start from: a folder or hub name; ``attn_implementation`` as transformers calls it."""

    path: str
    attn_implementation: str = "sdpa"


class SFTSettings(Settings):
    """All settings of ``tmas sft``; see conf/sft.yaml.

    ``batch_size``: rows in an update, over all processes. ``micro_batch_size``: rows that a process takes at once.
    A row is one chat, or with ``packing`` several chats of together at most ``pack_length`` tokens. ``warmup`` and
    ``decay`` are shares of the updates; a ``warmup`` of 1 or more is a number of updates. ``deepspeed`` overrides the
    DeepSpeed settings that the other keys give; None trains without DeepSpeed.
    """

    model: SFTModel
    train_files: list[Path] = Field(min_length=1)
    val_files: list[Path] = Field(default_factory=list)
    output_dir: Path
    on_bad_row: Literal["refuse", "skip"] = "refuse"
    max_length: int = Field(default=32768, ge=2)
    loss_on: Literal["assistant", "all"] = "assistant"
    packing: bool = False
    pack_length: int | None = Field(default=None, ge=2)
    epochs: float = Field(default=3, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=64, ge=1)
    micro_batch_size: int = Field(default=1, ge=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(default=1e-5, gt=0)
    muon_learning_rate: float = Field(default=0.02, gt=0)
    adam_betas: tuple[Beta, Beta] = (0.9, 0.999)
    schedule: Literal["cosine", "linear", "constant_with_warmup", "warmup_stable_decay"] = "cosine"
    warmup: float = Field(default=0.03, ge=0)
    decay: float = Field(default=0.2, gt=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    gradient_checkpointing: bool = True
    zero_stage: Literal[0, 1, 2, 3] = 2
    deepspeed: dict[str, JsonValue] | None = Field(default_factory=dict)
    device: Literal["cuda", "cpu"] = "cuda"
    seed: int = 0
    save_steps: int = Field(default=100, ge=1)
    eval_steps: int = Field(default=100, ge=1)
    report_to: list[str] = Field(default_factory=list)

    @field_validator("train_files", "val_files", "report_to", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _combinations_that_work(self) -> SFTSettings:
        if self.optimizer == "muon" and self.deepspeed is not None and self.zero_stage == 0:
            raise ValueError("optimizer=muon needs zero_stage 1, 2 or 3, or deepspeed=null")
        if self.optimizer == "muon" and self.deepspeed is not None and self.max_grad_norm is not None:
            raise ValueError(
                "optimizer=muon needs max_grad_norm=null: DeepSpeed would clip Muon's orthogonalized update, whose "
                "norm grows with the number of weights, instead of the gradient"
            )
        if self.pack_length is not None and self.pack_length < self.max_length:
            raise ValueError(
                f"pack_length {self.pack_length} is less than max_length {self.max_length}: a chat of max_length "
                "tokens must fit into a row"
            )
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
        """Settings that the outcome depends on. A checkpoint is resumed only if they are unchanged. Training files
        are compared by content, separately."""
        free = {"output_dir", "train_files", "val_files", "save_steps", "eval_steps", "report_to"}
        return self.model_dump(mode="json", exclude=free)

    def accumulation(self, processes: int) -> int:
        """Micro batches in an update of each process."""
        accumulation, rest = divmod(self.batch_size, self.micro_batch_size * processes)
        if rest or not accumulation:
            raise UserError(
                f"batch_size {self.batch_size} is not divisible by micro_batch_size {self.micro_batch_size} x "
                f"{processes} processes"
            )
        return accumulation
