from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.support.benchmarks import DATA, needs_data
from tmas.problems.loader import ProblemFields, load_problems

CONF = Path(__file__).parents[3] / "conf"
NAMES = sorted(preset.stem for preset in (CONF / "data").glob("*.yaml"))
FITS = [
    ("gsm8k", "gsm8k/test.jsonl", 1319, ("test-1", "18")),
    ("gsm8k", "gsm8k/train.jsonl", 7473, ("train-1", "72")),
    ("aime24", "aime24/aime24.json", 30, ("0", "204")),
    ("math500", "math500/math500.json", 500, ("test/precalculus/807.json", r"\left( 3, \frac{\pi}{2} \right)")),
    ("imo_answerbench_v1", "imo-answerbench/answerbench.csv", 400, ("imo-bench-algebra-001", "3")),
    ("imo_answerbench", "imo-answerbench/answerbench_v2.csv", 399, ("imo-bench-algebra-001", "3")),
    ("imo_proofbench", "imo-answerbench/proofbench_v2.csv", 60, ("PB-Basic-001", None)),
    ("imo2025", "imo2025-proofs/IMO2025.json", 6, ("IMO2025-1", None)),
]
ELSEWHERE = {"hle_math_100": "gated", "imo_answerbench_50": "written by tmas subset", "default": "any file"}
HUB_COLUMNS = {
    "aime24": {"id", "problem", "solution", "answer", "url", "year"},
    "gsm8k": {"question", "answer"},
    "hle_math_100": {"id", "question", "image", "answer", "answer_type", "category", "raw_subject", "rationale"},
    "math500": {"problem", "solution", "answer", "subject", "level", "unique_id"},
}
"""As the hub's pages list them."""


def composed(name: str) -> dict[str, Any]:
    """The group ``data`` as ``tmas solve data=NAME`` composes it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("solve", overrides=[f"data={name}"])
    plain = OmegaConf.to_container(config.data, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_composes_and_lists_every_field(name: str) -> None:
    preset = composed(name)
    assert preset.keys() == ProblemFields.model_fields.keys()
    dumped = ProblemFields.model_validate(preset).model_dump(mode="json", exclude={"hub"})
    assert dumped | {"hub": preset["hub"]} == preset


def test_the_default_preset_is_the_default_of_the_code() -> None:
    assert ProblemFields.model_validate(composed("default")) == ProblemFields()


def test_every_preset_is_tried_on_its_file() -> None:
    assert sorted({name for name, *_ in FITS} | ELSEWHERE.keys()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_on_the_hub_asks_for_columns_that_are_there(name: str) -> None:
    fields = ProblemFields.model_validate(composed(name))
    assert (fields.hub is not None) == (name in HUB_COLUMNS)
    if fields.hub:
        asked = {fields.hub.columns.get(column, column) for column in fields.required} | fields.hub.where.keys()
        assert asked <= HUB_COLUMNS[name]


@needs_data
@pytest.mark.parametrize(("name", "file", "count", "first"), FITS)
def test_a_preset_reads_the_file_that_it_is_for(
    name: str, file: str, count: int, first: tuple[str, str | None]
) -> None:
    problems = load_problems(DATA / file, ProblemFields.model_validate(composed(name)), on_bad="skip").problems
    assert len(problems) == count
    assert (problems[0].problem_id, problems[0].answer) == first
