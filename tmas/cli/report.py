"""The command ``tmas report``."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from tmas.cli.composing import validated
from tmas.report.report import MEGABYTE, ReportSettings, make_report


def print_report(config: dict[str, Any], console: Console) -> None:
    """Write the HTML page, and the figures if the settings ask for them. Print the page's path and size."""
    page = make_report(validated(ReportSettings.model_validate, config), lambda text: console.print(Text(text)))
    console.print(Text(f"{page} ({page.stat().st_size / MEGABYTE:.1f} MB)"), soft_wrap=True)
