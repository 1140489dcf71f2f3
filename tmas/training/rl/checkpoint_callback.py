"""verl's checkpoint callback: lists each saved checkpoint in the run's manifest (:mod:`tmas.training.checkpoints`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from verl.trainer.ppo.checkpoint_callback import CheckpointCallback

from tmas.training.checkpoints import record_checkpoint


class RecordCheckpoint(CheckpointCallback):
    """Set as ``trainer.checkpoint_callback_class``. A callback of your own should be a subclass of this one."""

    def on_save(
        self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **kwargs: Any
    ) -> None:
        """Called by verl's trainer, in its own process, after a checkpoint was saved."""
        if not async_save:  # an asynchronous save (Megatron) is not complete yet, and tmas export cannot merge it
            record_checkpoint(Path(checkpoint_dir).absolute(), global_step)
