from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.example_run import blocks, examples, make

PAGE = Path(__file__).parents[3] / "docs" / "run-directory.md"


def shape(value: Any) -> Any:
    """Keys and types, as deep as they go."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items() if key != "packages"}
    return [shape(part) for part in value] if isinstance(value, list) else type(value)


def test_the_page_on_run_directories_shows_what_a_run_writes(tmp_path: Path) -> None:
    run = make(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    assert shape(blocks(page)) == shape(examples(run))
    visible = sorted(path.name for path in run.iterdir() if not path.name.startswith("."))
    assert [name for name in visible if f"`{name}" not in page] == []
