"""The commands ``tmas collect``, ``filter``, ``distill`` and ``build``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rich.console import Console

from tmas.cli.composing import validated
from tmas.cli.runs import run_or_exit
from tmas.data_prep.build import build
from tmas.data_prep.build_settings import BuildSettings
from tmas.data_prep.collect import CollectSettings, collect
from tmas.data_prep.difficulty import FilterSettings, filter_by_difficulty
from tmas.data_prep.distill import DistillSettings, distill


def collect_command(config: dict[str, Any], console: Console) -> None:
    """``tmas collect``: build one cleaned pool from public problem sets. Calls no model."""
    collect(validated(CollectSettings.model_validate, config), _printer(console))


def filter_command(config: dict[str, Any], console: Console) -> None:
    """``tmas filter``: run a policy on the pool and keep the problems that it solves sometimes."""
    run = partial(run_or_exit, config=config, console=console)
    filter_by_difficulty(validated(FilterSettings.model_validate, config), run, _printer(console))


def distill_command(config: dict[str, Any], console: Console) -> None:
    """``tmas distill``: run a teacher on problems of the pool."""
    run = partial(run_or_exit, config=config, console=console)
    distill(validated(DistillSettings.model_validate, config), run, _printer(console))


def build_command(config: dict[str, Any], console: Console) -> None:
    """``tmas build``: build training rows and cold-start chats from runs. Calls no model."""
    build(validated(BuildSettings.model_validate, config), _printer(console))


def _printer(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
