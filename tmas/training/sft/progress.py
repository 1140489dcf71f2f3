"""Callback of transformers' Trainer that logs the metrics of ``tmas sft`` and marks complete checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from accelerate import PartialState
from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tmas.training.sft.run import SFTRun, TrainingFailed


class SFTProgress(TrainerCallback):
    """Writes metrics.jsonl, prints each line to the console, and marks checkpoints that are complete."""

    def __init__(self, run: SFTRun, console: Console) -> None:
        self._run = run
        self._console = console

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self._run.truncate_metrics(state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs: dict[str, Any] = kwargs["logs"]
        losses = {key: logs[key] for key in ("loss", "eval_loss") if key in logs}
        if not all(math.isfinite(loss) for loss in losses.values()):
            raise TrainingFailed(
                f"step {state.global_step}: {losses}: the loss is not a finite number. A lower learning_rate may help"
            )
        if losses and state.is_world_process_zero:  # the summary at the end has no loss
            others = {key: logs[key] for key in ("grad_norm", "learning_rate") if key in logs}
            place = {"step": state.global_step, "epoch": state.epoch, "tokens": state.num_input_tokens_seen}
            self._show(self._run.log({**place, **losses, **others}), state.max_steps)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            self._run.mark_complete(state.global_step)

    def _show(self, line: Mapping[str, Any], steps: int) -> None:
        shown = [f"{key} {line[key]:.4g}" for key in ("loss", "eval_loss", "grad_norm", "learning_rate") if key in line]
        text = ["step", f"{line['step']}/{steps}", *shown, f"{line['tokens']:,} tokens", f"{line['seconds']:.1f} s"]
        self._console.print(*text, markup=False)
