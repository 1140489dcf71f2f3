"""Texts of the report, each line stored once: nothing is lost, and what repeats costs next to nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tmas.report.texts import LineRun, Texts

LINES = st.lists(st.sampled_from(["", "short", "a line that is long enough", "another line that is long", "x" * 40]))
TEXTS = st.lists(st.tuples(st.one_of(st.text(), LINES.map("\n".join)), st.integers(0, 3)), max_size=12)


def put_together(texts: Texts, runs: list[LineRun]) -> str:
    """As viewer/js/store.js does it."""
    return "\n".join("\n".join(texts.units[unit][start : start + count]) for unit, start, count in runs)


@given(TEXTS)
def test_every_text_comes_back_exactly(given_texts: list[tuple[str, int]]):
    texts = Texts()
    runs = [texts.add(text, unit) for text, unit in given_texts]
    assert [put_together(texts, found) for found in runs] == [text for text, _ in given_texts]


def test_a_prompt_that_repeats_a_reply_holds_a_reference_to_it():
    texts = Texts()
    reply = "\n\n".join(f"Paragraph {i} says something of its own." for i in range(50))
    assert texts.add(reply, 0) == [[0, 0, 99]]
    runs = texts.add(f"# Candidate solution\n\n{reply}\n\n# The task of the next agent", 1)
    assert runs == [[1, 0, 2], [0, 0, 99], [1, 2, 2]]
    assert len(texts.units[1]) == 4
