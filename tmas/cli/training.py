"""The commands ``tmas sft``, ``tmas train`` and ``tmas export``."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from tmas.cli.composing import validated
from tmas.cli.exits import STOPPED, fail
from tmas.training.export import ExportSettings, export
from tmas.training.rl.train import train
from tmas.training.sft.run import TrainingFailed
from tmas.training.sft.settings import SFTSettings
from tmas.training.sft.train import sft


def sft_command(config: dict[str, Any], console: Console) -> None:
    """``tmas sft``: fine-tune a policy. ``torchrun -m tmas.cli sft`` starts this function in several processes."""
    try:
        sft(validated(SFTSettings.model_validate, config), console)
    except TrainingFailed as error:
        fail(str(error), STOPPED)


def train_command(config: dict[str, Any], console: Console) -> None:
    """``tmas train``: train a policy with verl."""
    train(OmegaConf.create(config), console)


def export_command(config: dict[str, Any], console: Console) -> None:
    """``tmas export``: write a trained policy as a Hugging Face folder."""
    export(validated(ExportSettings.model_validate, config), console)
