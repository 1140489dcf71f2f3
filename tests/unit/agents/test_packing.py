"""agents/packing.py: what comes out fits, as little as possible was given up for it, and every step is on record."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tmas.agents.packing import DoesNotFit, Fits, Prompt, Shorten, cut_middle, pack, replace_by

NAMES = "abc"


class Room:
    """A window that counts words of a prompt as tokens, or its characters."""

    def __init__(self, limit: int, words: bool = False) -> None:
        self.limit, self.words = limit, words

    def count(self, text: str) -> int:
        return len(text.split()) if self.words else len(text)

    def fits(self, prompt: str) -> bool:
        return self.count(prompt) <= self.limit


def render(pieces: Mapping[str, str]) -> str:
    return "Q\n" + "\n".join(pieces.values())


Step = tuple[str, str]
"""A piece and what it is to be replaced by."""
PIECES = st.fixed_dictionaries({name: st.text("xy ", max_size=30) for name in NAMES})
STEPS = st.lists(st.tuples(st.sampled_from(NAMES), st.text("xy ", max_size=20)), max_size=6)


def after(pieces: Mapping[str, str], steps: Sequence[Step]) -> str:
    return render({**pieces, **dict(steps)})


@given(PIECES, STEPS, st.integers(0, 100), st.booleans())
@example({"a": "x" * 20, "b": "", "c": ""}, [("a", "x" * 10), ("a", "x")], 6, False)
def test_steps_are_taken_in_order_and_no_more_than_it_takes(
    pieces: dict[str, str], steps: list[Step], limit: int, words: bool
):
    room = Room(limit, words)
    needed = next((n for n in range(len(steps) + 1) if room.fits(after(pieces, steps[:n]))), None)
    shorten = [(name, replace_by(text)) for name, text in steps]
    if needed is None:
        with pytest.raises(DoesNotFit, match=f"has {room.count(after(pieces, steps))} tokens"):
            pack(render, pieces, shorten, room)
        return
    prompt = pack(render, pieces, shorten, room)
    assert room.fits(prompt.text)
    assert prompt.text == after(pieces, steps[:needed])
    current = dict(pieces)
    for note, (name, text) in zip(prompt.notes, steps[:needed], strict=True):
        assert note.model_dump() == {
            "piece": name,
            "tokens_before": room.count(current[name]),
            "tokens_after": room.count(text),
        }
        current[name] = text


def test_a_prompt_that_fits_is_left_alone():
    def never(fits: Fits) -> str:
        raise AssertionError("asked to shorten what fits")

    pieces = {"a": "x" * 10, "b": "y"}
    prompt = pack(render, pieces, [("a", never)], Room(len(render(pieces))))
    assert (prompt.text, prompt.notes) == (render(pieces), ())


def test_a_step_knows_what_the_steps_before_it_did():
    asked = []

    def watch(fits: Fits) -> str:
        asked.extend([fits("yy"), fits("yyy")])
        return "yy"

    prompt = pack(render, {"a": "x" * 20, "b": "y" * 20}, [("a", replace_by("x")), ("b", watch)], Room(6))
    assert prompt.text == "Q\nx\nyy"
    assert asked == [True, False]


def test_a_system_message_has_to_fit_too_and_is_shortened_with_the_rest():
    def system(pieces: Mapping[str, str]) -> str:
        return pieces["a"] and f"Know: {pieces['a']}"

    def question(_: Mapping[str, str]) -> str:
        return "Q"

    def packed(limit: int) -> Prompt:
        return pack(question, {"a": "x" * 20}, [("a", replace_by("x")), ("a", replace_by(""))], Room(limit), system)

    whole = packed(len("Know: \n\nQ") + 20)
    assert [(m.role, m.content) for m in whole.messages] == [("system", f"Know: {'x' * 20}"), ("user", "Q")]
    assert whole.content == f"Know: {'x' * 20}\n\nQ"
    assert packed(28).system == "Know: x"
    assert [(m.role, m.content) for m in packed(9).messages] == [("user", "Q")]
    assert [note.tokens_after for note in packed(9).notes] == [1, 0]


# --- cut_middle

MARK = re.compile(r"\n\[\.\.\. (\d+) characters left out here to fit the context \.\.\.\]\n")


def parts(text: str) -> tuple[str, int, str]:
    head, missing, tail = MARK.split(text)
    return head, int(missing), tail


def shorten(text: str, room: int) -> str:
    return cut_middle(text)(lambda shortened: len(shortened) <= room)


@given(st.text("abcdefg", min_size=1, max_size=300), st.integers(0, 400))
def test_cut_middle_keeps_both_ends_and_says_what_is_missing(text: str, room: int):
    head, missing, tail = parts(shorten(text, room))
    assert text.startswith(head)
    assert text.endswith(tail)
    assert missing == len(text) - len(head) - len(tail) > 0
    assert len(head) - len(tail) in (0, 1)


@given(st.text("abcdefg", min_size=2, max_size=300), st.integers(0, 400))
def test_cut_middle_keeps_as_much_as_fits(text: str, room: int):
    def length(kept: int) -> int:
        return kept + len(shorten(text, 0)) - len(str(len(text))) + len(str(len(text) - kept))

    longest = max((kept for kept in range(len(text)) if length(kept) <= room), default=0)
    assert len(text) - parts(shorten(text, room))[1] == longest


@given(st.text("abc\n", min_size=100, max_size=400), st.integers(0, 400))
def test_a_prompt_with_its_middle_cut_fits_or_is_refused(text: str, limit: int):
    step: tuple[str, Shorten] = ("a", cut_middle(text))
    room = Room(limit)
    try:
        prompt = pack(render, {"a": text}, [step], room)
    except DoesNotFit:
        assert limit < len(render({"a": shorten(text, 0)}))
        return
    assert room.fits(prompt.text)
    assert len(prompt.notes) == (0 if room.fits(render({"a": text})) else 1)
