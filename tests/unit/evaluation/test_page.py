from __future__ import annotations

from pathlib import Path

from tests.support.example_evaluation import evaluated, examples
from tests.support.example_run import blocks
from tests.unit.run.test_directory_page import shape

PAGE = Path(__file__).parents[3] / "docs" / "evaluation.md"


def test_the_page_on_evaluation_shows_what_an_evaluation_writes(tmp_path: Path) -> None:
    made = examples(evaluated(tmp_path))
    assert shape(blocks(PAGE.read_text(encoding="utf-8"))) == shape(made)
