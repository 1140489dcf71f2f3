"""Degenerate model text: the time of every parser is linear in its length, so that no reply blocks the event loop."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest

from tmas.answers.extract import extract_boxed, extract_stated
from tmas.llm.thinking import split_thinking
from tmas.prompts.parsing import Unparsable, parse_json, parse_verification, whole_sentences
from tmas.prompts.repair import MAX_READS, repaired_json
from tmas.prompts.schemas import ExperienceOutput

UNITS = ["{", "[", '"', "\\", "{[", '{"', '{"a":', '{"new":', '"{', "{ ", "tt)\\}", "a}a", "[1],", "(", "1.\n", "\n"]
PARSERS = (
    lambda text: parse_json(text, ExperienceOutput),
    parse_verification,
    whole_sentences,
    extract_boxed,
    extract_stated,
    lambda text: split_thinking(text, ""),
)
LIMIT = 60
"""Seconds of CPU for all parsers on three texts. They need a few seconds, and minutes with a quadratic parser."""


@pytest.mark.parametrize("unit", UNITS)
def test_50_000_characters_are_parsed_in_linear_time(unit: str) -> None:
    begun = time.process_time()
    for head in ("", '{"new":', '{"critique": "'):
        text = head + unit * (50_000 // len(unit)) + "}"
        for parse in PARSERS:
            with suppress(Unparsable):
                parse(text)
    assert time.process_time() - begun < LIMIT


def test_a_repair_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(ValueError, match="takes too long"):
        repaired_json('{"new":' + "tt)\\}" * MAX_READS)


def test_arrays_without_a_bracket_around_them_are_given_up_if_they_are_many() -> None:
    with pytest.raises(ValueError, match="takes too long"):
        repaired_json('{"new":' + "[1]," * 12_500)  # json-repair goes through all earlier arrays at each of them
    assert repaired_json('{"new":' + "[1]," * 50 + "}") == {"new": [1] * 50}
    with pytest.raises(Unparsable):
        parse_json('{"new":' + "[1]," * 12_500 + "}", ExperienceOutput)


def test_a_long_damaged_object_with_brackets_in_its_texts_is_repaired() -> None:
    text = "For x in [0, 1] and y in [0, 2], compare both sides. " * 100
    entries = ",".join(json.dumps({"experience": text}) for _ in range(4))
    assert len(repaired_json(f'{{"new": [{entries}], "note": "cut}}')["new"]) == 4


def test_objects_of_another_shape_do_not_hide_the_last_valid_one() -> None:
    noise = r"\frac{1}{2} {} {1, 2} {'a': 1} {\"b\": 2} " * 2000 + '{"a": {"b": 1}} ' * 100
    assert parse_json(f'{noise}{{"new": []}} {noise}', ExperienceOutput).record == ExperienceOutput()


def test_a_text_with_too_many_damaged_objects_is_unparsable() -> None:
    with pytest.raises(Unparsable, match="too many JSON objects"):
        parse_json('{"a' * 50_000 + json.dumps({"new": []}), ExperienceOutput)
