"""What ``tmas collect``, ``filter``, ``distill`` and ``build`` do with their settings and a console."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rich.console import Console

from data_prep.build import build
from data_prep.build_settings import BuildSettings
from data_prep.collect import CollectSettings, collect
from data_prep.difficulty import FilterSettings, filter_by_difficulty
from data_prep.distill import DistillSettings, distill
from tmas.cli.composing import validated
from tmas.cli.runs import run_shown


def collect_command(config: dict[str, Any], console: Console) -> None:
    """``tmas collect``: no model is called."""
    collect(validated(CollectSettings.model_validate, config), _say(console))


def filter_command(config: dict[str, Any], console: Console) -> None:
    """``tmas filter``."""
    run = partial(run_shown, config=config, console=console)
    filter_by_difficulty(validated(FilterSettings.model_validate, config), run, _say(console))


def distill_command(config: dict[str, Any], console: Console) -> None:
    """``tmas distill``."""
    run = partial(run_shown, config=config, console=console)
    distill(validated(DistillSettings.model_validate, config), run, _say(console))


def build_command(config: dict[str, Any], console: Console) -> None:
    """``tmas build``: no model is called."""
    build(validated(BuildSettings.model_validate, config), _say(console))


def _say(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
