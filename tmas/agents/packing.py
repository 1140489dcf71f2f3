"""Fitting a prompt into the model's context: what is shortened, in which order, and a note of every step.

The rule (the paper is silent): ``max_tokens`` of completion are always kept free; the problem and the instructions
are never cut; everything else is shortened step by step, least valuable first, until the prompt fits. Each step
that was taken is recorded with the call; a prompt that fits at no step is a ``context`` failure and is not sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from tmas.records import Message, PackingNote, Record

Render = Callable[[Mapping[str, str]], str]
Fits = Callable[[str], bool]
Shorten = Callable[[Fits], str]
"""Given a test for one piece, returns that piece's best shorter text (which may still not fit)."""


class Window(Protocol):
    """The room one role's model leaves for a prompt."""

    def fits(self, prompt: str) -> bool: ...

    def count(self, text: str) -> int: ...


class Prompt(Record):
    """A prompt that fits, with the steps that made it fit. ``system``: what the model is told before it."""

    text: str
    system: str = ""
    notes: tuple[PackingNote, ...] = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        system = (Message(role="system", content=self.system),) if self.system else ()
        return (*system, Message(role="user", content=self.text))

    @property
    def content(self) -> str:
        """All that the model reads, as one text: for counting tokens."""
        return f"{self.system}\n\n{self.text}" if self.system else self.text


class DoesNotFit(Exception):
    """The prompt is too long even with everything shortened that may be."""


def pack(
    render: Render,
    pieces: Mapping[str, str],
    steps: Iterable[tuple[str, Shorten]],
    window: Window,
    system: Render | None = None,
) -> Prompt:
    """Render ``pieces`` into a prompt, applying ``steps`` in order until it fits.

    ``steps`` are (piece name, how to shorten it). ``system`` renders the system message, which has to fit too; where
    it comes out empty there is none. Raises :class:`DoesNotFit` when all steps are used up.
    """

    def rendered(texts: Mapping[str, str]) -> Prompt:
        return Prompt(text=render(texts), system=system(texts) if system else "")

    current = dict(pieces)
    notes: list[PackingNote] = []
    prompt = rendered(current)
    remaining = iter(steps)
    while not window.fits(prompt.content):
        name, shorten = next(remaining, (None, None))
        if name is None or shorten is None:
            size = window.count(prompt.content)
            raise DoesNotFit(f"the prompt has {size} tokens with everything left out that may be")
        before = current[name]
        current[name] = shorten(lambda text, piece=name: window.fits(rendered({**current, piece: text}).content))
        notes.append(
            PackingNote(piece=name, tokens_before=window.count(before), tokens_after=window.count(current[name]))
        )
        prompt = rendered(current)
    return prompt.model_copy(update={"notes": tuple(notes)}) if notes else prompt


def replace_by(text: str) -> Shorten:
    """The step that puts a fixed shorter text in place."""
    return lambda _: text


def cut_middle(text: str) -> Shorten:
    """The step that keeps as much of the beginning and the end as fits, and says how much is missing between."""

    def keep(characters: int) -> str:
        head, tail = text[: (characters + 1) // 2], text[len(text) - characters // 2 :]
        return f"{head}\n[... {len(text) - characters} characters left out here to fit the context ...]\n{tail}"

    def shorten(fits: Fits) -> str:
        low, high = 0, len(text) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(keep(middle)) else (low, middle - 1)
        return keep(low)

    return shorten
