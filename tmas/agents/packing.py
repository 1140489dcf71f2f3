"""Packing: fit a prompt into the model's context window, shortening its pieces in a given order.

The paper is silent about this. Here, room for ``max_tokens`` of completion is always kept free. The problem and the
instructions are never cut. Everything else is shortened step by step, the least valuable first, until the prompt fits.
Each step is recorded with the call. A prompt that does not fit after all steps is a ``context`` failure and is not
sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from tmas.records import Message, PackingNote, Record

Render = Callable[[Mapping[str, str]], str]
Fits = Callable[[str], bool]
Shorten = Callable[[Fits], str]
"""Shortens one piece: given a test for its text, returns the best shorter text, which may still not fit."""
Step = tuple[str, Shorten]
"""The name of a piece, and the function that shortens it."""


class Window(Protocol):
    """The room for a prompt in the context of the model that plays a role."""

    def fits(self, prompt: str) -> bool:
        """Whether the prompt leaves room for the completion."""
        ...

    def count(self, text: str) -> int:
        """Tokens of ``text``."""
        ...


class Prompt(Record):
    """A prompt that fits, with the steps that made it fit.

    ``system``: the system message; "" for none. ``shown``: ids of the bank items that it shows. ``lines``: the whole
    line of each of these items, by id; empty if the lines contain the ids.
    """

    text: str
    system: str = ""
    notes: tuple[PackingNote, ...] = ()
    shown: tuple[str, ...] = ()
    lines: Mapping[str, str] = {}

    @property
    def messages(self) -> tuple[Message, ...]:
        system = (Message(role="system", content=self.system),) if self.system else ()
        return (*system, Message(role="user", content=self.text))

    @property
    def content(self) -> str:
        """System and user message as one text, for counting tokens."""
        return f"{self.system}\n\n{self.text}" if self.system else self.text


class DoesNotFit(Exception):
    """The prompt is too long even after every step."""


def pack(
    render: Render,
    pieces: Mapping[str, str],
    steps: Iterable[Step | list[Step]],
    window: Window,
    system: Render | None = None,
) -> Prompt:
    """Render ``pieces`` into a prompt, applying ``steps`` in order until it fits.

    A list of steps is applied as a whole. ``system`` renders the system message, which has to fit too; an empty text
    means no system message. Raises :class:`DoesNotFit` after the last step.
    """

    def rendered(texts: Mapping[str, str]) -> Prompt:
        return Prompt(text=render(texts), system=system(texts) if system else "")

    current = dict(pieces)
    notes: list[PackingNote] = []
    prompt = rendered(current)
    remaining = iter(steps)
    while not window.fits(prompt.content):
        step = next(remaining, None)
        if step is None:
            size = window.count(prompt.content)
            raise DoesNotFit(f"the prompt still has {size} tokens without everything that can be left out")
        for name, shorten in step if isinstance(step, list) else [step]:
            before = current[name]
            current[name] = shorten(lambda text, piece=name: window.fits(rendered({**current, piece: text}).content))
            notes.append(
                PackingNote(piece=name, tokens_before=window.count(before), tokens_after=window.count(current[name]))
            )
        prompt = rendered(current)
    return prompt.model_copy(update={"notes": tuple(notes)}) if notes else prompt


def replace_by(text: str) -> Shorten:
    """The step that replaces a piece by a fixed shorter text."""
    return lambda _: text


def cut_middle(text: str) -> Shorten:
    """The step that cuts out the middle of ``text``, as little as needed, and notes how many characters are missing."""

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
