"""The console of the commands: what they print holds no API keys and no control characters."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from tmas.redaction import clean


class CleanConsole(Console):
    """A console that cleans all text.

    Tables and advice repeat text that models and servers sent. An escape sequence in such text could change the
    terminal, and Rich removes only a few control characters. Rich's own styles are not part of the text, so they stay.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n":
                yield segment
            else:
                yield Segment(clean(segment.text), segment.style)
